import { causesOf, isAbort, messageOf, OperationalError } from "../base/errors.ts";
import type { Connection } from "../drivers/driver.ts";
import { openEarlyConnections, probeDatabase } from "../drivers/open-driver.ts";
import { assertAvailable } from "../job/availability.ts";
import { jobKeysOf } from "../job/encryption.ts";
import { connectionOf } from "../job/connection.ts";
import { takeJobLock } from "../job/job-lock.ts";
import type { Job } from "../job/read-job.ts";
import { redactSecrets, type SecretSurroundings } from "../job/secrets.ts";
import { hashJobFile, openStateStore, type Outcome, type StateStore } from "../job/state-store.ts";
import type { Manifest } from "../snapshot/manifest.ts";
import { snapshotPrefix } from "../snapshot/snapshot-prefix.ts";
import { summaryOf } from "../snapshot/snapshot-summary.ts";
import type { DestinationFate } from "../snapshot/snapshot-writer.ts";
import { describeAnomaly, readBrake } from "./anomaly-brake.ts";
import type { BackUpResult } from "./back-up.ts";
import { backUpOne, DEFAULT_PARALLEL, type OneBackUpOptions } from "./back-up-one.ts";
import { disableAfterTooMany, endDeadRuns } from "./dead-runs.ts";
import { checkNewestKey } from "./check-newest-key.ts";
import { noneOpened, openDestinations, type Patience } from "./open-job.ts";
import { pruneAfterRun } from "./prune-after-run.ts";
import type { PruneResult } from "./prune-database.ts";
import { rememberSummary } from "./remember-summary.ts";
import { removeGarbage } from "./remove-garbage.ts";
import { removeOwnRemains } from "./remove-own-remains.ts";
import { lastOnlyForOthers } from "./retention-at.ts";

export interface RunJobOptions extends OneBackUpOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Name of this machine in the history. */
  readonly node: string;
  readonly now: () => Date;
  readonly patience?: Patience | undefined;
}

