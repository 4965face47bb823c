import { openSummaryStore } from "../../job/summary-store.ts";
import { type ListedSnapshot, listSnapshots } from "../../usecases/list-snapshots.ts";
import type { CommandAction } from "../command.ts";
import { homeOf } from "../job-context.ts";
import { openJob } from "../open-job.ts";
import { readText } from "../option-values.ts";
import { openProgress } from "../progress/progress-display.ts";
import { printSnapshots } from "../render/snapshots.ts";

/** Shows the snapshots of a job; exit code 3 when one is damaged, a destination could not be read or the key of the job is missing. */
export const list: CommandAction = async (context, { args, options }) => {
  using cache = await openSummaryStore(homeOf(context));
  await using job = await openJob(context, {
    job: String(args[0]),
    from: readText(options.from),
    identity: readText(options.identity),
  });
  const snapshots: ListedSnapshot[] = [];
  const warnings: string[] = [];
  {
    using progress = await openProgress(context);
    for (const { name: database, prefix } of job.databases) {
      const { destinations, keys } = job;
      const { signal } = context;
      const names = { job: job.name, database };
      const part = await listSnapshots({ destinations, prefix, names, keys, cache, signal, report: progress.report });
      snapshots.push(...part.snapshots);
      warnings.push(...part.warnings);
    }
  }
  context.output.result({ snapshots, warnings }, () => printSnapshots(context.output, snapshots));
  const isLocked = job.isKeyMissing && snapshots.some(({ locked }) => locked !== undefined);
  return warnings.length > 0 || job.hasWarnings || isLocked ? 3 : 0;
};
