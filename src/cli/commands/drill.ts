import { hostname } from "node:os";
import { isAbort, messageOf, OperationalError } from "../../base/errors.ts";
import type { Destination } from "../../destinations/destination.ts";
import type { Connection } from "../../drivers/driver.ts";
import { connectionOf } from "../../job/connection.ts";
import type { Job } from "../../job/read-job.ts";
import { redactSecrets } from "../../job/secrets.ts";
import { openStateStore, type Outcome, type RunRecord } from "../../job/state-store.ts";
import { openRepository } from "../../snapshot/repository.ts";
import { openLeasedReader } from "../../usecases/open-leased-reader.ts";
import { type DrilledSnapshot, drillSnapshot } from "../../usecases/drill-snapshot.ts";
import type { Report } from "../../usecases/progress.ts";
import { ABORTED } from "../../usecases/dead-runs.ts";
import type { CommandAction, Invocation } from "../command.ts";
import type { CliContext } from "../context.ts";
import { formatBytes, formatDuration, formatPlural } from "../format.ts";
import { connectionOfArgument, homeOf, surroundingsOf } from "../job-context.ts";
import { chooseDatabase, locateIn, openJob, type OpenedJob } from "../open-job.ts";
import { readCount, readText } from "../option-values.ts";
import { openProgress } from "../progress/progress-display.ts";
import { plain } from "../text-table.ts";
import { STALL_TIMEOUT_MS } from "../timeouts.ts";

/** A drill as `verify --json` gives it: the fields of a verified snapshot, and what only a drill knows. */
interface ShownDrill extends Omit<DrilledSnapshot, "problems"> {
  readonly destination: string;
  readonly drilledAt?: string | undefined;
  readonly problems: readonly { readonly volume: string; readonly chunk: string; readonly problem: string }[];
}

/**
 * Proves that a snapshot restores, in a scratch database. Exit code 7 when it came back otherwise, 5 when the drill could not be
 * done, 3 with warnings or where a destination could not be read.
 */
export const drill: CommandAction = async (context, { args, options }) => {
  refuseOthers(options);
  await using opened = await openJob(context, {
    job: String(args[0]),
    from: readText(options.from),
    identity: readText(options.identity),
  });
  const { job } = opened;
  const id = readText(args[1]);
  const database = readText(options.database);
  const isOne = (id ?? "latest") !== "latest" || database !== undefined || opened.databases.length === 0;
  const chosen = { database, snapshots: id === undefined ? [] : [id] };
  const databases = isOne ? [await chooseDatabase(context, opened, chosen)] : opened.databases;
  const server = await serverOf(context, job, readText(options.drillUrl));
  const drills: ShownDrill[] = [];
  let hasWarnings = false;
  {
    using progress = await openProgress(context);
    for (const { prefix } of databases) {
      const parallel = readCount(options.parallel, "--parallel") ?? job.parallel ?? 2;
      const one = { job, opened, prefix, id: id ?? "latest", server, parallel, report: progress.report };
      const drilled = await drillOne(context, one);
      drills.push(drilled.shown);
      hasWarnings ||= drilled.hasWarnings;
    }
  }
  const ok = drills.every((one) => one.ok);
  const warnings = drills.flatMap((one) => one.warnings);
  context.output.result({ ok, snapshots: drills, warnings }, () => print(context, drills));
  return ok ? (warnings.length > 0 || hasWarnings ? 3 : 0) : 7;
};

function refuseOthers(options: Invocation["options"]): void {
  for (const flag of ["all", "sample"]) {
    if (options[flag] === undefined) continue;
    throw new OperationalError(`cannot use --${flag} with --drill: a drill restores one whole snapshot`, {
      kind: "usage",
      code: "not-with-drill",
      hint: `Leave --${flag} out, or verify without --drill.`,
    });
  }
}

/** Leads to the server of the drill; the database in it is only connected to. */
async function serverOf(context: CliContext, job: Job, url: string | undefined): Promise<Connection> {
  if (url === undefined) return connectionOf(job.source, surroundingsOf(context, job));
  return connectionOfArgument(context, url, "--drill-url");
}

