import { OperationalError } from "../base/errors.ts";
import type { Lock } from "../archive/age-keys.ts";
import type { Connection } from "../drivers/driver.ts";
import { openEarlyConnections, probeDatabase } from "../drivers/open-driver.ts";
import { connectionOf } from "../job/connection.ts";
import { jobKeysOf } from "../job/encryption.ts";
import type { Job } from "../job/read-job.ts";
import type { SecretSurroundings } from "../job/secrets.ts";
import type { StateStore } from "../job/state-store.ts";
import { type WatchedChoice, watchChoice } from "../plan/table-patterns.ts";
import type { Manifest } from "../snapshot/manifest.ts";
import { compareIdTexts } from "../snapshot/snapshot-id.ts";
import type { KeyRing } from "../snapshot/snapshot-key.ts";
import { snapshotPrefix } from "../snapshot/snapshot-prefix.ts";
import { readBrake } from "./anomaly-brake.ts";
import { backUpOne, DEFAULT_PARALLEL, type OneBackUpOptions } from "./back-up-one.ts";
import { checkNewestKey } from "./check-newest-key.ts";
import { type MadeSnapshot, madeSnapshotOf, warningsOf } from "./made-snapshot.ts";
import { noneOpened, type OpenedDestinations, openDestinations, type Patience } from "./open-job.ts";
import { pruneAfterRun } from "./prune-after-run.ts";
import type { PruneResult } from "./prune-database.ts";
import { rememberSummary } from "./remember-summary.ts";
import { removeGarbage } from "./remove-garbage.ts";
import { removeOwnRemains } from "./remove-own-remains.ts";
import { lastOnlyForOthers } from "./retention-at.ts";

export interface RunOptions extends OneBackUpOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly now: () => Date;
  readonly patience?: Patience | undefined;
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

/** What all databases of a run have in common. */
interface Run {
  readonly options: RunOptions;
  readonly state: StateStore;
  readonly connection: Connection;
  readonly lock: Lock | undefined;
  readonly keys: KeyRing | undefined;
  readonly places: OpenedDestinations;
  /** Of all databases: a pattern may be meant for one of them. */
  readonly tables: WatchedChoice;
  readonly warn: (message: string) => void;
  /** What was made and removed so far. */
  readonly snapshots: MadeSnapshot[];
  readonly removed: PruneResult["removed"][number][];
}

/** Backs up every database of a job, one after the other. Fails with why it could not be backed up when there is only one. */
export async function backUpDatabases(options: RunOptions, state: StateStore): Promise<RunResult> {
  const { job, env, signal, report } = options;
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
  const { destinations } = places;
  if (destinations.length === 0 && none) throw none;
  await removeOwnRemains({ job: job.name, state, destinations, areAll: none === undefined, warn, signal });
  const tables = watchChoice(job.tables ?? {});
  const run: Run = { options, state, connection, lock, keys, places, tables, warn, snapshots: [], removed: [] };
  const failures: { database: string; error: OperationalError }[] = [];
  const databases = await databasesOf(job, connection, signal);
  for (const database of databases) {
    try {
      // Tables of several databases often have the same names.
      const warnOf = databases.length > 1 ? (message: string) => warn(`${database}: ${message}`) : warn;
      await backUpDatabase({ ...run, warn: warnOf }, database);
    } catch (error) {
      if (!(error instanceof OperationalError) || databases.length === 1) throw error;
      failures.push({ database, error });
      report({ type: "warning", message: error.message });
    }
  }
  if (failures.length === 0) {
    for (const pattern of tables.idlePatterns())
      warn(`no table matches ${pattern} in tables.include: it keeps nothing`);
  }
  return { snapshots: run.snapshots, removed: run.removed, warnings, failures };
}

async function backUpDatabase(run: Run, database: string): Promise<void> {
  const { options, state, lock, keys, places, tables, warn } = run;
  const { job, home, now, signal, report } = options;
  const { destinations } = places;
  const startedAt = now();
  const prefix = snapshotPrefix(job.name, database);
  const [nearest] = destinations;
  const doubt = keys && nearest && (await checkNewestKey(nearest, prefix, { keys, signal }));
  if (doubt) warn(doubt);
  const connection = { ...run.connection, database };
  // Meanwhile the destinations are asked for what they have.
  await using early = await openEarlyConnections(connection, {
    parallel: job.parallel ?? DEFAULT_PARALLEL,
    stallTimeoutMs: options.stallTimeoutMs,
    signal,
  });
  const brake = await readBrake({ job, prefix, destinations, keys, state, signal });
  const { result, reason, unread } = await backUpOne(options, {
    connection,
    choose: tables.choose,
    early,
    lock,
    keys,
    destinations,
    brake,
    onlyForOthersAt: lastOnlyForOthers(job, prefix, state),
    otherIds: (start) => state.idsBeside(prefix, start),
    onBegin: (id) => state.beginSnapshot(job.name, prefix, id),
    // The next run would remove what another machine is storing there.
    onTaken: (id) => state.endSnapshot(prefix, id),
    warn,
  });
  const { manifest } = result;
  const fates = [
    ...result.destinations,
    ...unread,
    ...places.failed.map(({ name, error }) => ({ name, status: "failed" as const, error })),
  ];
  if (fates.every(({ status }) => status === "stored")) state.endSnapshot(prefix, manifest.id);
  const { noLongerWanted } = brake;
  const isNarrower = noLongerWanted.excluded.length + noLongerWanted.schemaOnly.length > 0;
  run.snapshots.push({
    ...madeSnapshotOf(result, fates),
    ...(reason ? { reason } : {}),
    ...(isNarrower ? { noLongerWanted } : {}),
  });
  warningsOf(result, fates).forEach(warn);
  if (brake.id !== undefined && compareIdTexts(brake.id, manifest.id) > 0) warn(datedBefore(brake.id, manifest));
  // One that just failed would only fail again, and slowly.
  const storedAt = new Set(fates.filter(({ status }) => status === "stored").map(({ name }) => name));
  const alive = destinations.filter(({ name }) => storedAt.has(name));
  await rememberSummary({ home, prefix, destinations: alive, manifest, signal });
  await removeGarbage({ destinations: alive, prefix, now: now(), warn, signal });
  const prune = { job, home, prefix, destinations, state, startedAt, result, brake, keys, warn, signal, report };
  run.removed.push(...(await pruneAfterRun({ ...prune, now: now() })));
}

/** Who restores would get the older rows, and nothing would tell. */
function datedBefore(earlier: string, { id, job }: Pick<Manifest, "id" | "job">): string {
  return `${id} is dated before ${earlier}, which was there already: a clock was set back; until it has passed that time, rowkeep restore ${job} means ${earlier}, so name the new one by its id`;
}

/** The databases that a job backs up. Fails with kind `database`. */
export async function databasesOf(job: Job, connection: Connection, signal: AbortSignal): Promise<readonly string[]> {
  if (job.databases === undefined) return [connection.database];
  if (job.databases !== "all") return job.databases;
  return (await probeDatabase(connection, { signal })).databases;
}