/** One snapshot that a run made. */
export interface MadeSnapshot {
  readonly id: string;
  readonly job: string;
  readonly database: string;
  readonly kind: "full" | "incremental";
  /** Why a full was made although an incremental was wanted. */
  readonly reason?: string | undefined;
  readonly createdAt: string;
  readonly consistency: Manifest["consistency"];
  readonly tables: number;
  readonly rows: number;
  readonly rawBytes: number;
  /** Bytes of all its own volumes, as in a list. */
  readonly storedBytes: number;
  /** What was stored again, so that earlier snapshots which are mostly dead can go; its bytes are among `storedBytes`. */
  readonly carriedOver?: Manifest["carriedOver"];
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
  await endDeadRuns(job, state, () => false);
  await refuseDisabled(job, state);
  const startedAt = options.now();
  const { name } = job;
  const { kind = "full", node } = options;
  const begun = state.beginRun({ job: name, kind, startedAt: startedAt.toISOString(), node });
  try {
    const result = await backUpDatabases(options, state);
    const outcome = result.failures.length > 0 ? "failure" : result.warnings.length > 0 ? "warning" : "success";
    const failed = result.failures.map(({ error }) => wordsOf(error)).join("; ");
    const error = failed || firstOf(result.warnings);
    await record(options, state, { begun, startedAt, outcome, error, made: result.snapshots });
    return result;
  } catch (error) {
    const outcome = isAbort(error) ? "skipped" : "failure";
    await record(options, state, { begun, startedAt, outcome, error: wordsOf(error), made: [] });
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
  /** What `beginRun` gave. */
  readonly begun: number;
  readonly startedAt: Date;
  readonly outcome: Outcome;
  readonly error?: string | undefined;
  readonly made: readonly MadeSnapshot[];
}

async function record({ job, kind, now, node }: RunJobOptions, state: StateStore, ended: Ended): Promise<void> {
  const [first] = ended.made;
  const sum = (pick: (snapshot: MadeSnapshot) => number) => ended.made.reduce((total, one) => total + pick(one), 0);
  state.endRun(ended.begun, {
    job: job.name,
    kind: first?.kind ?? kind ?? "full",
    startedAt: ended.startedAt.toISOString(),
    durationMs: now().getTime() - ended.startedAt.getTime(),
    outcome: ended.outcome,
    error: ended.error === undefined ? undefined : redactSecrets(ended.error),
    snapshot: first?.id,
    node,
    ...(first ? { rawBytes: sum(({ rawBytes }) => rawBytes), storedBytes: sum(({ storedBytes }) => storedBytes) } : {}),
  });
  if (ended.outcome === "failure") await disableAfterTooMany(job, state);
}

/** Our words, and those of the server or the destination. */
function wordsOf(error: unknown): string {
  const [cause] = causesOf(error);
  const message = messageOf(error);
  return cause === undefined || message.includes(cause) ? message : `${message} (${cause})`;
}

function firstOf(warnings: readonly string[]): string | undefined {
  if (warnings.length === 0) return undefined;
  const words = warnings.slice(0, MOST_WARNINGS).join("; ");
  return warnings.length <= MOST_WARNINGS ? words : `${words}; and ${warnings.length - MOST_WARNINGS} more`;
}

/** So many warnings stand in the history. */
const MOST_WARNINGS = 10;

async function backUpDatabases(options: RunJobOptions, state: StateStore): Promise<RunResult> {
  const { job, env, now, signal, report } = options;
  const warnings: string[] = [];
  const warn = (message: string) => {
    warnings.push(message);
  };
  const surroundings: SecretSurroundings = { env, folder: job.folder, signal, warn };
  const { lock, keys, missing } = await jobKeysOf(job, surroundings);
  if (missing) warn(`the snapshots can be made here but not restored: ${missing}`);
  const connection = await connectionOf(job.source, surroundings);
  await using places = await openDestinations(job, { ...surroundings, patience: options.patience });
  const none = noneOpened(places.failed);
  if (places.destinations.length === 0 && none) throw none;
  const { destinations } = places;
  await removeOwnRemains({ job: job.name, state, destinations, areAll: none === undefined, warn, signal });
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
      const from = { ...connection, database };
      // Meanwhile the destinations are asked for what they have.
      await using early = await openEarlyConnections(from, {
        parallel: job.parallel ?? DEFAULT_PARALLEL,
        stallTimeoutMs: options.stallTimeoutMs,
        signal,
      });
      const prefix = snapshotPrefix(job.name, database);
      const brake = await readBrake({ job, prefix, destinations, keys, state, signal });
      const otherIds = (start: string) => state.idsBeside(prefix, start);
      const onBegin = (id: string) => state.beginSnapshot(job.name, prefix, id);
      const onlyForOthersAt = lastOnlyForOthers(job, prefix, state);
      const one = {
        connection: from,
        early,
        lock,
        keys,
        destinations,
        brake,
        onlyForOthersAt,
        otherIds,
        onBegin,
        warn,
      };
      const { result, reason, unread } = await backUpOne(options, one);
      const fates = [
        ...result.destinations,
        ...unread,
        ...places.failed.map(({ name, error }) => ({ name, status: "failed" as const, error })),
      ];
      if (fates.every(({ status }) => status === "stored")) state.endSnapshot(prefix, result.manifest.id);
      // One that just failed would only fail again, and slowly.
      const storedAt = new Set(fates.filter(({ status }) => status === "stored").map(({ name }) => name));
      const alive = destinations.filter(({ name }) => storedAt.has(name));
      snapshots.push({ ...madeSnapshotOf(result, fates), ...(reason ? { reason } : {}) });
      warnings.push(...warningsOf(result, fates));
      await rememberSummary({ home: options.home, prefix, destinations: alive, manifest: result.manifest, signal });
      await removeGarbage({ destinations: alive, prefix, now: now(), warn, signal });
      const prune = {
        job,
        home: options.home,
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

/** The databases that a job backs up. Fails with kind `database`. */
export async function databasesOf(job: Job, connection: Connection, signal: AbortSignal): Promise<readonly string[]> {
  if (job.databases === undefined) return [connection.database];
  if (job.databases !== "all") return job.databases;
  return (await probeDatabase(connection, { signal })).databases;
}

/** Gives what people and scripts are told of a snapshot that was just made. */
export function madeSnapshotOf(result: BackUpResult, fates: readonly DestinationFate[]): MadeSnapshot {
  const { manifest } = result;
  // The same numbers as those of a list.
  const { id, job, database, kind, createdAt, consistency, tables, rows, rawBytes, storedBytes } = summaryOf(manifest);
  return {
    id,
    job,
    database,
    kind,
    createdAt,
    consistency,
    tables,
    rows,
    rawBytes,
    storedBytes,
    ...(manifest.carriedOver ? { carriedOver: manifest.carriedOver } : {}),
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
  // The destinations first: the history keeps only the first warnings.
  return [
    ...missed.map(({ name, error }) => `${name} does not have ${result.manifest.id}: ${error?.message ?? "it failed"}`),
    ...result.manifest.notCaptured,
    ...result.manifest.warnings,
    ...(result.manifest.anomalies ?? []).map(describeAnomaly),
  ];
}