interface DrillOne {
  readonly job: Job;
  readonly opened: OpenedJob;
  readonly prefix: string;
  readonly id: string;
  readonly server: Connection;
  readonly parallel: number;
  readonly report: Report;
}

interface DoneDrill {
  readonly shown: ShownDrill;
  /** People were warned of a destination, or of the job. */
  readonly hasWarnings: boolean;
}

async function drillOne(context: CliContext, { job, opened, prefix, id, ...how }: DrillOne): Promise<DoneDrill> {
  const { signal, now } = context;
  const { keys } = opened;
  const startedAt = now();
  let snapshot: string | undefined;
  const record = (outcome: Outcome, error?: string) =>
    recordDrill(context, { job: job.name, startedAt, outcome, error: error && redactSecrets(error), snapshot });
  try {
    const located = await locateIn(context, opened, { prefix, name: id });
    snapshot = located.id;
    const [destination] = located.destinations;
    if (!destination) throw new RangeError("a located snapshot has a destination");
    // From one place only: the proof is about what lies there.
    await using reader = await openLeasedReader({
      home: homeOf(context),
      purpose: "drill",
      ...located,
      destinations: [destination],
      prefix,
      keys,
      signal,
    });
    const result = await drillSnapshot({ ...how, reader, now, stallTimeoutMs: STALL_TIMEOUT_MS, signal });
    const marked = result.ok ? await mark(context, { destination, prefix, id: located.id }) : {};
    const warnings = [...result.warnings, ...(marked.warning ? [marked.warning] : [])];
    const [problem] = result.problems;
    await record(
      problem ? "failure" : warnings.length > 0 ? "warning" : "success",
      problem && `${problem.object}: ${problem.problem}`,
    );
    const problems = result.problems.map(({ object, problem: said }) => ({ volume: "", chunk: object, problem: said }));
    const { drilledAt } = marked;
    const proof = drilledAt ? { drilledAt } : {};
    const shown = { ...result, destination: destination.name, ...proof, problems, warnings };
    return { shown, hasWarnings: located.hasWarnings };
  } catch (error) {
    if (isAbort(error)) await record("skipped", ABORTED);
    else await record("failure", messageOf(error));
    throw error;
  }
}

interface Place {
  readonly destination: Destination;
  readonly prefix: string;
  readonly id: string;
}

/** A destination that cannot be written does not make the proof worse, but it is forgotten. */
async function mark(
  { now, signal, output }: CliContext,
  { destination, prefix, id }: Place,
): Promise<{ readonly drilledAt?: string; readonly warning?: string }> {
  const drilledAt = now().toISOString();
  try {
    await openRepository(destination, prefix).mark(id, { drilledAt }, { signal });
    return { drilledAt };
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof OperationalError)) throw error;
    const warning = `the proof of ${id} was not recorded: ${error.message}`;
    output.warn(warning);
    return { warning };
  }
}

async function recordDrill(
  context: CliContext,
  drilled: Omit<RunRecord, "id" | "kind" | "durationMs" | "startedAt"> & { readonly startedAt: Date },
): Promise<void> {
  using state = await openStateStore(homeOf(context), (message) => context.output.warn(message));
  const startedAt = drilled.startedAt.toISOString();
  const durationMs = context.now().getTime() - drilled.startedAt.getTime();
  state.addRun({ ...drilled, kind: "drill", startedAt, durationMs, node: hostname() });
}

function print({ output }: CliContext, drills: readonly ShownDrill[]): void {
  for (const { id, ok, destination, rows, bytes, durationMs, server, problems } of drills) {
    const verdict = ok ? output.paint.green("proved:") : output.paint.red("different:");
    const facts = [formatPlural(rows, "row"), `${formatBytes(bytes)} stored`, formatDuration(durationMs)].join(", ");
    output.line(`${verdict} ${plain(id)} from ${plain(destination)} on PostgreSQL ${server.version}: ${facts}`);
    for (const { chunk, problem } of problems) output.line(`  ${plain(chunk)}: ${plain(problem)}`);
  }
}
