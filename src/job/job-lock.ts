import { randomUUID } from "node:crypto";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { OperationalError } from "../base/errors.ts";
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
  const folder = join(home.state, "locks");
  await createHomeFolder(folder);
  const path = join(folder, `${encodeURIComponent(job)}.lock`);
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
