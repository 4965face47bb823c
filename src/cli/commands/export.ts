import { exportDatabase } from "../../usecases/export-database.ts";
import { madeSnapshotOf } from "../../usecases/made-snapshot.ts";
import type { CommandAction } from "../command.ts";
import { exportFileOf } from "../export-file.ts";
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
  const { database } = connection;
  const path = await exportFileOf(String(args[1]), { cwd: context.cwd, database, now: context.now() });
  using progress = await openProgress(context);
  const { signal } = context;
  const result = await exportDatabase({
    connection,
    path,
    tables,
    parallel,
    stallTimeoutMs: STALL_TIMEOUT_MS,
    signal,
    report: progress.report,
  });
  progress.finish();
  const warnings = [...result.manifest.notCaptured, ...result.manifest.warnings];
  for (const warning of warnings) context.output.warn(warning);
  const snapshot = madeSnapshotOf(result, result.destinations);
  context.output.result({ file: path, snapshots: [snapshot], warnings }, () =>
    printMadeSnapshot(context.output, { ...snapshot, destinations: [{ name: path, status: "stored" }] }),
  );
  return warnings.length > 0 ? 3 : 0;
};
