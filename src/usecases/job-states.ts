import { Cron } from "croner";
import { OperationalError } from "../base/errors.ts";
import type { Home } from "../job/home.ts";
import { isJobLocked } from "../job/job-lock.ts";
import { type Job, jobNameOfPath, listJobFiles, readJob } from "../job/read-job.ts";
import { hashJobFile, openStateStore } from "../job/state-store.ts";
import { endDeadRuns } from "./dead-runs.ts";

export interface JobStatus {
  readonly name: string;
  readonly enabled: boolean;
  readonly state: "ok" | "failed" | "disabled" | "never" | "running";
  readonly lastFull?: string | undefined;
  readonly lastIncremental?: string | undefined;
  readonly lastSuccess?: string | undefined;
  /** The next firing of the schedule, ISO 8601. */
  readonly nextRun?: string | undefined;
  readonly failuresInARow: number;
  /** Machine that ran last. */
  readonly node?: string | undefined;
  /** Why the job file cannot be used. */
  readonly problem?: string | undefined;
}

/** Tells how all jobs of the jobs folder do, in the order of names. A job file that cannot be used is told, not left out. */
export async function readJobStates(
  home: Home,
  options: { readonly cwd: string; readonly now: Date; readonly warn: (message: string) => void },
): Promise<readonly JobStatus[]> {
  using store = await openStateStore(home, options.warn);
  const states: JobStatus[] = [];
  for (const path of await listJobFiles(home)) {
    try {
      const job = await readJob(path, home, options);
      await endDeadRuns(job, store, () => isJobLocked(home, job.name));
      const state = store.stateOf(job.name, await hashJobFile(path));
      const enabled = job.enabled !== false && !state.disabled;
      const isRunning = isJobLocked(home, job.name);
      const lastFailed = state.lastRun?.outcome === "failure";
      states.push({
        name: job.name,
        enabled,
        state: !enabled ? "disabled" : isRunning ? "running" : lastFailed ? "failed" : state.lastRun ? "ok" : "never",
        lastFull: state.lastFull,
        lastIncremental: state.lastIncremental,
        lastSuccess: state.lastSuccess,
        nextRun: enabled ? nextRunOf(job, options.now) : undefined,
        failuresInARow: state.failuresInARow,
        node: state.lastRun?.node,
      });
    } catch (error) {
      if (!(error instanceof OperationalError)) throw error;
      states.push({
        name: jobNameOfPath(path),
        enabled: false,
        state: "failed",
        failuresInARow: 0,
        problem: error.message,
      });
    }
  }
  return states;
}

/** The next firings of a job's schedule. Fails with kind `job` for an expression that never fires. */
export function nextFirings(
  job: Pick<Job, "name" | "schedule">,
  now: Date,
  count: number,
): readonly { at: Date; kind: "full" | "incremental" }[] {
  const firings = (["full", "incremental"] as const).flatMap((kind) => {
    const pattern = job.schedule?.[kind];
    if (pattern === undefined) return [];
    return runsOf(job, pattern, kind, now, count).map((at) => ({ at, kind }));
  });
  return firings.sort((left, right) => left.at.getTime() - right.at.getTime()).slice(0, count);
}

function runsOf(
  job: Pick<Job, "name" | "schedule">,
  pattern: string,
  kind: string,
  now: Date,
  count: number,
): readonly Date[] {
  const timezone = job.schedule?.timezone;
  const until = job.schedule?.until;
  let runs: readonly Date[];
  try {
    const cron = new Cron(pattern, {
      mode: "5-part",
      ...(timezone ? { timezone } : {}),
      ...(until ? { stopAt: `${until}T23:59:59` } : {}),
    });
    runs = cron.nextRuns(count, now);
  } catch (cause) {
    throw scheduleError(
      job.name,
      kind,
      `${pattern} is not a cron expression of five fields, or the time zone is unknown`,
      cause,
    );
  }
  const isOver = until !== undefined && now.getTime() > Date.parse(`${until}T23:59:59Z`);
  if (runs.length === 0 && !isOver) throw scheduleError(job.name, kind, `${pattern} never fires`);
  return runs;
}

function nextRunOf(job: Job, now: Date): string | undefined {
  return nextFirings(job, now, 1)[0]?.at.toISOString();
}

function scheduleError(job: string, kind: string, reason: string, cause?: unknown): OperationalError {
  return new OperationalError(`cannot use schedule.${kind} of ${job}: ${reason}`, {
    kind: "job",
    code: "invalid-schedule",
    hint: 'Write five fields in quotes: "0 2 * * sun".',
    cause,
  });
}
