import { dirname, join } from "node:path";
import { openLocalFileSink } from "../../archive/file-sink.ts";
import { SingleFileDestination } from "../../archive/single-file-destination.ts";
import { readTarFile } from "../../archive/tar-file-destination.ts";
import type { Destination } from "../../destinations/destination.ts";
import type { Connection } from "../../drivers/driver.ts";
import { createHomeFolder } from "../../job/home.ts";
import { locateSnapshot } from "../../snapshot/locate-snapshot.ts";
import { MANIFEST_NAME } from "../../snapshot/manifest-text.ts";
import { openSnapshotReader } from "../../snapshot/open-snapshot-reader.ts";
import { EXPORT_PREFIX } from "../../usecases/export-database.ts";
import { chooseExported, namedInFile } from "../../usecases/exported-file.ts";
import { removeSafetyFiles, safetyFileName } from "../../usecases/remove-safety-files.ts";
import { restoreIntoEmpty } from "../../usecases/restore-create.ts";
import { type RestorePlan, restoreSnapshot } from "../../usecases/restore-snapshot.ts";
import { type SafetyRequest, takeSafetySnapshot } from "../../usecases/safety-snapshot.ts";
import type { CommandAction, Invocation } from "../command.ts";
import type { CliContext } from "../context.ts";
import { openImportFile } from "../export-file.ts";
import { connectionOfArgument, homeOf } from "../job-context.ts";
import { readCount, readList, refuseWithoutCreate } from "../option-values.ts";
import { openProgress } from "../progress/progress-display.ts";
import { printRestored } from "../render/restore.ts";
import { STALL_TIMEOUT_MS } from "../timeouts.ts";
import { confirmPlan } from "./restore.ts";

/** Restores a file that export wrote: rows into existing tables, or with `--create` a whole empty database. */
export const importFile: CommandAction = async (context, invocation) => {
  refuseWithoutCreate(invocation.options, ["owners", "grants"]);
  const target = await connectionOfArgument(context, String(invocation.args[1]), "the url");
  const bytes = await openImportFile(String(invocation.args[0]), context);
  const path = bytes.place;
  await using file = await readTarFile(bytes, { prefix: EXPORT_PREFIX, signal: context.signal });
  try {
    return await restoreFrom(file, target, { context, options: invocation.options, path });
  } catch (error) {
    throw namedInFile(error, file, path);
  }
};

async function restoreFrom(
  file: Destination,
  target: Connection,
  { context, options, path }: Pick<Invocation, "options"> & { readonly context: CliContext; readonly path: string },
): Promise<number> {
  const { signal } = context;
  const where = { destinations: [file], prefix: EXPORT_PREFIX, signal };
  const { manifest } = await locateSnapshot({ ...where, choice: await chooseExported(file, signal) });
  await using reader = openSnapshotReader({ ...where, manifest });
  using progress = await openProgress(context);
  const tables = readList(options.tables, "--tables");
  const common = {
    reader,
    target,
    planOnly: options.plan === true,
    confirm: (plan: RestorePlan) => confirmPlan(context, plan, options),
    stallTimeoutMs: STALL_TIMEOUT_MS,
    signal,
    report: progress.report,
  };
  await using stack = new AsyncDisposableStack();
  const safetyFile = safetyFileOf(context);
  const takeSafety = async (request: SafetyRequest) => {
    const safety = stack.use(await openSafetyFile(context, safetyFile));
    const kept = {
      connection: target,
      job: "import",
      prefix: EXPORT_PREFIX,
      destinations: [safety],
      spoolFolder: join(homeOf(context).state, "spool", "safety"),
      restoredSnapshot: manifest.id,
      largeObjects: tables === undefined,
    };
    return takeSafetySnapshot({ ...common, ...kept }, request);
  };
  const result =
    options.create === true
      ? await restoreIntoEmpty({
          ...common,
          parallel: readCount(options.parallel, "--parallel") ?? 2,
          tables,
          grants: options.grants === true,
          owners: options.owners === true,
        })
      : await restoreSnapshot({
          ...common,
          isNamed: true,
          tables,
          takeSafetySnapshot: takeSafety,
          allowConversion: false,
          ignoreMissing: false,
        });
  progress[Symbol.dispose]();
  const { plan, ...done } = result;
  const old = { folder: dirname(safetyFile), spared: path, now: context.now() };
  const warnings = [...result.warnings, ...(result.safetySnapshot ? await removeSafetyFiles(old) : [])];
  for (const warning of warnings) context.output.warn(warning);
  const kept = result.safetySnapshot ? { safetyFile } : {};
  context.output.result({ ...done, ...plan, ...kept, warnings, snapshot: manifest.id }, () => {
    printRestored(context.output, result);
    if (!kept.safetyFile) return;
    // Not the URL itself: it may hold a password.
    context.output.line(`What was replaced is kept in a file; rowkeep import ${kept.safetyFile} <url> puts it back.`);
  });
  return warnings.length > 0 && !plan ? 3 : 0;
}

/** What is replaced is kept in the home: a file has no destinations of its own. */
function safetyFileOf(context: CliContext): string {
  return join(homeOf(context).state, "safety", safetyFileName(context.now()));
}

async function openSafetyFile({ now }: CliContext, path: string): Promise<Destination> {
  await createHomeFolder(dirname(path));
  const sink = await openLocalFileSink(path);
  return new SingleFileDestination({ sink, prefix: EXPORT_PREFIX, lastName: MANIFEST_NAME, modifiedAt: now() });
}
