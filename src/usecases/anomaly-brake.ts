import { formatCount, formatPlural } from "../base/counts.ts";
import { OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import type { Job } from "../job/read-job.ts";
import type { StateStore } from "../job/state-store.ts";
import {
  type CountedTable,
  findAnomalies,
  findNoLongerWanted,
  maxShrinkOf,
  type NoLongerWanted,
} from "../plan/find-anomalies.ts";
import { chooseTable } from "../plan/table-patterns.ts";
import { listEverywhere, type PlacedList } from "../snapshot/locate-snapshot.ts";
import type { Anomaly, StoredTable } from "../snapshot/manifest.ts";
import { openRepository, type RepositoryOptions } from "../snapshot/repository.ts";
import { compareIdTexts } from "../snapshot/snapshot-id.ts";
import type { ReadManifest } from "./choose-base.ts";
import { databaseOf } from "./database-of.ts";

// What was found lies in the manifest, and that somebody looked at it in the marks beside it: every machine that has the
// destination sees the brake, and a state that is lost or torn cannot open it.

export interface BrakeOptions extends RepositoryOptions {
  readonly job: Job;
  readonly prefix: string;
  readonly destinations: readonly Destination[];
  readonly signal: AbortSignal;
}

/** What a new snapshot is compared with. */
export interface Brake {
  readonly findAnomalies: (tables: readonly StoredTable[]) => readonly Anomaly[];
  /** What the job was changed to leave out: no alarm, but whoever changed it may have meant less. */
  readonly noLongerWanted: NoLongerWanted;
  /** Why nothing could be compared, though there may be a snapshot before. */
  readonly problem?: string | undefined;
  /** Id of the snapshot that it is compared with: the newest by its date that was there before. */
  readonly id?: string | undefined;
  /** What it was read from: an incremental usually builds on the same one. */
  readonly read?: ReadManifest | undefined;
}

export interface ReadBrakeOptions extends BrakeOptions {
  /** Knows the tables of an encrypted snapshot that this machine made and cannot open. */
  readonly state: Pick<StateStore, "tablesOf">;
}

/** Reads how many rows the tables had in the last complete snapshot. A destination that does not answer has no say. */
export async function readBrake(options: ReadBrakeOptions): Promise<Brake> {
  const { job } = options;
  const { tables, ...last } = await readLastTables(options);
  const choose = chooseTable(job.tables ?? {});
  const maxShrink = maxShrinkOf(job.safety?.maxShrink);
  return {
    findAnomalies: (after) => findAnomalies({ before: tables, after, choose, maxShrink }),
    noLongerWanted: findNoLongerWanted({ before: tables, choose }),
    ...last,
  };
}

interface LastTables extends Pick<Brake, "problem" | "id" | "read"> {
  readonly tables: readonly CountedTable[];
}

async function readLastTables(options: ReadBrakeOptions): Promise<LastTables> {
  const { job, prefix, destinations, state, signal } = options;
  const problems: string[] = [];
  const attempt = async <T>(act: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await act();
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof OperationalError)) throw error;
      problems.push(error.message);
      return undefined;
    }
  };
  const places = new Map<string, Destination[]>();
  for (const destination of destinations) {
    const ids = (await attempt(() => openRepository(destination, prefix).ids({ signal }))) ?? [];
    for (const id of ids) places.set(id, [...(places.get(id) ?? []), destination]);
  }
  const newestFirst = [...places.keys()].sort((left, right) => compareIdTexts(right, left));
  for (const id of newestFirst) {
    const tables = state.tablesOf(prefix, id);
    if (tables) return { tables, id };
    for (const destination of places.get(id) ?? []) {
      const opened = await attempt(() =>
        openRepository(destination, prefix, { keys: options.keys }).open(id, { signal }),
      );
      if (!opened) continue;
      const { manifest } = opened;
      if (manifest.safetyOf !== undefined || manifest.job !== job.name) break;
      return {
        tables: manifest.tables.map(({ schema, name, partitionRoot, rows }) => ({ schema, name, partitionRoot, rows })),
        id,
        read: { ...opened, readAt: destination },
      };
    }
  }
  return { tables: [], ...(problems[0] === undefined ? {} : { problem: problems[0] }) };
}

/** Says one anomaly to people. */
export function describeAnomaly({ schema, name, kind, rowsBefore, rows }: Anomaly): string {
  return kind === "vanished"
    ? `${schema}.${name} vanished: it had ${formatPlural(rowsBefore, "row")}`
    : `${schema}.${name} shrank from ${formatPlural(rowsBefore, "row")} to ${formatCount(rows)}`;
}

