import type { Job } from "../job/read-job.ts";
import { hashJobFile, type StateStore } from "../job/state-store.ts";

/** What the history says of a run that a person or the system stopped. */
export const ABORTED = "aborted: stopped by a signal (Ctrl-C, SIGTERM or a hang-up)";

/**
 * Records the runs of a job that died without a word as failures. `isLocked` tells whether a process holds the lock of the job
 * now, which a run does from before its beginning is remembered until behind the record of its end.
 */
export async function endDeadRuns(job: Job, state: StateStore, isLocked: () => boolean): Promise<void> {
  // The lock is looked at afterwards: a run that begins in between is not among these.
  const begun = state.begunRunsOf(job.name);
  if (begun.length === 0 || isLocked()) return;
  for (const { id, ...run } of begun) {
    // When it died is not known.
    state.endRun(id, { ...run, durationMs: 0, outcome: "failure", error: WITHOUT_A_WORD });
  }
  await disableAfterTooMany(job, state);
}

const WITHOUT_A_WORD = "stopped without a word (killed, or the machine went down)";

/** Switches a job off that has failed as often in a row as its file allows. */
export async function disableAfterTooMany(job: Job, state: StateStore): Promise<void> {
  const limit = job.failures?.disableAfter;
  if (limit !== undefined && state.failuresInARow(job.name) >= limit) {
    state.disable(job.name, await hashJobFile(job.path));
  }
}
