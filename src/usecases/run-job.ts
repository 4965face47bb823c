import { rm } from "node:fs/promises";
import { join } from "node:path";
import { isAbort, messageOf, OperationalError } from "../base/errors.ts";
import type { Connection } from "../drivers/driver.ts";
import { probeDatabase } from "../drivers/open-driver.ts";
import { assertAvailable } from "../job/availability.ts";
import { checkedLockOf, keyRingOf } from "../job/encryption.ts";
import { connectionOf } from "../job/connection.ts";
import { createHomeFolder, type Home } from "../job/home.ts";
import { takeJobLock } from "../job/job-lock.ts";
import type { Job } from "../job/read-job.ts";
import { redactSecrets, type SecretSurroundings } from "../job/secrets.ts";
import { hashJobFile, openStateStore, type Outcome, type StateStore } from "../job/state-store.ts";
import { chooseTable } from "../plan/table-patterns.ts";
import type { Manifest } from "../snapshot/manifest.ts";
import { snapshotPrefix } from "../snapshot/snapshot-prefix.ts";
import type { DestinationFate } from "../snapshot/snapshot-writer.ts";
import { type Brake, describeAnomaly, readBrake } from "./anomaly-brake.ts";
import { type BackUpOptions, type BackUpResult, backUp } from "./back-up.ts";
import { checkNewestKey } from "./check-newest-key.ts";
import { destinationNameOf, type OpenedDestinations, openDestinations } from "./open-job.ts";
import type { Report } from "./progress.ts";
import { pruneAfterRun } from "./prune-after-run.ts";
import type { PruneResult } from "./prune-database.ts";
import { removeGarbage } from "./remove-garbage.ts";

const DEFAULT_PARALLEL = 2;