/** Gives the refusal of a prune while a snapshot has anomalies that nobody acknowledged. */
export function findBrake(job: string, list: Pick<PlacedList, "snapshots" | "locked">): OperationalError | undefined {
  const [first, ...more] = brakingIn(list).filter((one) => one.job === undefined || one.job === job);
  if (!first) return undefined;
  const [anomaly, ...others] = first.anomalies;
  const what = anomaly ? describeAnomaly(anomaly) : "tables shrank or vanished (which ones, its key would tell)";
  const count = others.length + more.length;
  return new OperationalError(`cannot prune ${job}: in ${first.id} ${what}${count > 0 ? ", and more" : ""}`, {
    kind: "refused",
    code: "brake",
    hint: `Look whether that is as it should be (rowkeep show ${job} ${first.id}); if it is, rowkeep acknowledge ${job}.`,
  });
}

export interface HiddenBrakeOptions {
  readonly job: Job;
  readonly prefix: string;
  readonly state: Pick<StateStore, "addBrake" | "forgetBrake" | "brakesOf">;
}

/**
 * Gives the refusal of a prune while this machine knows of anomalies in a snapshot that is only where nobody answers now: the
 * snapshots after it may look well, for they were compared with it. Remembers what the list tells.
 */
export function findHiddenBrake(
  { job, prefix, state }: HiddenBrakeOptions,
  list: PlacedList,
): OperationalError | undefined {
  const own = brakingIn(list).filter((one) => one.job === undefined || one.job === job.name);
  const braking = new Set(own.map(({ id }) => id));
  for (const id of braking) state.addBrake(prefix, id);
  const seen = new Set([...list.snapshots, ...list.locked].map(({ id }) => id));
  const isPartial = list.unread.length > 0 || list.at.size < job.destinations.length;
  for (const id of state.brakesOf(prefix)) {
    if (!braking.has(id) && (seen.has(id) || !isPartial)) state.forgetBrake(prefix, id);
  }
  const hidden = state.brakesOf(prefix).find((id) => !seen.has(id));
  if (hidden === undefined) return undefined;
  return new OperationalError(
    `cannot prune ${job.name}: tables shrank or vanished in ${hidden}, which is at a destination that does not answer`,
    { kind: "refused", code: "brake", hint: `Once it answers, look at it and rowkeep acknowledge ${job.name}.` },
  );
}

interface BrakingSnapshot {
  readonly id: string;
  /** Undefined where only its key would tell. */
  readonly job?: string | undefined;
  /** None where only its key would tell. */
  readonly anomalies: readonly Anomaly[];
  readonly destinations: readonly Destination[];
}

/** Gives the snapshots whose anomalies nobody acknowledged, at any destination. */
function brakingIn({ snapshots, locked }: Pick<PlacedList, "snapshots" | "locked">): readonly BrakingSnapshot[] {
  const all = [...snapshots, ...locked];
  const acknowledged = new Set(all.filter(({ acknowledgedAt }) => acknowledgedAt !== undefined).map(({ id }) => id));
  const open = snapshots.filter(({ anomalies = [] }) => anomalies.length > 0);
  const opened = new Set(snapshots.map(({ id }) => id));
  const closed = locked.filter(({ id, envelope }) => !opened.has(id) && envelope?.facts?.hasAnomalies);
  return [
    ...open.map(({ id, job, anomalies = [], destinations }) => ({ id, job, anomalies, destinations })),
    ...[...Map.groupBy(closed, ({ id }) => id)].map(([id, places]) => ({
      id,
      anomalies: [],
      destinations: places.map(({ destination }) => destination),
    })),
  ].filter(({ id }) => !acknowledged.has(id));
}

export interface AcknowledgedSnapshot {
  readonly id: string;
  readonly database: string;
  /** None of an encrypted one that no key at hand opens. */
  readonly anomalies: readonly Anomaly[];
}

/**
 * Remembers at every destination that the anomalies of all snapshots are as they should be, so that prune goes on.
 * Gives the snapshots that it was about. Fails with kind `destination` when no place of one of them takes the mark.
 */
export async function acknowledgeAnomalies(
  options: BrakeOptions & { readonly now: Date; readonly warn: (message: string) => void },
): Promise<readonly AcknowledgedSnapshot[]> {
  const { prefix, now, signal, warn } = options;
  const list = await listEverywhere(options);
  for (const { destination, error } of list.unread) warn(`${destination.name} was not asked: ${error.message}`);
  const braking = brakingIn(list);
  for (const { id, destinations } of braking) {
    const errors: OperationalError[] = [];
    const warnings: string[] = [];
    for (const destination of destinations) {
      try {
        await openRepository(destination, prefix).mark(id, { acknowledgedAt: now.toISOString() }, { signal });
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof OperationalError)) throw error;
        errors.push(error);
        warnings.push(`${destination.name} does not know that ${id} was acknowledged: ${error.message}`);
      }
    }
    if (errors[0] && errors.length === destinations.length) throw errors[0];
    for (const message of warnings) warn(message);
  }
  const database = databaseOf(options.job, prefix);
  return braking.map(({ id, anomalies }) => ({ id, database, anomalies }));
}
