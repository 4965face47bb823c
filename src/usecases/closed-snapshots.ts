import type { RetainableSnapshot } from "../plan/plan-retention.ts";
import type { PlacedList } from "../snapshot/locate-snapshot.ts";
import { compareSnapshotIds, parseSnapshotId, type SnapshotId } from "../snapshot/snapshot-id.ts";

// Snapshots that no key at hand opens are pruned all the same: a machine that backs up needs the public key only. What is
// known of them stands in their envelopes, which anybody who may write to the destination could have written.

type Closed = PlacedList["locked"][number];

/** What this machine knows by itself. */
export interface OwnKnowledge {
  /** By id, the SHA-256 of the envelopes that it wrote. */
  readonly envelopes: ReadonlyMap<string, string>;
  /** Ids of the keys that the job encrypts to; undefined: not known. */
  readonly keyIds?: readonly string[] | undefined;
}

/** Says why a closed snapshot stays and counts for nothing; undefined when enough is known of it. */
export function problemOfClosed(one: Closed, own: OwnKnowledge): string | undefined {
  const { envelope, error, isIncomplete } = one;
  if (error.code === "wrong-key") return error.message;
  if (isIncomplete) return "it lacks volumes, or what is stored is not what its envelope names";
  if (!envelope?.facts)
    return "it is encrypted, and its envelope is missing or does not say what a retention must know";
  const isForeign = own.keyIds && !envelope.keyIds.some((id) => own.keyIds?.includes(id));
  if (isForeign && isHearsay(one, own)) return "it is encrypted to other keys than those of the job";
  return undefined;
}

function isHearsay({ id, envelope }: Closed, { envelopes }: OwnKnowledge): boolean {
  return envelope === undefined || envelopes.get(id) !== envelope.sha256;
}

/** Gives what the retention must know of the closed snapshots of one destination. `all` are the ids of all that it has. */
export function retainableClosed(
  closed: readonly Closed[],
  all: readonly { readonly id: string; readonly isHearsay?: boolean | undefined }[],
  own: OwnKnowledge,
): readonly RetainableSnapshot[] {
  const proven = new Set(all.filter((one) => !one.isHearsay).map(({ id }) => id));
  for (const one of closed) if (!isHearsay(one, own) && !one.envelope?.facts?.isSafety) proven.add(one.id);
  const oldestFirst = [...all, ...closed]
    .flatMap(({ id }) => parseSnapshotId(id) ?? [])
    .sort((left, right) => compareSnapshotIds(left, right));
  const others: OthersThere = {
    oldestFirst,
    indexOf: new Map(oldestFirst.map(({ id }, index) => [id, index])),
    proven,
    hearsay: incrementalsOf(closed.filter((one) => isHearsay(one, own))),
    unknown: incrementalsOf(closed.filter(({ envelope }) => envelope?.facts === undefined)),
  };
  return closed.map((one): RetainableSnapshot => {
    const { id, envelope, pinned, verifiedAt, drilledAt, undoneAt } = one;
    const known = problemOfClosed(one, own) === undefined ? envelope?.facts : undefined;
    const hearsay = isHearsay(one, own);
    return {
      id,
      createdAt: known?.createdAt ?? (parseSnapshotId(id)?.takenAt ?? new Date(0)).toISOString(),
      server: known?.server ?? "",
      pinned,
      verifiedAt,
      drilledAt,
      undoneAt,
      isSafety: known?.isSafety,
      isClosed: known === undefined,
      isHearsay: hearsay,
      references: referencesOf(one, hearsay, others),
    };
  });
}

interface OthersThere {
  readonly oldestFirst: readonly SnapshotId[];
  readonly indexOf: ReadonlyMap<string, number>;
  /** Those that are not only hearsay. */
  readonly proven: ReadonlySet<string>;
  /** Incrementals that are. */
  readonly hearsay: ReadonlySet<string>;
  /** Incrementals of which nothing tells what they need. */
  readonly unknown: ReadonlySet<string>;
}

function incrementalsOf(closed: readonly Closed[]): ReadonlySet<string> {
  return new Set(closed.map(({ id }) => id).filter((id) => parseSnapshotId(id)?.kind === "incremental"));
}

function referencesOf(
  { id, envelope }: Closed,
  hearsay: boolean,
  { oldestFirst, indexOf, proven, ...others }: OthersThere,
): readonly string[] {
  const named = envelope?.facts?.references;
  if (named !== undefined && !hearsay) return named;
  if (parseSnapshotId(id)?.kind !== "incremental") return named ?? [];
  const needed = new Set(named);
  const [ends, isBase] =
    named === undefined
      ? // A run builds on the newest snapshot that all destinations have, which may lie behind the last full one of this one.
        [others.unknown, () => false]
      : [others.hearsay, ({ id: one, kind }: SnapshotId) => kind === "full" && proven.has(one)];
  // It may need all back to the last full snapshot; one that is only hearsay may be put there to cut that short. What another
  // such one needs need not be named again: that would be a list of all for each of thousands.
  for (let at = (indexOf.get(id) ?? 0) - 1; at >= 0; at--) {
    const older = oldestFirst[at];
    if (!older) break;
    needed.add(older.id);
    if (isBase(older) || ends.has(older.id)) break;
  }
  return [...needed];
}
