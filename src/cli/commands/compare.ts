import { isAbort, OperationalError } from "../../base/errors.ts";
import type { Connection } from "../../drivers/driver.ts";
import { isSamePlace } from "../../drivers/same-database.ts";
import { connectionOf } from "../../job/connection.ts";
import { type Job, jobNameOfPath, listJobFiles } from "../../job/read-job.ts";
import { chooseTable } from "../../plan/table-patterns.ts";
import type { SnapshotReader } from "../../snapshot/snapshot-reader.ts";
import { openLeasedReader } from "../../usecases/open-leased-reader.ts";
import { type CompareSide, openLiveSide, openSnapshotSide } from "../../usecases/compare-sides.ts";
import { type CompareResult, compareSites } from "../../usecases/compare-sites.ts";
import type { Report } from "../../usecases/progress.ts";
import type { CommandAction, Invocation } from "../command.ts";
import type { CliContext } from "../context.ts";
import { homeOf, readJobWithoutSchedule, surroundingsOf } from "../job-context.ts";
import { chooseDatabase, locateIn, openJob, warnOfPassedOver } from "../open-job.ts";
import { readCount, readList, readText } from "../option-values.ts";
import { openProgress } from "../progress/progress-display.ts";
import { printComparison } from "../render/compare.ts";
import { STALL_TIMEOUT_MS } from "../timeouts.ts";

const DEFAULT_PARALLEL = 2;

/** Compares two sites, a site with a snapshot or two snapshots; exit code 4 when they differ. */
export const compare: CommandAction = async (context, invocation) => {
  const { args, options } = invocation;
  const [name, snapshot] = args;
  if (options.all === true) {
    if (name !== undefined) throw usage("a job and --all exclude each other", "both-chosen", "Leave out one of them.");
    return await compareAll(context, options);
  }
  if (name === undefined) throw usage("no job is named", "missing-argument", "Name a job, or all of them with --all.");
  if (snapshot !== undefined && options.with === undefined) {
    throw usage("a snapshot is compared with something", "missing-with", "Name the other one by --with <snapshot>.");
  }
  const { result, hasWarnings } = await compareJob(context, invocation);
  context.output.result({ ...result }, () => printComparison(context.output, result));
  return exitCodeOf(result, hasWarnings);
};

/** Compares the sites of every job that has a second one; a job that fails does not keep the others from it. */
async function compareAll(context: CliContext, options: Invocation["options"]): Promise<number> {
  const jobs: ({ readonly job: string } & (CompareResult | { readonly error: string }))[] = [];
  const codes: number[] = [];
  for (const path of await listJobFiles(homeOf(context))) {
    const name = jobNameOfPath(path);
    try {
      if (options.with === undefined && (await readJobWithoutSchedule(context, path)).job.dr === undefined) {
        context.output.note(`${name} has no dr site: not compared`);
        continue;
      }
      const { result, hasWarnings } = await compareJob(context, { args: [path], options });
      context.output.line(name);
      printComparison(context.output, result);
      jobs.push({ job: name, ...result });
      codes.push(exitCodeOf(result, hasWarnings));
    } catch (error) {
      if (isAbort(error) || !(error instanceof OperationalError)) throw error;
      context.output.warn(`${name}: ${error.message}`);
      jobs.push({ job: name, error: error.message });
      codes.push(error.exitCode);
    }
  }
  const equal = jobs.every((job) => "equal" in job && job.equal);
  context.output.result({ equal, jobs }, () => {
    if (jobs.length === 0) context.output.line("no job has a dr site");
  });
  return Math.max(0, ...codes);
}

/** 4: differences; 3: none were found, but some rows could not be compared, or a destination could not be read. */
export function exitCodeOf(
  { equal, tables, schemaDifferences, largeObjects }: CompareResult,
  hasWarnings: boolean,
): number {
  if (equal) return hasWarnings ? 3 : 0;
  const differs = (table: CompareResult["tables"][number]) =>
    !table.equal && (table.problem === undefined || table.left.rows !== table.right.rows);
  return tables.some(differs) || schemaDifferences.length > 0 || largeObjects?.equal === false ? 4 : 3;
}

interface ComparedJob {
  readonly result: CompareResult;
  /** People were warned of a destination, or of the job. */
  readonly hasWarnings: boolean;
}

