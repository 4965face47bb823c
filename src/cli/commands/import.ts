import { join } from "node:path";
import { openTarFileDestination } from "../../archive/tar-file-destination.ts";
import { openDestination } from "../../destinations/open-destination.ts";
import { locateSnapshot } from "../../snapshot/locate-snapshot.ts";
import { openSnapshotReader } from "../../snapshot/open-snapshot-reader.ts";
import { EXPORT_PREFIX } from "../../usecases/export-database.ts";
import { restoreIntoEmpty } from "../../usecases/restore-create.ts";
import { type RestorePlan, restoreSnapshot } from "../../usecases/restore-snapshot.ts";
import { takeSafetySnapshot } from "../../usecases/safety-snapshot.ts";
import type { CommandAction } from "../command.ts";
import { localPathOf } from "../export-file.ts";
import { connectionOfArgument, homeOf } from "../job-context.ts";
import { readCount, readList, refuseWithoutCreate } from "../option-values.ts";
import { openProgress } from "../progress/progress-display.ts";
import { printRestored } from "../render/restore.ts";
import { STALL_TIMEOUT_MS } from "../timeouts.ts";
import { confirmPlan } from "./restore.ts";

/** Restores a file that export wrote: rows into existing tables, or with `--create` a whole empty database. */
export const importFile: CommandAction = async (context, { args, options }) => {
  refuseWithoutCreate(options, ["owners", "grants"]);
  const { signal } = context;
  const path = localPathOf(String(args[0]), context.cwd);
  const connection = await connectionOfArgument(context, String(args[1]), "the url");
  await using file = await openTarFileDestination({ path, prefix: EXPORT_PREFIX, signal });
  const where = { destinations: [file], prefix: EXPORT_PREFIX, signal };
  const { manifest } = await locateSnapshot({ ...where, choice: { name: "latest" } });
  await using reader = openSnapshotReader({ ...where, manifest });
  // What is replaced is kept in the home: a file has no destinations of its own.
  const folder = join(homeOf(context).state, "safety");
  await using safety = await openDestination({ type: "local", path: folder, name: folder }, { signal });
  using progress = await openProgress(context);
  const common = {
    reader,
    target: connection,
    planOnly: options.plan === true,
    confirm: (plan: RestorePlan) => confirmPlan(context, plan, options),
    stallTimeoutMs: STALL_TIMEOUT_MS,
    signal,
    report: progress.report,
  };
  const kept = {
    connection,
    job: "import",
    prefix: EXPORT_PREFIX,
    destinations: [safety],
    spoolFolder: join(homeOf(context).state, "spool", "safety"),
    restoredSnapshot: manifest.id,
    largeObjects: readList(options.tables, "--tables") === undefined,
  };
  const result =
    options.create === true
      ? await restoreIntoEmpty({
          ...common,
          parallel: readCount(options.parallel, "--parallel") ?? 2,
          tables: readList(options.tables, "--tables"),
          grants: options.grants === true,
          owners: options.owners === true,
        })
      : await restoreSnapshot({
          ...common,
          isNamed: true,
          tables: readList(options.tables, "--tables"),
          takeSafetySnapshot: (request) => takeSafetySnapshot({ ...common, ...kept }, request),
          allowConversion: false,
          ignoreMissing: false,
        });
  progress[Symbol.dispose]();
  for (const warning of result.warnings) context.output.warn(warning);
  const { plan, ...done } = result;
  context.output.result({ ...done, ...plan, snapshot: manifest.id }, () => printRestored(context.output, result));
  if (result.safetySnapshot && !context.json) context.output.line(`What was replaced is kept in ${folder}.`);
  return result.warnings.length > 0 && !plan ? 3 : 0;
};
