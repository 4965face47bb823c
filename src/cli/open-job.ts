import { OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import type { CliContext } from "./context.ts";

/** The snapshots of one database of a job. */
export interface JobDatabase {
  readonly name: string;
  /** Folder of its snapshots at every destination. */
  readonly prefix: string;
}

/** A job as the commands that read snapshots need it. Disposal closes the destinations. */
export interface OpenedJob extends AsyncDisposable {
  readonly name: string;
  readonly databases: readonly JobDatabase[];
  /** In the order of the job file; only the one of `--from` when that was given. */
  readonly destinations: readonly Destination[];
}

export interface OpenJobOptions {
  /** Name of a job in the jobs folder, or path of a job file. */
  readonly job: string;
  /** Value of `--from`. */
  readonly from?: string | undefined;
}

/**
 * Reads a job and opens its destinations.
 * Job files cannot be read in this version: it always fails. The commands behind it are complete.
 */
export async function openJob(context: CliContext, options: OpenJobOptions): Promise<OpenedJob> {
  context.signal.throwIfAborted();
  throw new OperationalError(`cannot read the job ${options.job}: job files are not available yet`, {
    kind: "job",
    code: "not-available",
    hint: "Wait for a version that reads job files.",
  });
}

/** Gives the only database of a job, for what works on one snapshot. */
export function onlyDatabase(job: OpenedJob): JobDatabase {
  const [database, ...more] = job.databases;
  if (database && more.length === 0) return database;
  throw new OperationalError(`cannot choose a snapshot of ${job.name}: the job has ${job.databases.length} databases`, {
    kind: "usage",
    code: "several-databases",
    hint: "Make one job for each database.",
  });
}
