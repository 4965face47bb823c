import type { RetainableSnapshot } from "../plan/plan-retention.ts";
import type { PlacedList } from "../snapshot/locate-snapshot.ts";
import { compareSnapshotIds, parseSnapshotId } from "../snapshot/snapshot-id.ts";

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
  const ids = [...all, ...closed].map(({ id }) => id);
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
      references: referencesOf(one, hearsay, { ids, proven }),
    };
  });
}

interface OthersThere {
  readonly ids: readonly string[];
  /** Those that are not only hearsay. */
  readonly proven: ReadonlySet<string>;
}

function referencesOf({ id, envelope }: Closed, hearsay: boolean, { ids, proven }: OthersThere): readonly string[] {
  const named = envelope?.facts?.references;
  // A run builds on the newest snapshot that all destinations have, which may lie behind the last full one of this destination.
  if (named === undefined) return possibleReferences(id, ids, new Set());
  return hearsay ? [...new Set([...named, ...possibleReferences(id, ids, proven)])] : named;
}

/** An incremental may need all back to the last full snapshot. A full one that is only hearsay may be put there to cut that short. */
function possibleReferences(id: string, ids: readonly string[], proven: ReadonlySet<string>): readonly string[] {
  const own = parseSnapshotId(id);
  if (own?.kind !== "incremental") return [];
  const older = ids
    .map(parseSnapshotId)
    .filter((one) => one !== undefined)
    .filter((one) => compareSnapshotIds(one, own) < 0)
    .sort((left, right) => compareSnapshotIds(right, left));
  const base = older.findIndex((one) => one.kind === "full" && proven.has(one.id));
  return older.slice(0, base === -1 ? undefined : base + 1).map((one) => one.id);
}
