import { OperationalError } from "../base/errors.ts";
import type { Job } from "./read-job.ts";

interface Limit {
  readonly what: string;
  readonly isUsed: (job: Job) => boolean;
}

/** What a job file may say already and no command does yet. Work that makes one of them true removes its line. */
const LIMITS: readonly Limit[] = [
  {
    what: "engines other than postgres",
    isUsed: (job) => job.source.engine !== undefined && job.source.engine !== "postgres",
  },
  { what: "mode: native", isUsed: (job) => job.mode === "native" },
  { what: "dr.active", isUsed: (job) => job.dr?.active !== undefined && job.dr.active !== false },
  { what: "dr.autoRestore", isUsed: (job) => job.dr?.autoRestore === true },
  { what: "dr.alwaysBackupPrimary", isUsed: (job) => job.dr?.alwaysBackupPrimary === true },
  { what: "notify", isUsed: (job) => job.notify !== undefined },
];

/** Gives everything that the job asks for and that this version cannot do yet. */
export function unavailableIn(job: Job): readonly string[] {
  return LIMITS.filter(({ isUsed }) => isUsed(job)).map(({ what }) => what);
}

/** Refuses a job that asks for something that is not there yet, rather than do half of it in silence. */
export function assertAvailable(job: Job): void {
  const missing = unavailableIn(job);
  if (missing.length === 0) return;
  throw new OperationalError(`cannot use ${missing.join(", ")} in the job ${job.name}: not available yet`, {
    kind: "job",
    code: "not-available",
    hint: "Remove it from the job file.",
  });
}
