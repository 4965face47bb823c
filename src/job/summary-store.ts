import { rm } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { codeOf } from "../base/errors.ts";
import type { SummaryCache } from "../snapshot/repository.ts";
import type { SnapshotSummary } from "../snapshot/snapshot-summary.ts";
import { createHomeFolder, type Home } from "./home.ts";

/** Rises whenever `SnapshotSummary` changes: what an older version kept is then read anew. */
const VERSION = 2;

/** Summaries of some tens of megabytes; beyond that the cache begins anew rather than grow for ever. */
const MOST_SUMMARIES = 100_000;
const SUMMARIES_AT_ONCE = 500;

/**
 * Remembers what manifests say, by key, size and time, so that a list of thousands of snapshots reads none twice. For
 * lists only: a manifest that rots keeps its size and time, so what removes or restores reads it itself.
 */
export class SummaryStore implements SummaryCache, Disposable {
  readonly #database: DatabaseSync;
  readonly #get: StatementSync;
  /** Whatever is looked for is not there. */
  readonly #wasEmpty: boolean;
  #pending: (readonly [string, number, number, string])[] = [];

  constructor(database: DatabaseSync, wasEmpty: boolean) {
    this.#database = database;
    this.#wasEmpty = wasEmpty;
    this.#get = database.prepare("select summary from summaries where key = ? and size = ? and modified_at = ?");
  }

  async get(key: string, size: number, modifiedAt: Date): Promise<SnapshotSummary | undefined> {
    if (this.#wasEmpty) return undefined;
    const row = this.#get.get(key, size, modifiedAt.getTime());
    return row ? (JSON.parse(String(row["summary"])) as SnapshotSummary) : undefined;
  }

  async put(key: string, size: number, modifiedAt: Date, summary: SnapshotSummary): Promise<void> {
    this.#pending.push([key, size, modifiedAt.getTime(), JSON.stringify(summary)]);
    if (this.#pending.length >= SUMMARIES_AT_ONCE) this.#write();
  }

  /** Many in one transaction: each one alone would wait for the disk. What cannot be written is read anew next time. */
  #write(): void {
    const rows = this.#pending;
    this.#pending = [];
    try {
      this.#database.exec("begin immediate");
      const put = this.#database.prepare("insert or replace into summaries values (?, ?, ?, ?)");
      for (const row of rows) put.run(...row);
      this.#database.exec("commit");
    } catch (error) {
      if (codeOf(error) !== "ERR_SQLITE_ERROR") throw error;
      if (this.#database.isTransaction) this.#database.exec("rollback");
    }
  }

  [Symbol.dispose](): void {
    try {
      if (this.#pending.length > 0) this.#write();
    } finally {
      this.#database.close();
    }
  }
}

/** Opens the cache of this machine; one that cannot be read is begun anew, and one that is in use is done without. */
export async function openSummaryStore(home: Home): Promise<SummaryStore | undefined> {
  await createHomeFolder(home.state);
  const path = join(home.state, "summaries.sqlite");
  try {
    return openFile(path);
  } catch (error) {
    if (codeOf(error) !== "ERR_SQLITE_ERROR") throw error;
    if (/locked|busy/.test(String((error as Error).message))) return undefined;
    for (const suffix of ["", "-wal", "-shm"]) await rm(path + suffix, { force: true });
    return openFile(path);
  }
}

function openFile(path: string): SummaryStore {
  const database = new DatabaseSync(path);
  try {
    database.exec("pragma busy_timeout = 200; pragma journal_mode = wal; pragma synchronous = normal");
    const version = Number(database.prepare("pragma user_version").get()?.["user_version"]);
    if (version !== VERSION) database.exec(`drop table if exists summaries; pragma user_version = ${VERSION}`);
    database.exec(`create table if not exists summaries (
      key text primary key, size integer not null, modified_at integer not null, summary text not null) strict`);
    const count = Number(database.prepare("select count(*) as count from summaries").get()?.["count"]);
    if (count > MOST_SUMMARIES) database.exec("delete from summaries");
    return new SummaryStore(database, count === 0 || count > MOST_SUMMARIES);
  } catch (error) {
    database.close();
    throw error;
  }
}
