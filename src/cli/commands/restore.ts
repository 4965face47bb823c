import { join } from "node:path";
import { OperationalError } from "../../base/errors.ts";
import type { Connection } from "../../drivers/driver.ts";
import { connectionOf } from "../../job/connection.ts";
import type { Job } from "../../job/read-job.ts";
import { openStateStore } from "../../job/state-store.ts";
import type { Manifest } from "../../snapshot/manifest.ts";
import { openLeasedReader } from "../../usecases/open-leased-reader.ts";
import { restoreIntoEmpty } from "../../usecases/restore-create.ts";
import { restoreRows } from "../../usecases/restore-rows.ts";
import { type RestorePlan, type RestoreResult, restoreSnapshot } from "../../usecases/restore-snapshot.ts";
import { passSafetySnapshot, type SafetyRequest, takeSafetySnapshot } from "../../usecases/safety-snapshot.ts";
import type { CommandAction, Invocation } from "../command.ts";
import { confirm } from "../confirm.ts";
import type { CliContext } from "../context.ts";
import { formatPlural } from "../format.ts";
import { connectionOfArgument, homeOf, surroundingsOf } from "../job-context.ts";
import { chooseDatabase, locateIn, lockFor, openJob } from "../open-job.ts";
import { readCount, readList, readText, readThaw, refuseWithoutCreate } from "../option-values.ts";
import { openProgress } from "../progress/progress-display.ts";
import { printPlan, printRestored, renderUndo } from "../render/restore.ts";
import { filesToRestore } from "../restore-files-too.ts";
import { readRowOptions } from "../row-options.ts";
import { plain } from "../text-table.ts";
import { STALL_TIMEOUT_MS } from "../timeouts.ts";

/** Puts tables of a snapshot back: shows the plan, asks, replaces rows in one transaction. */
export const restore: CommandAction = async (context, { args, options }) => {
  refuseWithoutCreate(options, ["owners", "grants"]);
  const rows = readRowOptions(options);
  const thaw = readThaw(options);
  const snapshot = readText(args[1]) ?? "latest";
  refuseUnattendedWait(context, options);
  await using opened = await openJob(context, {
    job: String(args[0]),
    from: readText(options.from),
    identity: readText(options.identity),
    stores: options.plan !== true,
  });
  const chosen = { database: readText(options.database), snapshots: [snapshot] };
  const { name: database, prefix } = await chooseDatabase(context, opened, chosen);
  const { job, destinations, keys } = opened;
  const { signal } = context;
  const located = await locateIn(context, opened, { prefix, name: snapshot });
  const { manifest, hasWarnings } = located;
  await using reader = await openLeasedReader({
    home: homeOf(context),
    purpose: "restore",
    ...located,
    prefix,
    keys,
    signal,
  });
  const { connection, isNamed } = await targetOf(context, job, readText(options.to), manifest);
  const doubts = doubtsOf(job, manifest);
  // Before the question, not only in the result.
  for (const doubt of doubts) context.output.warn(doubt);
  using progress = await openProgress(context);
  const base = {
    job: job.name,
    prefix,
    destinations,
    restoredSnapshot: manifest.id,
    largeObjects: readList(options.tables, "--tables") === undefined,
    stallTimeoutMs: STALL_TIMEOUT_MS,
    signal,
  };
  const spoolFolder = join(homeOf(context).state, "spool", "safety");
  const filesToo = filesToRestore(context, { reader, options, report: progress.report });
  await filesToo?.check();
  const common = {
    reader,
    target: connection,
    targetDb: readText(options.targetDb),
    thaw,
    alsoNeeded: filesToo ? manifest.files.flatMap(({ chunks }) => chunks) : [],
    planOnly: options.plan === true,
    confirm: async (plan: RestorePlan) =>
      (await confirmPlan(context, plan, options)) && (filesToo === undefined || (await filesToo.confirm())),
    stallTimeoutMs: STALL_TIMEOUT_MS,
    signal,
    report: progress.report,
  };
  const inPlace = {
    ...common,
    isNamed,
    isDr: readText(options.to) === "dr",
    takeSafetySnapshot: async (request: SafetyRequest) => {
      if (options.safety === false) return passSafetySnapshot({ ...base, keys, now: context.now() }, request);
      const lock = await lockFor(context, job);
      using state = await openStateStore(homeOf(context), (message) => context.output.warn(message));
      const otherIds = (start: string) => state.idsBeside(prefix, start);
      const safety = { ...base, connection, lock, spoolFolder, otherIds, report: progress.report };
      return await takeSafetySnapshot(safety, request);
    },
    allowConversion: options.allowConversion === true,
  };
  const tables = readList(options.tables, "--tables");
  const ignoreMissing = options.ignoreMissing === true;
  const result =
    options.create === true
      ? await create(common, options)
      : rows
        ? await restoreRows({ ...inPlace, ...rows })
        : await restoreSnapshot({ ...inPlace, tables, ignoreMissing });
  const several = opened.databases.length > 1 ? { database } : {};
  const undo = renderUndo({ job: String(args[0]), ...several, to: readText(options.to) });
  const files = await filesToo?.restore({ ...result, undo });
  const warnings = [...result.warnings, ...reader.passedOver];
  if (files === undefined && manifest.files.length > 0) {
    warnings.push(
      `the files of the snapshot were left alone (${formatPlural(manifest.files.length, "file or folder", "files and folders")}): see --files-to and --files-in-place`,
    );
  }
  progress[Symbol.dispose]();
  for (const warning of warnings) context.output.warn(warning);
  const { plan, ...done } = result;
  context.output.result(
    {
      ...done,
      ...plan,
      warnings: [...doubts, ...warnings],
      snapshot: manifest.id,
      ...(files === undefined ? {} : { files }),
    },
    () => printRestored(context.output, { ...result, undo }),
  );
  return hasWarnings || (doubts.length + warnings.length > 0 && !plan) ? 3 : 0;
};

