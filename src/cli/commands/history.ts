import { isJobLocked } from "../../job/job-lock.ts";
import { openStateStore } from "../../job/state-store.ts";
import { endDeadRuns } from "../../usecases/dead-runs.ts";
import type { CommandAction } from "../command.ts";
import { homeOf, readJobFor } from "../job-context.ts";
import { readCount } from "../option-values.ts";
import { printRuns } from "../render/runs.ts";

const DEFAULT_LIMIT = 20;

/** Shows the past runs of a job on this machine, the newest first. */
export const history: CommandAction = async (context, { args, options }) => {
  const limit = readCount(options.limit, "--limit") ?? DEFAULT_LIMIT;
  const job = await readJobFor(context, String(args[0]));
  using state = await openStateStore(homeOf(context), (message) => context.output.warn(message));
  await endDeadRuns(job, state, () => isJobLocked(homeOf(context), job.name));
  const runs = state.runsOf(job.name, limit);
  context.output.result({ runs }, () => printRuns(context.output, runs));
  return 0;
};
