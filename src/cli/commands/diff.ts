import { openLeasedReader } from "../../usecases/open-leased-reader.ts";
import { diffSnapshots } from "../../usecases/diff-snapshots.ts";
import type { CommandAction } from "../command.ts";
import { homeOf } from "../job-context.ts";
import { chooseDatabase, locateIn, openJob, warnOfPassedOver } from "../open-job.ts";
import { readList, readText } from "../option-values.ts";
import { openProgress } from "../progress/progress-display.ts";
import { printComparison } from "../render/compare.ts";
import { exitCodeOf } from "./compare.ts";

/** Scans of either snapshot that run at once. */
const PARALLEL = 2;

/** Compares two snapshots and reads only the tables that are stored differently; exit code 4 when they differ. */
export const diff: CommandAction = async (context, { args, options }) => {
  const { signal } = context;
  await using opened = await openJob(context, {
    job: String(args[0]),
    from: readText(options.from),
    identity: readText(options.identity),
  });
  const names = [String(args[1]), String(args[2])] as const;
  const { prefix } = await chooseDatabase(context, opened, { database: readText(options.database), snapshots: names });
  const { keys } = opened;
  let hasWarnings = false;
  const open = async (name: string) => {
    const located = await locateIn(context, opened, { prefix, name });
    hasWarnings ||= located.hasWarnings;
    return openLeasedReader({ home: homeOf(context), purpose: "diff", ...located, prefix, keys, signal });
  };
  await using left = await open(names[0]);
  await using right = await open(names[1]);
  using progress = await openProgress(context);
  const result = await diffSnapshots({
    left,
    right,
    tables: readList(options.tables, "--tables"),
    rows: options.rows === true,
    parallel: PARALLEL,
    signal,
    report: progress.report,
  });
  progress[Symbol.dispose]();
  const isWarned = warnOfPassedOver(context, left, right);
  context.output.result({ ...result }, () => printComparison(context.output, result));
  return exitCodeOf(result, hasWarnings || isWarned);
};