/** Anybody who may write to a destination can put a plain snapshot there, but no encrypted one without a key of the job. */
function doubtsOf(job: Job, manifest: Manifest): readonly string[] {
  if (!job.encryption || manifest.encryption) return [];
  return [`${manifest.id} is not encrypted, although the job encrypts: restore it only when you know who made it`];
}

/** Fills an empty database. */
async function create(
  common: Omit<Parameters<typeof restoreIntoEmpty>[0], "parallel" | "tables" | "grants" | "owners">,
  options: Invocation["options"],
): Promise<RestoreResult> {
  return restoreIntoEmpty({
    ...common,
    parallel: readCount(options.parallel, "--parallel") ?? 2,
    tables: readList(options.tables, "--tables"),
    grants: options.grants === true,
    owners: options.owners === true,
  });
}

interface Target {
  readonly connection: Connection;
  /** Named by a URL of its own, so that it may be another database than the snapshot's. */
  readonly isNamed: boolean;
}

/** Finds the database to write to: the job's own, its disaster-recovery site, or the one that a URL names. */
export async function targetOf(
  context: CliContext,
  job: Job,
  to: string | undefined,
  manifest: Pick<Manifest, "database">,
): Promise<Target> {
  if (to === undefined || to === "primary") {
    const connection = await connectionOf(job.source, surroundingsOf(context, job));
    return { connection: { ...connection, database: manifest.database }, isNamed: false };
  }
  if (to !== "dr") return { connection: await connectionOfArgument(context, to, "--to"), isNamed: true };
  if (!job.dr) {
    throw new OperationalError(`cannot restore to dr: ${job.name} has no dr site`, {
      kind: "usage",
      code: "no-dr",
      hint: "Add dr: { url: … } to the job, or name the target by --to <url>.",
    });
  }
  const source = { url: job.dr.url, tls: job.dr.tls };
  return { connection: await connectionOf(source, surroundingsOf(context, job), "dr"), isNamed: true };
}

/** Shows what will be done and asks. */
export async function confirmPlan(
  context: CliContext,
  plan: RestorePlan,
  options: Invocation["options"],
): Promise<boolean> {
  if (!context.json) printPlan(context.output, plan);
  if (options.yes === true) return true;
  const { database, host, port } = plan.target;
  const message = `${questionOf(plan)} in ${database} at ${host}:${port}?`;
  return confirm(context, { message, action: `restore ${plan.snapshot}` });
}

function questionOf({ mode, tables }: RestorePlan): string {
  const [table] = tables;
  if (mode === undefined || !table) return `Replace the rows of ${formatPlural(tables.length, "table")}`;
  const { schema, name, deleted, inserted, updated = 0 } = table;
  return `Delete ${deleted}, update ${updated} and insert ${inserted} rows of ${plain(`${schema}.${name}`)}`;
}

/** Hours of waiting must not end in a question that nobody can answer. */
export function refuseUnattendedWait(context: CliContext, options: Invocation["options"]): void {
  if (options.wait !== true || options.yes === true || options.plan === true || context.isInteractive) return;
  throw new OperationalError("cannot wait for a thaw: nobody is there to confirm the restore", {
    kind: "refused",
    code: "needs-confirmation",
    hint: "Add --yes.",
  });
}