export interface RunJobOptions {
  readonly job: Job;
  readonly home: Home;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Name of this machine in the history. */
  readonly node: string;
  readonly now: () => Date;
  readonly stallTimeoutMs: number;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/** One snapshot that a run made. */
export interface MadeSnapshot {
  readonly id: string;
  readonly job: string;
  readonly database: string;
  readonly kind: "full" | "incremental";
  readonly createdAt: string;
  readonly consistency: Manifest["consistency"];
  readonly tables: number;
  readonly rows: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  readonly durationMs: number;
  readonly destinations: readonly {
    readonly name: string;
    readonly status: "stored" | "failed";
    readonly error?: string;
  }[];
}

export interface RunResult {
  readonly snapshots: readonly MadeSnapshot[];
  /** Snapshots that the retention removed once the new one was complete. */
  readonly removed: PruneResult["removed"];
  /** What is not in the backup, tables that lost too many rows, and destinations that failed. */
  readonly warnings: readonly string[];
  /** Databases of the job that could not be backed up. */
  readonly failures: readonly { readonly database: string; readonly error: OperationalError }[];
}

/**
 * Backs up every database of a job, one after the other, and records it in the history.
 * Fails with kind `job`, `locked`, or, when there is only one database, with why it could not be backed up.
 */
export async function runJob(options: RunJobOptions): Promise<RunResult> {
  const { job, home, report } = options;
  assertAvailable(job);
  using _lock = await takeJobLock(home, job.name, options.now());
  using state = await openStateStore(home, (message) => report({ type: "warning", message }));
  await refuseDisabled(job, state);
  const startedAt = options.now();
  try {
    const result = await backUpDatabases(options, state);
    const outcome = result.failures.length > 0 ? "failure" : result.warnings.length > 0 ? "warning" : "success";
    await record(options, state, {
      startedAt,
      outcome,
      error: result.failures[0]?.error,
      snapshot: result.snapshots[0]?.id,
    });
    return result;
  } catch (error) {
    await record(options, state, { startedAt, outcome: isAbort(error) ? "skipped" : "failure", error });
    throw error;
  }
}

/** A job that is off stays off for crontab too: nobody would see that it fails again and again. */
async function refuseDisabled(job: Job, state: StateStore): Promise<void> {
  const { disabled, failuresInARow } = state.stateOf(job.name, await hashJobFile(job.path));
  if (job.enabled !== false && !disabled) return;
  const reason = disabled ? `it was switched off after ${failuresInARow} failures in a row` : "it is switched off";
  throw new OperationalError(`cannot run ${job.name}: ${reason}`, {
    kind: "refused",
    code: "disabled",
    hint: `Mend what failed (rowkeep history ${job.name}), then rowkeep job enable ${job.name}.`,
  });
}

interface Ended {
  readonly startedAt: Date;
  readonly outcome: Outcome;
  readonly error?: unknown;
  readonly snapshot?: string | undefined;
}

async function record({ job, now, node }: RunJobOptions, state: StateStore, ended: Ended): Promise<void> {
  state.addRun({
    job: job.name,
    kind: "full",
    startedAt: ended.startedAt.toISOString(),
    durationMs: now().getTime() - ended.startedAt.getTime(),
    outcome: ended.outcome,
    error: ended.error === undefined ? undefined : redactSecrets(messageOf(ended.error)),
    snapshot: ended.snapshot,
    node,
  });
  const limit = job.failures?.disableAfter;
  if (ended.outcome === "failure" && limit !== undefined && state.failuresInARow(job.name) >= limit) {
    state.disable(job.name, await hashJobFile(job.path));
  }
}

async function backUpDatabases(options: RunJobOptions, state: StateStore): Promise<RunResult> {
  const { job, env, now, signal, report } = options;
  const warnings: string[] = [];
  const warn = (message: string) => {
    warnings.push(message);
  };
  const surroundings: SecretSurroundings = { env, folder: job.folder, signal, warn };
  const lock = await checkedLockOf(job, surroundings);
  const keys = lock && (await keyRingOf(job, surroundings));
  const connection = await connectionOf(job.source, surroundings);
  await using places = await openDestinations(job, surroundings);
  const [first] = places.failed;
  if (places.destinations.length === 0 && first) throw first.error;
  const snapshots: MadeSnapshot[] = [];
  const removed: PruneResult["removed"][number][] = [];
  const failures: { database: string; error: OperationalError }[] = [];
  const databases = await databasesOf(job, connection, signal);
  for (const database of databases) {
    const [nearest] = places.destinations;
    const doubt =
      keys && nearest && (await checkNewestKey(nearest, snapshotPrefix(job.name, database), { keys, signal }));
    if (doubt) warn(doubt);
    try {
      const startedAt = now();
      const prefix = snapshotPrefix(job.name, database);
      const { destinations } = places;
      const brake = await readBrake({ job, prefix, destinations, keys, state, signal });
      const result = await backUpOne(options, { connection: { ...connection, database }, lock, brake }, places);
      const fates = [
        ...result.destinations,
        ...places.failed.map(({ name, error }) => ({ name, status: "failed" as const, error })),
      ];
      snapshots.push(madeSnapshotOf(result, fates));
      warnings.push(...warningsOf(result, fates));
      await removeGarbage({ destinations, prefix, now: now(), warn, signal });
      const prune = {
        job,
        prefix,
        destinations,
        state,
        startedAt,
        now: now(),
        result,
        brake,
        keys,
        warn,
        signal,
        report,
      };
      removed.push(...(await pruneAfterRun(prune)));
    } catch (error) {
      if (!(error instanceof OperationalError) || databases.length === 1) throw error;
      failures.push({ database, error });
      report({ type: "warning", message: error.message });
    }
  }
  return { snapshots, removed, warnings, failures };
}

async function backUpOne(
  options: RunJobOptions,
  { connection, lock, brake }: Pick<BackUpOptions, "connection" | "lock"> & { readonly brake: Brake },
  places: OpenedDestinations,
): Promise<BackUpResult> {
  const { job, signal, report } = options;
  const spoolFolder = await spoolOf(options, places);
  return backUp({
    connection,
    lock,
    choose: chooseTable(job.tables ?? {}),
    parallel: job.parallel ?? DEFAULT_PARALLEL,
    stallTimeoutMs: options.stallTimeoutMs,
    destinations: places.destinations,
    job: job.name,
    prefix: snapshotPrefix(job.name, connection.database),
    compression: compressionOf(job),
    files: (job.files ?? []).map((path) => resolveFrom(job.folder, path)),
    spoolFolder,
    findAnomalies: brake.findAnomalies,
    signal,
    report,
  });
}

function resolveFrom(folder: string, path: string): string {
  return join(path.startsWith("/") || /^[A-Za-z]:[\\/]/.test(path) ? "" : folder, path);
}

function compressionOf(job: Job): Manifest["compression"] {
  const codec = job.compression?.codec ?? "zstd";
  return { codec, level: job.compression?.level ?? (codec === "gzip" ? 6 : 2) };
}

/**
 * The spool lies at the first local destination that is there, where a finished volume needs no copy, else in the home. What a killed
 * run left there goes first: the job's lock says that nobody uses it.
 */
async function spoolOf({ job, home }: RunJobOptions, { failed }: OpenedDestinations): Promise<string> {
  const folder = spoolFolderOf(job, home, new Set(failed.map(({ name }) => name)));
  await rm(folder, { recursive: true, force: true });
  await createHomeFolder(folder);
  return folder;
}

/** Where a run keeps the volumes that it is writing; `dead` names destinations that could not be opened. */
export function spoolFolderOf(job: Job, home: Home, dead: ReadonlySet<string> = new Set()): string {
  const local = job.destinations
    .filter((destination) => destination.type === "local")
    .find((destination) => !dead.has(destinationNameOf(destination)));
  return local
    ? join(resolveFrom(job.folder, local.path), `${snapshotPrefix(job.name, "spool").replace("/", ".")}.in-progress`)
    : join(home.state, "spool", job.name);
}

/** The databases that a job backs up. Fails with kind `database`. */
export async function databasesOf(job: Job, connection: Connection, signal: AbortSignal): Promise<readonly string[]> {
  if (job.databases === undefined) return [connection.database];
  if (job.databases !== "all") return job.databases;
  return (await probeDatabase(connection, { signal })).databases;
}

/** Gives what people and scripts are told of a snapshot that was just made. */
export function madeSnapshotOf(result: BackUpResult, fates: readonly DestinationFate[]): MadeSnapshot {
  const { manifest } = result;
  const sum = (pick: (table: Manifest["tables"][number]) => number) =>
    manifest.tables.reduce((total, table) => total + pick(table), 0);
  return {
    id: manifest.id,
    job: manifest.job,
    database: manifest.database,
    kind: manifest.kind,
    createdAt: manifest.createdAt,
    consistency: manifest.consistency,
    tables: manifest.tables.length,
    rows: sum((table) => table.rows),
    rawBytes: sum((table) => table.rawBytes),
    storedBytes: result.storedBytes,
    durationMs: result.durationMs,
    destinations: fates.map(({ name, status, error }) => ({
      name,
      status,
      ...(error ? { error: error.message } : {}),
    })),
  };
}

function warningsOf(result: BackUpResult, fates: readonly DestinationFate[]): readonly string[] {
  const missed = fates.filter(({ status }) => status === "failed");
  return [
    ...result.manifest.notCaptured,
    ...result.manifest.warnings,
    ...(result.manifest.anomalies ?? []).map(describeAnomaly),
    ...missed.map(({ name, error }) => `${name} does not have ${result.manifest.id}: ${error?.message ?? "it failed"}`),
  ];
}
