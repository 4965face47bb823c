import { rm } from "node:fs/promises";
import { join } from "node:path";
import { makeFolders } from "../base/make-folders.ts";
import { localError } from "../destinations/local-errors.ts";
import { destinationNameOf } from "../job/destination-name.ts";
import { createHomeFolder, type Home } from "../job/home.ts";
import type { Job } from "../job/read-job.ts";
import { snapshotPrefix } from "../snapshot/snapshot-prefix.ts";

/**
 * Where the spool of a job lies: at its only destination when that is local, so that a finished volume needs no copy; else in
 * the home: a full or broken disk of one destination must not end the others.
 */
export function spoolFolderOf(job: Job, home: Home): string {
  const [first, second] = job.destinations;
  return first?.type === "local" && second === undefined
    ? join(resolveFrom(job.folder, first.path), `${snapshotPrefix(job.name, "spool").replace("/", ".")}.in-progress`)
    : join(home.state, "spool", job.name);
}

/**
 * Makes that folder, empty. What a killed command left there goes first: the job's lock, which the caller holds, says that
 * nobody uses it. Fails with kind `destination` where it lies at one.
 */
export async function makeSpoolFolder(job: Job, home: Home): Promise<string> {
  const folder = spoolFolderOf(job, home);
  const [only] = job.destinations;
  const isAtHome = folder.startsWith(join(home.state, "spool"));
  try {
    await rm(folder, { recursive: true, force: true });
    await (isAtHome ? createHomeFolder(folder) : makeFolders(folder));
  } catch (error) {
    throw isAtHome || !only ? error : localError(error, `write to ${destinationNameOf(only)}`);
  }
  return folder;
}

/** Gives a path of a job file, which is relative to its folder. */
export function resolveFrom(folder: string, path: string): string {
  return join(path.startsWith("/") || /^[A-Za-z]:[\\/]/.test(path) ? "" : folder, path);
}
