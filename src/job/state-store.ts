import { createHash } from "node:crypto";
import { readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { TableName } from "../drivers/driver.ts";
import { createHomeFolder, type Home } from "./home.ts";
import { sqliteFaultOf, unusableFile } from "./sqlite-fault.ts";

export type Outcome = "success" | "warning" | "failure" | "skipped";

export interface RunRecord {
  readonly id: number;
  readonly job: string;
  /** `drill` is a proof of a snapshot, not a run of the job: it counts neither as its success nor as its failure. */
  readonly kind: "full" | "incremental" | "drill";
  /** ISO 8601. */
  readonly startedAt: string;
  readonly durationMs: number;
  readonly outcome: Outcome;
  readonly error?: string | undefined;
  readonly snapshot?: string | undefined;
  readonly node?: string | undefined;
  /** Bytes of the snapshots that it made, of all databases together. */
  readonly rawBytes?: number | undefined;
  readonly storedBytes?: number | undefined;
}

/** A run that has begun and is not known to have ended. */
export type BegunRun = Pick<RunRecord, "id" | "job" | "kind" | "startedAt" | "node">;

export interface JobState {
  readonly failuresInARow: number;
  /** Switched off after too many failures, until the job file changes. */
  readonly disabled: boolean;
  readonly lastRun?: RunRecord | undefined;
  readonly lastFull?: string | undefined;
  readonly lastIncremental?: string | undefined;
  readonly lastSuccess?: string | undefined;
}

/** How many rows a table of a snapshot has. */
export interface CountedRows extends TableName {
  readonly partitionRoot?: TableName | undefined;
  readonly rows: number;
}

export interface EncryptedSnapshot {
  readonly id: string;
  readonly envelopeSha256: string;
  readonly tables: readonly CountedRows[];
}

const VERSION = 1;
const SCHEMA = `
  create table if not exists runs (
    id integer primary key, job text not null, kind text not null, started_at text not null, duration_ms integer not null,
    outcome text not null, error text, snapshot text, node text) strict;
  create index if not exists runs_of_job on runs (job, id);
  create table if not exists stored_snapshots (
    prefix text not null, destination text not null, id text not null, primary key (prefix, destination, id)) strict, without rowid;
  create table if not exists encrypted_snapshots (
    prefix text not null, id text not null, envelope text not null, tables text, primary key (prefix, id)) strict, without rowid;
  create table if not exists only_for_others (
    prefix text not null, destination text not null, id text not null, primary key (prefix, destination, id)) strict, without rowid;
  create table if not exists brakes (prefix text not null, id text not null, primary key (prefix, id)) strict, without rowid;
  create table if not exists disabled (job text primary key, file_hash text not null) strict;
  create table if not exists unfinished (
    prefix text not null, id text not null, job text not null, primary key (prefix, id)) strict;
  create table if not exists begun_runs (
    id integer primary key, job text not null, kind text not null, started_at text not null, node text) strict;
`;
/** Columns that came later. A rowkeep that does not know them names none of them, so the version stays. */
const LATER_COLUMNS = ["raw_bytes integer", "stored_bytes integer"];

/** History and switches of the jobs on this machine: a cache and a memory, nothing that a restore needs. */
export class StateStore implements Disposable {
  readonly #database: DatabaseSync;

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  /** Remembers a run before it does anything, so that one that dies without a word is found. Gives its id for `endRun`. */
  beginRun(run: Omit<BegunRun, "id">): number {
    const { lastInsertRowid } = this.#database
      .prepare("insert into begun_runs (job, kind, started_at, node) values (?, ?, ?, ?)")
      .run(run.job, run.kind, run.startedAt, run.node ?? null);
    return Number(lastInsertRowid);
  }

  /** Gives the runs of a job that have begun and not ended: one that is under way, and those that died. */
  begunRunsOf(job: string): readonly BegunRun[] {
    return this.#database
      .prepare("select * from begun_runs where job = ? order by id")
      .all(job)
      .map((row) => recordOf({ ...row, duration_ms: 0 }));
  }

  /** Records the end of a run that has begun. Gives false, and does nothing, when that was recorded already. */
  endRun(begun: number, run: Omit<RunRecord, "id">): boolean {
    this.#database.exec("begin immediate");
    try {
      const { changes } = this.#database.prepare("delete from begun_runs where id = ?").run(begun);
      if (changes === 0) return false;
      this.addRun(run);
      this.#database.exec("commit");
      return true;
    } finally {
      if (this.#database.isTransaction) this.#database.exec("rollback");
    }
  }

  /** Records a run that has ended. */
  addRun(run: Omit<RunRecord, "id">): void {
    this.#database
      .prepare(
        `insert into runs (job, kind, started_at, duration_ms, outcome, error, snapshot, node, raw_bytes, stored_bytes)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      )
      .run(
        run.job,
        run.kind,
        run.startedAt,
        run.durationMs,
        run.outcome,
        run.error ?? null,
        run.snapshot ?? null,
        run.node ?? null,
        run.rawBytes ?? null,
        run.storedBytes ?? null,
      );
  }

  /** Gives the runs of a job, the newest first. */
  runsOf(job: string, limit: number): readonly RunRecord[] {
    return this.#database
      .prepare("select * from runs where job = ? order by id desc limit ?")
      .all(job, limit)
      .map(recordOf);
  }

  /** `fileHash` is that of the job's file now: another one than at the switching off switches the job on again. */
  stateOf(job: string, fileHash: string): JobState {
    const disabled = this.#database.prepare("select file_hash from disabled where job = ?").get(job);
    const last = (condition: string) => {
      const row = this.#database
        .prepare(`select * from runs where job = ? and kind <> 'drill' and ${condition} order by id desc limit 1`)
        .get(job);
      return row ? recordOf(row) : undefined;
    };
    return {
      failuresInARow: this.failuresInARow(job),
      disabled: disabled?.["file_hash"] === fileHash,
      lastRun: last("outcome <> 'skipped'"),
      lastFull: last("kind = 'full' and outcome in ('success', 'warning')")?.startedAt,
      lastIncremental: last("kind = 'incremental' and outcome in ('success', 'warning')")?.startedAt,
      lastSuccess: last("outcome in ('success', 'warning')")?.startedAt,
    };
  }

  /** Remembers that this machine stored a snapshot at a destination, so that a listing without it is noticed. */
  addStored(prefix: string, destination: string, id: string): void {
    this.#database.prepare("insert or ignore into stored_snapshots values (?, ?, ?)").run(prefix, destination, id);
  }

  /** Gives the ids of the snapshots that should be there. */
  storedAt(prefix: string, destination: string): readonly string[] {
    return this.#database
      .prepare("select id from stored_snapshots where prefix = ? and destination = ? order by id")
      .all(prefix, destination)
      .map((row) => String(row["id"]));
  }

  /** Gives the ids, begun or stored here, that begin like this and are of other databases of the job than that of `prefix`. */
  idsBeside(prefix: string, start: string): readonly string[] {
    const folder = prefix.slice(0, prefix.indexOf("/") + 1);
    return this.#database
      .prepare(
        `select id from (select prefix, id from stored_snapshots union select prefix, id from unfinished)
          where prefix <> ? and substr(prefix, 1, length(?)) = ? and substr(id, 1, length(?)) = ?`,
      )
      .all(prefix, folder, folder, start, start)
      .map((row) => String(row["id"]));
  }

  /** Forgets a snapshot that is about to be removed, or that somebody removed on purpose. */
  forgetStored(prefix: string, destination: string, id: string): void {
    this.#database
      .prepare("delete from stored_snapshots where prefix = ? and destination = ? and id = ?")
      .run(prefix, destination, id);
  }

  /**
   * Remembers what this machine, which perhaps cannot open it, knows of an encrypted snapshot that it made: the hash of the
   * envelope that it wrote, and, of the last one only, how many rows its tables have.
   */
  addEncrypted(prefix: string, snapshot: EncryptedSnapshot): void {
    const { id, envelopeSha256, tables } = snapshot;
    const counted = tables.map(({ schema, name, partitionRoot, rows }) => ({ schema, name, partitionRoot, rows }));
    this.#database.exec("begin immediate");
    try {
      this.#database.prepare("update encrypted_snapshots set tables = null where prefix = ?").run(prefix);
      this.#database
        .prepare(
          `delete from encrypted_snapshots where prefix = ? and id not in (select id from stored_snapshots where prefix = ?)`,
        )
        .run(prefix, prefix);
      this.#database
        .prepare("insert or replace into encrypted_snapshots values (?, ?, ?, ?)")
        .run(prefix, id, envelopeSha256, JSON.stringify(counted));
      this.#database.exec("commit");
    } finally {
      if (this.#database.isTransaction) this.#database.exec("rollback");
    }
  }

  /** Gives the SHA-256 of the envelopes that this machine wrote, by the snapshot's id. */
  envelopesOf(prefix: string): ReadonlyMap<string, string> {
    const rows = this.#database.prepare("select id, envelope from encrypted_snapshots where prefix = ?").all(prefix);
    return new Map(rows.map((row) => [String(row["id"]), String(row["envelope"])]));
  }

  /** Gives the tables of the last encrypted snapshot, if it is this one. */
  tablesOf(prefix: string, id: string): readonly CountedRows[] | undefined {
    const row = this.#database
      .prepare("select tables from encrypted_snapshots where prefix = ? and id = ? and tables is not null")
      .get(prefix, id);
    return row ? (JSON.parse(String(row["tables"])) as readonly CountedRows[]) : undefined;
  }

  /** Remembers, in place of all others there, the snapshots of a destination that only later ones keep, which refer to them. */
  setOnlyForOthers(prefix: string, destination: string, ids: Iterable<string>): void {
    this.#database.exec("begin immediate");
    try {
      this.#database
        .prepare("delete from only_for_others where prefix = ? and destination = ?")
        .run(prefix, destination);
      const insert = this.#database.prepare("insert into only_for_others values (?, ?, ?)");
      for (const id of ids) insert.run(prefix, destination, id);
      this.#database.exec("commit");
    } finally {
      if (this.#database.isTransaction) this.#database.exec("rollback");
    }
  }

  /** Gives their ids. */
  onlyForOthersAt(prefix: string, destination: string): readonly string[] {
    return this.#database
      .prepare("select id from only_for_others where prefix = ? and destination = ? order by id")
      .all(prefix, destination)
      .map((row) => String(row["id"]));
  }

  /** Remembers a snapshot with anomalies that nobody acknowledged: the destination that has it may not answer next time. */
  addBrake(prefix: string, id: string): void {
    this.#database.prepare("insert or ignore into brakes values (?, ?)").run(prefix, id);
  }

  forgetBrake(prefix: string, id: string): void {
    this.#database.prepare("delete from brakes where prefix = ? and id = ?").run(prefix, id);
  }

  /** Gives the snapshots that were remembered, the oldest first. */
  brakesOf(prefix: string): readonly string[] {
    const rows = this.#database.prepare("select id from brakes where prefix = ? order by id").all(prefix);
    return rows.map((row) => String(row["id"]));
  }

  failuresInARow(job: string): number {
    const row = this.#database
      .prepare(
        `select count(*) as failures from runs where job = ? and outcome = 'failure' and kind <> 'drill'
            and id > coalesce((select max(id) from runs where job = ? and kind <> 'drill' and outcome in ('success', 'warning')), 0)`,
      )
      .get(job, job);
    return Number(row?.["failures"] ?? 0);
  }

  /** Switches a job off until its file changes. */
  disable(job: string, fileHash: string): void {
    this.#database.prepare("insert or replace into disabled (job, file_hash) values (?, ?)").run(job, fileHash);
  }

  enable(job: string): void {
    this.#database.prepare("delete from disabled where job = ?").run(job);
  }

  /** Remembers a snapshot before the first byte of it is stored, so that a later run finds what a dead one left. */
  beginSnapshot(job: string, prefix: string, id: string): void {
    this.#database.prepare("insert or replace into unfinished (prefix, id, job) values (?, ?, ?)").run(prefix, id, job);
  }

  /** Forgets it: every destination has it, or nothing of it. Where that cannot be written, the next run looks at it once more. */
  endSnapshot(prefix: string, id: string): void {
    try {
      this.#database.prepare("delete from unfinished where prefix = ? and id = ?").run(prefix, id);
    } catch (error) {
      if (sqliteFaultOf(error) === undefined) throw error;
    }
  }

  /** Gives the snapshots that runs of a job began and that are not known to have ended well. */
  unfinishedOf(job: string): readonly { readonly prefix: string; readonly id: string }[] {
    return this.#database
      .prepare("select prefix, id from unfinished where job = ? order by id")
      .all(job)
      .map((row) => ({ prefix: String(row["prefix"]), id: String(row["id"]) }));
  }

  [Symbol.dispose](): void {
    this.#database.close();
  }
}

/** Hash of a job file's text, to see that it was edited. */
export async function hashJobFile(path: string): Promise<string> {
  return createHash("sha256")
    .update(await readFile(path))
    .digest("hex");
}

/**
 * Opens the state of this machine. A file that is damaged or of a newer version is put aside, with a warning, and a new
 * one is begun: no backup may fail because its diary is torn. Fails with kind `usage` where the disk is full, say.
 */
export async function openStateStore(home: Home, warn: (message: string) => void): Promise<StateStore> {
  await createHomeFolder(home.state);
  const path = join(home.state, "state.sqlite");
  try {
    return openFile(path);
  } catch (error) {
    const fault = error instanceof NewerStateError ? "torn" : sqliteFaultOf(error);
    if (fault === undefined) throw error;
    // A full disk tears no history: begun anew it would be forgotten for nothing.
    if (fault !== "torn") throw unusableFile(path, error);
    const aside = `${path}.damaged-${Date.now()}`;
    await rename(path, aside);
    warn(`the history in ${path} could not be read; it lies now at ${aside}, and a new one was begun`);
    return openFile(path);
  }
}

class NewerStateError extends Error {}

function openFile(path: string): StateStore {
  const database = new DatabaseSync(path);
  try {
    database.exec("pragma busy_timeout = 5000; pragma journal_mode = wal");
    const version = Number(database.prepare("pragma user_version").get()?.["user_version"]);
    if (version > VERSION) throw new NewerStateError(`state version ${version}`);
    database.exec(`begin immediate; ${SCHEMA} pragma user_version = ${VERSION}`);
    const known = new Set(
      database
        .prepare("pragma table_info(runs)")
        .all()
        .map((column) => column["name"]),
    );
    for (const column of LATER_COLUMNS) {
      if (!known.has(column.split(" ")[0])) database.exec(`alter table runs add column ${column}`);
    }
    database.exec("commit");
    return new StateStore(database);
  } catch (error) {
    database.close();
    throw error;
  }
}

function recordOf(row: Record<string, unknown>): RunRecord {
  const optional = (name: string) => (typeof row[name] === "string" ? { [name]: row[name] } : {});
  const bytes = (name: string, column: string) => (typeof row[column] === "number" ? { [name]: row[column] } : {});
  return {
    id: Number(row["id"]),
    job: String(row["job"]),
    kind: row["kind"] === "incremental" || row["kind"] === "drill" ? row["kind"] : "full",
    startedAt: String(row["started_at"]),
    durationMs: Number(row["duration_ms"]),
    outcome: row["outcome"] as Outcome,
    ...optional("error"),
    ...optional("snapshot"),
    ...optional("node"),
    ...bytes("rawBytes", "raw_bytes"),
    ...bytes("storedBytes", "stored_bytes"),
  };
}
