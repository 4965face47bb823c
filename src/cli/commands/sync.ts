import { formatBytes, formatPlural } from "../format.ts";
import { type SyncResult, syncJob } from "../../usecases/sync-job.ts";
import type { CommandAction } from "../command.ts";
import { homeOf, readJobFor } from "../job-context.ts";
import { readText } from "../option-values.ts";
import type { Output } from "../output.ts";
import { openProgress } from "../progress/progress-display.ts";
import { plain } from "../text-table.ts";

/**
 * Copies snapshots to the destinations that miss them. Exit code 3 when a destination could not be completed, 6 when none
 * could, 7 when a snapshot is good nowhere.
 */
export const sync: CommandAction = async (context, { args, options }) => {
  const job = await readJobFor(context, String(args[0]));
  const dryRun = options.dryRun === true;
  let result: SyncResult;
  {
    using progress = await openProgress(context);
    const { env, now, signal } = context;
    const home = homeOf(context);
    const from = readText(options.from);
    const readsAll = options.all === true;
    result = await syncJob({ job, home, env, now, from, dryRun, readsAll, signal, report: progress.report });
  }
  const { snapshots, destinations, unknown, warnings } = result;
  context.output.result(
    {
      dryRun,
      snapshots: snapshots.map(({ error, ...one }) => ({ ...one, ...(error ? { error: error.message } : {}) })),
      destinations: destinations.map(({ error, ...one }) => ({ ...one, ...(error ? { error: error.message } : {}) })),
      damaged: unknown.map(({ id, error }) => ({ id, error: error.message })),
      warnings,
    },
    () => print(context.output, result),
  );
  return exitCodeOf(result);
};

function exitCodeOf({ snapshots, destinations, unknown, warnings }: SyncResult): number {
  if (destinations.every(({ status }) => status === "failed")) return 6;
  if (unknown.length > 0 || snapshots.some(({ error }) => error?.kind === "archive")) return 7;
  const isWhole = destinations.every(({ status }) => status !== "failed");
  return isWhole && warnings.length === 0 && snapshots.every(({ status }) => status !== "failed") ? 0 : 3;
}

function print(output: Output, { snapshots, destinations, unknown }: SyncResult): void {
  const { paint } = output;
  const verdicts = { planned: paint.yellow("missing:"), copied: paint.green("copied:"), failed: paint.red("failed:") };
  for (const { id, destination, status, volumes, bytes, from } of snapshots) {
    const what =
      volumes === 0
        ? ": the manifest or what lies beside it"
        : `: ${formatPlural(volumes, "volume")}, ${formatBytes(bytes)} from ${from.join(", ")}`;
    output.line(`${verdicts[status]} ${plain(id)} at ${plain(destination)}${status === "failed" ? "" : plain(what)}`);
  }
  if (snapshots.length > 0 || unknown.length > 0) return;
  const complete = destinations.filter(({ status }) => status === "complete");
  output.line(`nothing is missing at ${formatPlural(complete.length, "destination")}`);
}
