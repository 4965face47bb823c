import { formatPlural } from "../base/counts.ts";
import { causesOf, isAbort, messageOf, OperationalError } from "../base/errors.ts";
import { assertAvailable } from "../job/availability.ts";
import { takeJobLock } from "../job/job-lock.ts";
import type { Job } from "../job/read-job.ts";
import { redactSecrets } from "../job/secrets.ts";
import { sqliteFaultOf } from "../job/sqlite-fault.ts";
import { hashJobFile, openStateStore, type Outcome, type StateStore } from "../job/state-store.ts";
import { ABORTED, disableAfterTooMany, endDeadRuns } from "./dead-runs.ts";
import type { MadeSnapshot } from "./made-snapshot.ts";
import { backUpDatabases, type RunOptions, type RunResult } from "./run-databases.ts";

export interface RunJobOptions extends RunOptions {
  /** Name of this machine in the history. */
  readonly node: string;
}

/**
 * Backs up every database of a job and records it in the history.
 * Fails with kind `job`, `locked`, or, when there is only one database, with why it could not be backed up.
 */
export async function runJob(options: RunJobOptions): Promise<RunResult> {
  const { job, home, report } = options;
  assertAvailable(job);
  using _lock = await takeJobLock(home, job.name, { command: "run", now: options.now() });
  using state = await openStateStore(home, (message) => report({ type: "warning", message }));
  await endDeadRuns(job, state, () => false);
  await refuseDisabled(job, state);
  const startedAt = options.now();
  const { name } = job;
  const { kind = "full", node } = options;
  const begun = state.beginRun({ job: name, kind, startedAt: startedAt.toISOString(), node });
  try {
    const result = await backUpDatabases(options, state);
    const outcome = result.failures.length > 0 ? "failure" : result.warnings.length > 0 ? "warning" : "success";
    const failed = result.failures.map(({ error }) => wordsOf(error)).join("; ");
    const error = failed || firstOf(result.warnings);
    const unrecorded = await record(options, state, { begun, startedAt, outcome, error, made: result.snapshots });
    return unrecorded === undefined ? result : { ...result, warnings: [...result.warnings, unrecorded] };
  } catch (error) {
    const ended = isAbort(error)
      ? { outcome: "skipped" as const, error: ABORTED }
      : { outcome: "failure" as const, error: wordsOf(error) };
    await record(options, state, { begun, startedAt, ...ended, made: [] });
    throw error;
  }
}

/** A job that is off stays off for crontab too: nobody would see that it fails again and again. */
async function refuseDisabled(job: Job, state: StateStore): Promise<void> {
  const { disabled, failuresInARow } = state.stateOf(job.name, await hashJobFile(job.path));
  if (job.enabled !== false && !disabled) return;
  const reason = disabled
    ? `it was switched off after ${formatPlural(failuresInARow, "failure")} in a row`
    : "it is switched off";
  const enable = `rowkeep job enable ${job.name}`;
  throw new OperationalError(`cannot run ${job.name}: ${reason}`, {
    kind: "refused",
    code: "disabled",
    hint: disabled
      ? `Mend what failed (rowkeep history ${job.name}), then ${enable}.`
      : `Switch it on again: ${enable}.`,
  });
}

interface Ended {
  /** What `beginRun` gave. */
  readonly begun: number;
  readonly startedAt: Date;
  readonly outcome: Outcome;
  readonly error?: string | undefined;
  readonly made: readonly MadeSnapshot[];
}

/** Writes the end of a run into the history; gives, and reports, why that could not be done. */
async function record(options: RunJobOptions, state: StateStore, ended: Ended): Promise<string | undefined> {
  try {
    await recordIn(state, options, ended);
    return undefined;
  } catch (error) {
    // The snapshot is as good without; and why a run failed is told, not why it could not be noted.
    if (sqliteFaultOf(error) === undefined) throw error;
    const message = `the history does not show how this run ended: ${messageOf(error)}`;
    options.report({ type: "warning", message });
    return message;
  }
}

async function recordIn(state: StateStore, { job, kind, now, node }: RunJobOptions, ended: Ended): Promise<void> {
  const [first] = ended.made;
  const sum = (pick: (snapshot: MadeSnapshot) => number) => ended.made.reduce((total, one) => total + pick(one), 0);
  state.endRun(ended.begun, {
    job: job.name,
    kind: first?.kind ?? kind ?? "full",
    startedAt: ended.startedAt.toISOString(),
    durationMs: now().getTime() - ended.startedAt.getTime(),
    outcome: ended.outcome,
    error: ended.error === undefined ? undefined : redactSecrets(ended.error),
    snapshot: first?.id,
    node,
    ...(first ? { rawBytes: sum(({ rawBytes }) => rawBytes), storedBytes: sum(({ storedBytes }) => storedBytes) } : {}),
  });
  if (ended.outcome === "failure") await disableAfterTooMany(job, state);
}

/** Our words, and those of the server or the destination. */
function wordsOf(error: unknown): string {
  const [cause] = causesOf(error);
  const message = messageOf(error);
  return cause === undefined || message.includes(cause) ? message : `${message} (${cause})`;
}

function firstOf(warnings: readonly string[]): string | undefined {
  if (warnings.length === 0) return undefined;
  const words = warnings.slice(0, MOST_WARNINGS).join("; ");
  return warnings.length <= MOST_WARNINGS ? words : `${words}; and ${warnings.length - MOST_WARNINGS} more`;
}

/** So many warnings stand in the history. */
const MOST_WARNINGS = 10;
