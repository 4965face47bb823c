import { readJobStates } from "../../usecases/job-states.ts";
import type { CommandAction } from "../command.ts";
import { homeOf } from "../job-context.ts";
import { readDuration, refuseUnavailable } from "../option-values.ts";
import { printJobs } from "../render/jobs.ts";

/**
 * Shows the state of all jobs; exit code 2 when a job file cannot be used, 3 when `--max-age` is given and a job has no success
 * that young.
 */
export const status: CommandAction = async (context, { options }) => {
  refuseUnavailable(options, { prometheus: "--prometheus", html: "--html" });
  const maxAgeMs = readDuration(options.maxAge, "--max-age");
  const now = context.now();
  const warn = (message: string) => context.output.warn(message);
  const jobs = await readJobStates(homeOf(context), { cwd: context.cwd, now, warn });
  const old = jobs.filter(({ lastSuccess }) => maxAgeMs !== undefined && !isYoung(lastSuccess, now, maxAgeMs));
  for (const { name } of old) warn(`${name} has no good snapshot within ${String(options.maxAge)}`);
  context.output.result({ jobs }, () => printJobs(context.output, jobs, now));
  return jobs.some(({ problem }) => problem !== undefined) ? 2 : old.length > 0 ? 3 : 0;
};

function isYoung(lastSuccess: string | undefined, now: Date, maxAgeMs: number): boolean {
  return lastSuccess !== undefined && now.getTime() - Date.parse(lastSuccess) <= maxAgeMs;
}
