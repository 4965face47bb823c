import { existsSync, rmSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { OperationalError } from "../base/errors.ts";
import { createHomeFolder, type Home } from "./home.ts";
import { sqliteFaultOf, unusableFile } from "./sqlite-fault.ts";

/** Held while a command of one job runs on this machine. */
export interface JobLock extends Disposable {
  readonly job: string;
}

export interface JobLockOptions {
  /** What holds it, for messages: `run`, `prune`, `sync`. */
  readonly command: string;
  readonly now: Date;
}

/**
 * Takes the lock of a job, which one process of this machine can hold. It is an exclusive transaction on a small SQLite
 * file, so the operating system frees it when the process ends, however it ends.
 * Fails with kind `locked` when another process holds it, with `usage` where the lock cannot be written.
 */
export async function takeJobLock(home: Home, job: string, { command, now }: JobLockOptions): Promise<JobLock> {
  await createHomeFolder(folderOf(home));
  const path = lockPathOf(home, job);
  const holderPath = `${path}.holder`;
  let database: DatabaseSync;
  try {
    database = openExclusively(path);
  } catch (cause) {
    const fault = sqliteFaultOf(cause);
    if (fault === undefined) throw cause;
    if (fault !== "busy") throw unusableFile(path, cause);
    throw await heldByAnother({ job, command }, holderPath, cause);
  }
  const holder: Holder = { command, pid: process.pid, host: hostname(), since: now.toISOString() };
  try {
    await writeFile(holderPath, JSON.stringify(holder), { mode: 0o600 });
  } catch (cause) {
    database.close();
    throw unusableFile(holderPath, cause);
  }
  return {
    job,
    [Symbol.dispose]() {
      // While the lock is held: afterwards the file is somebody else's.
      try {
        rmSync(holderPath, { force: true });
      } finally {
        database.close();
      }
    },
  };
}

function openExclusively(path: string): DatabaseSync {
  const database = new DatabaseSync(path);
  try {
    database.exec("pragma busy_timeout = 200; begin exclusive");
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

/** Tells whether a process of this machine holds the lock of a job now; takes it from nobody. */
export function isJobLocked(home: Home, job: string): boolean {
  const path = lockPathOf(home, job);
  if (!existsSync(path)) return false;
  try {
    using database = new DatabaseSync(path, { readOnly: true });
    // A reader waits for nobody but the holder.
    database.exec("pragma busy_timeout = 0; pragma user_version");
    return false;
  } catch (error) {
    const fault = sqliteFaultOf(error);
    if (fault === undefined) throw error;
    return fault === "busy";
  }
}

function folderOf(home: Home): string {
  return join(home.state, "locks");
}

function lockPathOf(home: Home, job: string): string {
  return join(folderOf(home), `${encodeURIComponent(job)}.lock`);
}

interface Holder {
  readonly command: string;
  readonly pid: number;
  readonly host: string;
  readonly since: string;
}

async function heldByAnother(
  { job, command }: { readonly job: string; readonly command: string },
  holderPath: string,
  cause: unknown,
): Promise<OperationalError> {
  let reason = "another command is at work on it";
  try {
    const holder = JSON.parse(await readFile(holderPath, "utf8")) as Partial<Holder>;
    const host = holder.host === undefined ? "" : ` on ${holder.host}`;
    const name = holder.command === undefined ? "another command" : `rowkeep ${holder.command}`;
    reason = `${name} is at work on it (process ${holder.pid}${host}, since ${holder.since})`;
  } catch {
    // Who holds it is only a kindness.
  }
  return new OperationalError(`cannot ${command} ${job}: ${reason}`, {
    kind: "locked",
    code: "locked",
    hint: "Wait for it to end, or stop it.",
    cause,
  });
}