async function compareJob(context: CliContext, { args, options }: Invocation): Promise<ComparedJob> {
  const { signal } = context;
  const { job, hasWarnings: isWarned } = await readJobWithoutSchedule(context, String(args[0]));
  const parallel = readCount(options.parallel, "--parallel") ?? job.parallel ?? DEFAULT_PARALLEL;
  const [left, other] = [readText(args[1]), readText(options.with)];
  using progress = await openProgress(context);
  const { report } = progress;
  const sides = { context, job, options, parallel, report };
  await using stack = new AsyncDisposableStack();
  const common = {
    tables: readList(options.tables, "--tables"),
    countOnly: options.count === true,
    rows: options.rows === true,
    parallel,
    signal,
    report,
  };
  if (other === undefined) {
    const open = () => openSites(sides);
    const [primary, dr] = await open();
    stack.use(primary);
    stack.use(dr);
    return { result: await compareSites({ ...common, left: primary, right: dr, reopen: open }), hasWarnings: isWarned };
  }
  const snapshots = stack.use(await openSnapshots(sides, left === undefined ? [other] : [left, other]));
  const { side, database } = await snapshots.open(other);
  const right = stack.use(side);
  const first =
    left === undefined ? await openLive(sides, await primaryOf(sides, database)) : (await snapshots.open(left)).side;
  const result = await compareSites({ ...common, left: stack.use(first), right });
  progress[Symbol.dispose]();
  return { result, hasWarnings: snapshots.warn() };
}

interface Sides {
  readonly context: CliContext;
  readonly job: Job;
  readonly options: Invocation["options"];
  readonly parallel: number;
  readonly report: Report;
}

async function openSites(sides: Sides): Promise<readonly [CompareSide, CompareSide]> {
  const { context, job, options } = sides;
  if (!job.dr) {
    throw usage(
      `${job.name} has no dr site`,
      "no-dr",
      "Add dr: { url: … } to the job, or name a snapshot by --with <snapshot>.",
    );
  }
  const database = readText(options.database) ?? onlyName(job);
  const primary = await primaryOf(sides, database);
  const { url, tls } = job.dr;
  const dr = await connectionOf({ url, tls }, surroundingsOf(context, job), "dr");
  await using stack = new AsyncDisposableStack();
  const left = stack.use(await openLive(sides, primary));
  const right = stack.use(await openLive(sides, database === undefined ? dr : { ...dr, database }));
  if (left.identity && right.identity && isSamePlace(left.identity, right.identity)) throw sameDatabase(job, left);
  stack.move();
  return [left, right];
}

/** It would be equal whatever became of the second site. */
function sameDatabase({ name }: Job, { label }: CompareSide): OperationalError {
  return new OperationalError(`cannot compare ${name}: its dr site is the same database as its primary, ${label}`, {
    kind: "refused",
    code: "wrong-target",
    hint: "Correct dr.url in the job file.",
  });
}

/** The database that a job names apart from its URL; of several, one must be chosen. */
function onlyName(job: Job): string | undefined {
  if (job.databases === undefined) return undefined;
  const [only, ...more] = job.databases === "all" ? [] : job.databases;
  if (only !== undefined && more.length === 0) return only;
  throw usage(`${job.name} has several databases`, "several-databases", "Name one with --database.");
}

async function primaryOf({ context, job }: Sides, database: string | undefined): Promise<Connection> {
  const connection = await connectionOf(job.source, surroundingsOf(context, job));
  return database === undefined ? connection : { ...connection, database };
}

function openLive({ context, job, parallel, report }: Sides, connection: Connection): Promise<CompareSide> {
  report({ type: "phase", text: `reading definitions of ${connection.database} at ${connection.host}` });
  return openLiveSide(connection, {
    parallel,
    choose: chooseTable(job.tables ?? {}),
    stallTimeoutMs: STALL_TIMEOUT_MS,
    signal: context.signal,
  });
}

interface Snapshots extends AsyncDisposable {
  open(name: string): Promise<{ readonly side: CompareSide; readonly database: string }>;
  /** Warns of what was wrong where they were read; true when people were warned of that, or before. */
  warn(): boolean;
}

/** `snapshots` are those that will be opened: their database is meant. */
async function openSnapshots(sides: Sides, snapshots: readonly string[]): Promise<Snapshots> {
  const { context, job, options } = sides;
  const { signal } = context;
  await using stack = new AsyncDisposableStack();
  const opened = stack.use(
    await openJob(context, {
      job: job.path,
      from: readText(options.from),
      identity: readText(options.identity),
    }),
  );
  const chosen = { database: readText(options.database), snapshots };
  const { prefix } = await chooseDatabase(context, opened, chosen);
  const readers: SnapshotReader[] = [];
  let hasWarnings = false;
  const kept = stack.move();
  return {
    open: async (snapshot) => {
      const { keys } = opened;
      const located = await locateIn(context, opened, { prefix, name: snapshot });
      const reader = await openLeasedReader({
        home: homeOf(context),
        purpose: "compare",
        ...located,
        prefix,
        keys,
        signal,
      });
      readers.push(reader);
      hasWarnings ||= located.hasWarnings;
      return { side: openSnapshotSide(reader), database: located.manifest.database };
    },
    warn: () => warnOfPassedOver(context, ...readers) || hasWarnings,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

function usage(reason: string, code: string, hint: string): OperationalError {
  return new OperationalError(`cannot compare: ${reason}`, { kind: "usage", code, hint });
}
