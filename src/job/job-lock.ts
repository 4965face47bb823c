import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { codeOf, messageOf, OperationalError } from "../base/errors.ts";
import { createHomeFolder, type Home } from "./home.ts";

/** Held while one job runs on this machine. */
export interface JobLock extends Disposable {
  readonly job: string;
}

/**
 * Takes the lock of a job, which one process of this machine can hold. It is an exclusive transaction on a small SQLite
 * file, so the operating system frees it when the process ends, however it ends.
 * Fails with kind `locked` when another process holds it.
 */
export async function takeJobLock(home: Home, job: string, now: Date): Promise<JobLock> {
  await createHomeFolder(folderOf(home));
  const path = lockPathOf(home, job);
  const holderPath = `${path}.holder`;
  const database = new DatabaseSync(path);
  try {
    database.exec("pragma busy_timeout = 200; begin exclusive");
  } catch (cause) {
    database.close();
    throw await heldByAnother(job, holderPath, cause);
  }
  const token = randomUUID();
  await writeFile(holderPath, JSON.stringify({ pid: process.pid, since: now.toISOString(), token }), { mode: 0o600 });
  return {
    job,
    [Symbol.dispose]() {
      database.close();
      void rm(holderPath, { force: true }).catch(() => undefined);
    },
  };
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
    if (codeOf(error) !== "ERR_SQLITE_ERROR") throw error;
    return /locked|busy/.test(messageOf(error));
  }
}

function folderOf(home: Home): string {
  return join(home.state, "locks");
}

function lockPathOf(home: Home, job: string): string {
  return join(folderOf(home), `${encodeURIComponent(job)}.lock`);
}

async function heldByAnother(job: string, holderPath: string, cause: unknown): Promise<OperationalError> {
  let holder = "";
  try {
    const { pid, since } = JSON.parse(await readFile(holderPath, "utf8")) as { pid: number; since: string };
    holder = ` (process ${pid}, since ${since})`;
  } catch {
    // Who holds it is only a kindness.
  }
  return new OperationalError(`cannot run ${job}: another run of it is under way${holder}`, {
    kind: "locked",
    code: "locked",
    hint: "Wait for it to end, or stop it.",
    cause,
  });
}
