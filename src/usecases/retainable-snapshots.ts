import { OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import type { Job } from "../job/read-job.ts";
import { MAX_CLOCK_SKEW_MS, type RetainableSnapshot } from "../plan/plan-retention.ts";
import { findBroken } from "../snapshot/find-broken.ts";
import type { PlacedList } from "../snapshot/locate-snapshot.ts";
import { serverIdOf } from "../snapshot/retention-facts.ts";
import { parseSnapshotId } from "../snapshot/snapshot-id.ts";
import { snapshotPrefix } from "../snapshot/snapshot-prefix.ts";
import type { Marks, SnapshotSummary } from "../snapshot/snapshot-summary.ts";
import { type OwnKnowledge, retainableClosed } from "./closed-snapshots.ts";

export interface RetainableOptions {
  readonly job: Job;
  readonly prefix: string;
  /** What this machine knows by itself of snapshots that it cannot open. */
  readonly own: OwnKnowledge;
}

/** Gives the server of the newest snapshot; one that is only hearsay has a say when there is no other. */
export function newestServer(
  { job, prefix, own, now }: RetainableOptions & { readonly now: Date },
  { snapshots, locked }: PlacedList,
): string | undefined {
  const latest = now.getTime() + MAX_CLOCK_SKEW_MS;
  const known = [
    ...snapshots.map((summary) => retainableOf(summary, job, prefix)),
    ...retainableClosed(locked, [], own).filter(({ isClosed }) => !isClosed),
  ]
    .filter((one) => !one.isSafety && isOwn(one) && Date.parse(one.createdAt) <= latest)
    .sort((left, right) => Date.parse(right.createdAt) - Date.parse(left.createdAt));
  return (known.find(({ isHearsay }) => !isHearsay) ?? known[0])?.server;
}

/** Gives what one destination has. Fails with `unknown-references` when it is not known what a damaged one needs. */
export function snapshotsAt(
  destination: Destination,
  { job, prefix, own }: RetainableOptions,
  list: PlacedList,
): readonly RetainableSnapshot[] {
  const { snapshots, damaged, locked } = list;
  const known = new Map(snapshots.map((summary) => [summary.id, summary]));
  // What this destination itself has counts: under the same id another one may have another snapshot.
  const good = (list.at.get(destination)?.snapshots ?? []).map((summary) => ({
    ...retainableOf({ ...summary, ...marksOf(known.get(summary.id)) }, job, prefix),
    isDamaged: summary.isIncomplete === true,
  }));
  const spoiled = damaged
    .filter((one) => one.destination === destination)
    .map(({ id, error }): RetainableSnapshot => {
      const elsewhere = known.get(id);
      // A full snapshot of this version of the format refers to nothing; of any other nobody knows.
      if (!elsewhere && (parseSnapshotId(id)?.kind !== "full" || error.code === "future-version")) {
        throw unknownReferences(id, destination.name, error);
      }
      return { ...hypotheticalOf(id, ""), isDamaged: true, references: elsewhere?.references ?? [] };
    });
  const closed = retainableClosed(
    locked.filter((one) => one.destination === destination),
    good,
    own,
  );
  const pinned = new Set([...snapshots, ...damaged, ...locked].filter((one) => one.pinned).map(({ id }) => id));
  const spoiledElsewhere = new Set(damaged.filter((one) => one.destination !== destination).map(({ id }) => id));
  const broken = findBroken(list.at.get(destination) ?? { snapshots: [], locked: [] });
  return [...good, ...spoiled, ...closed].map((one) => ({
    ...one,
    isDamaged: one.isDamaged === true || broken.has(one.id),
    isDamagedElsewhere: spoiledElsewhere.has(one.id),
    pinned: pinned.has(one.id),
  }));
}

/** They hold at all destinations, whichever has them. */
function marksOf(summary: SnapshotSummary | undefined): Marks {
  const { verifiedAt, drilledAt, undoneAt } = summary ?? {};
  return { verifiedAt, drilledAt, undoneAt };
}

function retainableOf(summary: SnapshotSummary, job: Job, prefix: string): RetainableSnapshot {
  const { id, createdAt, pinned, verifiedAt, drilledAt, undoneAt, references = [] } = summary;
  // Snapshots of another job that somebody copied here are nobody's to remove.
  const isOurs = summary.job === job.name && snapshotPrefix(summary.job, summary.database) === prefix;
  const server = isOurs ? serverIdOf(summary) : `${FOREIGN}${summary.job}`;
  const isSafety = isOurs && summary.safetyOf !== undefined;
  // Among encrypted ones a plain snapshot, which anybody could have put there, makes none of them go.
  const isHearsay = job.encryption !== undefined && !summary.encrypted && !isSafety;
  return { id, createdAt, server, pinned, verifiedAt, drilledAt, undoneAt, isSafety, isHearsay, references };
}

const FOREIGN = "job ";

function isOwn({ server }: RetainableSnapshot): boolean {
  return !server.startsWith(FOREIGN);
}

/** A snapshot of which only the id is known. */
export function hypotheticalOf(id: string, server: string): RetainableSnapshot {
  return { id, createdAt: (parseSnapshotId(id)?.takenAt ?? new Date(0)).toISOString(), server, references: [] };
}

function unknownReferences(id: string, destination: string, cause: OperationalError): OperationalError {
  return new OperationalError(`cannot prune ${destination}: ${id} cannot be read, so what it needs is not known`, {
    kind: "refused",
    code: "unknown-references",
    hint: "Upgrade rowkeep if a newer one wrote it; otherwise repair it or remove its folder.",
    cause,
  });
}
