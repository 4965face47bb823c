import { rm } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync, type SQLInputValue } from "node:sqlite";
import { codeOf } from "../base/errors.ts";
import { createHomeFolder, type Home } from "./home.ts";
import { sqliteFaultOf } from "./sqlite-fault.ts";

export interface CacheLayout {
  /** Of the file in the state folder, without its ending, and of its table. */
  readonly name: string;
  /** Rises whenever what is kept changes: what an older version kept is then forgotten. */
  readonly version: number;
  readonly columns: string;
  /** Beyond so many rows the cache begins anew rather than grow for ever. */
  readonly mostRows: number;
}

const ROWS_AT_ONCE = 500;

/** One table of what this machine has read and could read again; nothing else depends on it. */
export class CacheFile implements Disposable {
  readonly database: DatabaseSync;
  /** Whatever is looked for is not there. */
  readonly wasEmpty: boolean;
  readonly #name: string;
  #pending: (readonly SQLInputValue[])[] = [];

  constructor(database: DatabaseSync, { name, wasEmpty }: { readonly name: string; readonly wasEmpty: boolean }) {
    this.database = database;
    this.wasEmpty = wasEmpty;
    this.#name = name;
  }

  put(row: readonly SQLInputValue[]): void {
    this.#pending.push(row);
    if (this.#pending.length >= ROWS_AT_ONCE) this.#write();
  }

  /** Many in one transaction: each one alone would wait for the disk. What cannot be written is read anew next time. */
  #write(): void {
    const rows = this.#pending;
    this.#pending = [];
    const marks = rows[0]?.map(() => "?").join(", ");
    try {
      this.database.exec("begin immediate");
      const put = this.database.prepare(`insert or replace into ${this.#name} values (${marks})`);
      for (const row of rows) put.run(...row);
      this.database.exec("commit");
    } catch (error) {
      if (codeOf(error) !== "ERR_SQLITE_ERROR") throw error;
      if (this.database.isTransaction) this.database.exec("rollback");
    }
  }

  [Symbol.dispose](): void {
    try {
      if (this.#pending.length > 0) this.#write();
    } finally {
      this.database.close();
    }
  }
}

/** Opens a cache of this machine; one that is torn is begun anew, and one that is in use or finds no room is done without. */
export async function openCacheFile(home: Home, layout: CacheLayout): Promise<CacheFile | undefined> {
  await createHomeFolder(home.state);
  const path = join(home.state, `${layout.name}.sqlite`);
  try {
    return openFile(path, layout);
  } catch (error) {
    const fault = sqliteFaultOf(error);
    if (fault === undefined) throw error;
    if (fault !== "torn") return undefined;
    for (const suffix of ["", "-wal", "-shm"]) await rm(path + suffix, { force: true });
    return openFile(path, layout);
  }
}

function openFile(path: string, { name, version, columns, mostRows }: CacheLayout): CacheFile {
  const database = new DatabaseSync(path);
  try {
    database.exec("pragma busy_timeout = 200; pragma journal_mode = wal; pragma synchronous = normal");
    const found = Number(database.prepare("pragma user_version").get()?.["user_version"]);
    if (found !== version) database.exec(`drop table if exists ${name}; pragma user_version = ${version}`);
    database.exec(`create table if not exists ${name} (${columns}) strict`);
    const count = Number(database.prepare(`select count(*) as count from ${name}`).get()?.["count"]);
    if (count > mostRows) database.exec(`delete from ${name}`);
    return new CacheFile(database, { name, wasEmpty: count === 0 || count > mostRows });
  } catch (error) {
    database.close();
    throw error;
  }
}
