import { exportDatabase } from "../../usecases/export-database.ts";
import { madeSnapshotOf } from "../../usecases/made-snapshot.ts";
import type { CommandAction } from "../command.ts";
import { exportToOf } from "../export-file.ts";
import { connectionOfArgument } from "../job-context.ts";
import { readCount, readList } from "../option-values.ts";
import { openProgress } from "../progress/progress-display.ts";
import { printMadeSnapshot } from "../render/snapshots.ts";
import { STALL_TIMEOUT_MS } from "../timeouts.ts";

/** Backs a database up once into one file, without a job; exit code 3 when something of it could not be captured. */
export const exportFile: CommandAction = async (context, { args, options }) => {
  const tables = readList(options.tables, "--tables");
  const parallel = readCount(options.parallel, "--parallel") ?? 2;
  const connection = await connectionOfArgument(context, String(args[0]), "the url");
  const to = await exportToOf(String(args[1]), connection.database, context);
  using progress = await openProgress(context);
  const { signal } = context;
  const result = await exportDatabase({
    connection,
    to,
    tables,
    parallel,
    stallTimeoutMs: STALL_TIMEOUT_MS,
    signal,
    report: progress.report,
  });
  progress.finish();
  const warnings = [...result.manifest.notCaptured, ...result.manifest.warnings];
  const output = args[1] === "-" ? context.output.besideData() : context.output;
  for (const warning of warnings) output.warn(warning);
  const snapshot = madeSnapshotOf(result, result.destinations);
  output.result({ file: to.place, snapshots: [snapshot], warnings }, () =>
    printMadeSnapshot(output, { ...snapshot, destinations: [{ name: to.place, status: "stored" }] }),
  );
  return warnings.length > 0 ? 3 : 0;
};
