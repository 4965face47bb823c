import { resolve } from "node:path";
import { pruneJob } from "../../usecases/prune-job.ts";
import type { CommandAction } from "../command.ts";
import { homeOf, readJobFor } from "../job-context.ts";
import { readText } from "../option-values.ts";
import { openProgress } from "../progress/progress-display.ts";
import { printRetention } from "../render/retention.ts";

/** Applies the retention of a job; exit code 3 when a destination or a snapshot had to be left alone. */
export const prune: CommandAction = async (context, { args, options }) => {
  const job = await readJobFor(context, String(args[0]));
  const { env, now, signal } = context;
  const identity = readText(options.identity);
  const dryRun = options.dryRun === true;
  const result = await (async () => {
    using progress = await openProgress(context);
    return await pruneJob({
      job,
      home: homeOf(context),
      env,
      now,
      dryRun,
      acceptMissing: options.acceptMissing === true,
      identity: identity === undefined ? undefined : resolve(context.cwd, identity),
      signal,
      report: progress.report,
    });
  })();
  context.output.result({ ...result, dryRun }, () => printRetention(context.output, { ...result, dryRun }));
  return result.warnings.length > 0 ? 3 : 0;
};
