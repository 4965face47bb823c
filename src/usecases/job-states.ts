import { OperationalError } from "../base/errors.ts";
import type { Home } from "../job/home.ts";
import { isJobLocked } from "../job/job-lock.ts";
import { jobNameOfPath, listJobFiles, readJob } from "../job/read-job.ts";
import { nextFirings } from "../job/schedule.ts";
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
        nextRun: enabled ? nextFirings(job.schedule, options.now, 1)[0]?.at.toISOString() : undefined,
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
