import { keyIdOf } from "../archive/age-keys.ts";
import { formatPlural } from "../base/counts.ts";
import { OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import type { Home } from "../job/home.ts";
import type { Job } from "../job/read-job.ts";
import type { StateStore } from "../job/state-store.ts";
import {
  planRetention,
  type RetainableSnapshot,
  type RetentionOptions,
  type RetentionPlan,
} from "../plan/plan-retention.ts";
import { findBroken } from "../snapshot/find-broken.ts";
import { listEverywhere, type PlacedList } from "../snapshot/locate-snapshot.ts";
import type { RepositoryOptions } from "../snapshot/repository.ts";
import { findBrake, findHiddenBrake } from "./anomaly-brake.ts";
import { type OwnKnowledge, problemOfClosed } from "./closed-snapshots.ts";
import { databaseOf } from "./database-of.ts";
import type { Report } from "./progress.ts";
import { type Removal, removeSnapshots } from "./remove-snapshots.ts";
import { hypotheticalOf, newestServer, snapshotsAt } from "./retainable-snapshots.ts";
import { policyAt } from "./retention-at.ts";

export interface PruneDatabaseOptions extends Pick<RepositoryOptions, "keys"> {
  readonly job: Job;
  /** Of this machine: what its processes read stays. */
  readonly home: Home;
  /** Folder of the database's snapshots at every destination. */
  readonly prefix: string;
  /** All are read: a pin at one of them holds at all. */
  readonly destinations: readonly Destination[];
  /** Those that are pruned; left out: all. */
  readonly only?: readonly Destination[] | undefined;
  readonly state: StateStore;
  readonly now: Date;
  /** The server whose snapshots the retention is for (see `serverIdOf`); left out: that of the newest snapshot. */
  readonly server?: string | undefined;
  /** Says what would go; removes nothing. */
  readonly dryRun: boolean;
  /** Takes it as it is that snapshots which were stored are no longer there. */
  readonly acceptMissing: boolean;
  readonly signal: AbortSignal;
  readonly report: Report;
}

interface Place {
  readonly id: string;
  readonly database: string;
  readonly destination: string;
}

export interface PruneResult {
  /** One entry for each snapshot at each destination, the oldest first. */
  readonly kept: readonly (Place & {
    readonly reasons: readonly string[];
    /** Bytes of its own volumes, of a snapshot that stays only because later ones refer to it. */
    readonly bytesForOthers?: number | undefined;
  })[];
  readonly removed: readonly (Place & { readonly reason: string })[];
  readonly warnings: readonly string[];
}

/**
 * Applies the retention of a job to the snapshots of one database, at each destination for itself. A snapshot goes with
 * its manifest first; what cannot be removed is a warning and keeps nothing else from going; what somebody reads just now
 * stays.
 * Fails with kind `refused`: `brake` while anomalies are not acknowledged; `suspicious-listing` or `unknown-references`
 * when that holds everywhere. Fails with kind `destination` when no destination can be listed.
 */
export async function pruneDatabase(options: PruneDatabaseOptions): Promise<PruneResult> {
  const list = await listEverywhere({ ...options, checksLocked: true });
  const places = options.only ?? options.destinations;
  const unread = list.unread.filter(({ destination }) => places.includes(destination));
  const warnings = [
    ...unread.map(({ destination, error }) => `${destination.name} was not pruned: ${error.message}`),
    ...list.damaged.map(
      (one) => `${one.id} at ${one.destination.name} stays and counts for nothing: ${one.error.message}`,
    ),
  ];
  for (const { id, incompleteAt } of list.snapshots) {
    for (const { name } of incompleteAt)
      warnings.push(`${id} at ${name} stays and counts for nothing: it is damaged or lacks volumes`);
  }
  for (const [{ name }, there] of list.at) {
    for (const [id, lacking] of findBroken(there))
      warnings.push(
        `${id} at ${name} stays and counts for nothing: it needs ${lacking}, which is not there or not whole`,
      );
  }
  const own: OwnKnowledge = {
    envelopes: options.state.envelopesOf(options.prefix),
    keyIds: options.job.encryption?.recipients?.map(keyIdOf),
  };
  for (const one of list.locked) {
    const problem = problemOfClosed(one, own);
    if (problem) warnings.push(`${one.id} at ${one.destination.name} stays and counts for nothing: ${problem}`);
  }
  const hidden = findHiddenBrake(options, list);
  const brake = findBrake(options.job.name, list) ?? hidden;
  if (brake && !options.dryRun) throw brake;
  if (brake) warnings.push(brake.message);
  const server = options.server ?? newestServer({ ...options, own }, list);
  const result = {
    kept: [] as PruneResult["kept"][number][],
    removed: [] as PruneResult["removed"][number][],
    warnings,
  };
  const readable = places.filter((place) => unread.every(({ destination }) => destination !== place));
  const refusals: OperationalError[] = [];
  for (const destination of readable) {
    try {
      const snapshots = snapshotsAt(destination, { ...options, own }, list);
      const plan = planAt(destination, snapshots, { ...options, server });
      if (!options.dryRun) rememberOnlyForOthers(plan, destination, options);
      await applyPlan(plan, { destination, snapshots, bytesOf: bytesAt(list, destination) }, options, result);
    } catch (error) {
      if (!(error instanceof OperationalError) || error.kind !== "refused") throw error;
      refusals.push(error);
      warnings.push(error.message);
    }
  }
  if (refusals[0] && refusals.length === readable.length) throw refusals[0];
  return result;
}

type PlanOptions = Pick<
  PruneDatabaseOptions,
  "job" | "prefix" | "state" | "now" | "acceptMissing" | "dryRun" | "server"
>;

/** Decides for one destination; undefined when it keeps everything. Fails with `suspicious-listing`. */
function planAt(
  destination: Destination,
  snapshots: readonly RetainableSnapshot[],
  options: PlanOptions,
): RetentionPlan | undefined {
  const { job, prefix, state, now, acceptMissing, dryRun, server } = options;
  const policy = policyAt(job, destination.name);
  if (!policy) return undefined;
  const keepProven = job.naming !== "overwrite";
  const timeZone = job.schedule?.timezone;
  const rules: Omit<RetentionOptions, "snapshots"> = { policy, now, timeZone, server, keepProven };
  const listed = new Set(snapshots.map(({ id }) => id));
  const missing = state.storedAt(prefix, destination.name).filter((id) => !listed.has(id));
  if (missing.length > 0 && !acceptMissing) {
    // Another machine may have pruned what no rule keeps any more; what a rule keeps nobody but a fault took away.
    const believed = [...snapshots, ...missing.map((id) => hypotheticalOf(id, server ?? ""))];
    const lost = planRetention({ ...rules, snapshots: believed }).kept.filter(({ id }) => !listed.has(id));
    if (lost[0]) throw suspiciousListing(destination.name, lost[0].id, lost.length);
  }
  if (!dryRun) for (const id of missing) state.forgetStored(prefix, destination.name, id);
  return planRetention({ ...rules, snapshots });
}

/** The next incremental carries over what it needs of those that are mostly dead. */
function rememberOnlyForOthers(
  plan: RetentionPlan | undefined,
  { name }: Destination,
  { prefix, state }: Pick<PruneDatabaseOptions, "prefix" | "state">,
): void {
  state.setOnlyForOthers(prefix, name, plan?.onlyForOthers ?? []);
}

interface AtDestination {
  readonly destination: Destination;
  readonly snapshots: readonly RetainableSnapshot[];
  readonly bytesOf: ReadonlyMap<string, number>;
}

/** Stored bytes of the snapshots of one destination. */
function bytesAt({ at }: PlacedList, destination: Destination): ReadonlyMap<string, number> {
  const { snapshots = [], locked = [] } = at.get(destination) ?? {};
  return new Map([...snapshots, ...locked].map(({ id, storedBytes }) => [id, storedBytes]));
}

interface Results {
  readonly kept: PruneResult["kept"][number][];
  readonly removed: PruneResult["removed"][number][];
  readonly warnings: string[];
}

async function applyPlan(
  plan: RetentionPlan | undefined,
  { destination, snapshots, bytesOf }: AtDestination,
  options: PruneDatabaseOptions,
  result: Results,
): Promise<void> {
  const database = databaseOf(options.job, options.prefix);
  const place = { database, destination: destination.name };
  if (!plan) {
    const ids = snapshots.map(({ id }) => id).sort();
    result.kept.push(...ids.map((id) => ({ id, ...place, reasons: ["this destination has no retention"] })));
    return;
  }
  if (plan.future.length > 0) {
    const which = plan.future.join(", ");
    result.warnings.push(`${destination.name} has snapshots from the future (${which}): a clock is or was wrong`);
  }
  const { stayed, left } = options.dryRun ? NOTHING : await removeFrom(destination, plan, snapshots, options);
  for (const [id, { reason, isFailure }] of stayed)
    if (isFailure) result.warnings.push(`${id} at ${destination.name} was not removed: ${reason}`);
  for (const message of left) result.warnings.push(`parts of removed snapshots are left for a later run: ${message}`);
  const kept: PruneResult["kept"][number][] = plan.kept.map(({ id, reasons }) => ({
    id,
    ...place,
    reasons,
    ...(plan.onlyForOthers.has(id) ? { bytesForOthers: bytesOf.get(id) ?? 0 } : {}),
  }));
  for (const { id, reason } of plan.removed) {
    const stay = stayed.get(id);
    if (!stay) result.removed.push({ id, ...place, reason });
    else kept.push({ id, ...place, reasons: [stay.isFailure ? "could not be removed" : stay.reason] });
  }
  result.kept.push(...kept.sort((left, right) => (left.id < right.id ? -1 : 1)));
}

const NOTHING: Removal = { stayed: new Map(), left: [] };

async function removeFrom(
  destination: Destination,
  { removed }: RetentionPlan,
  snapshots: readonly RetainableSnapshot[],
  options: PruneDatabaseOptions,
): Promise<Removal> {
  const ids = removed.map(({ id }) => id);
  if (ids.length === 0) return NOTHING;
  options.report({ type: "phase", text: `removing ${formatPlural(ids.length, "snapshot")} from ${destination.name}` });
  return removeSnapshots(destination, ids, snapshots, options);
}

function suspiciousListing(destination: string, id: string, count: number): OperationalError {
  const more = count > 1 ? ` and ${count - 1} more` : "";
  return new OperationalError(`cannot prune ${destination}: ${id}${more}, stored there before, is not in its list`, {
    kind: "refused",
    code: "suspicious-listing",
    hint: "Look what became of it; if you removed it yourself, give rowkeep prune --accept-missing once.",
  });
}
