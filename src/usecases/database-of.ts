import type { Job } from "../job/read-job.ts";
import { snapshotPrefix } from "../snapshot/snapshot-prefix.ts";

/** Gives the name of the database whose snapshots lie in this folder: as the job file writes it, else that of the folder. */
export function databaseOf(
  { name, databases, source }: Pick<Job, "name" | "databases" | "source">,
  prefix: string,
): string {
  const written = Array.isArray(databases) ? databases : source.database === undefined ? [] : [source.database];
  return written.find((one) => snapshotPrefix(name, one) === prefix) ?? prefix.slice(prefix.indexOf("/") + 1);
}
