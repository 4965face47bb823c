import { codeOf, messageOf, OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import { findSnapshot, type SnapshotChoice } from "./find-snapshot.ts";
import type { Manifest } from "./manifest.ts";
import { openRepository, type RepositoryOptions } from "./repository.ts";
import type { OpenFile } from "../archive/age-keys.ts";
import type { DamagedSnapshot, LockedSnapshot, SnapshotList, SnapshotSummary } from "./snapshot-summary.ts";

export interface LocateOptions extends RepositoryOptions {
  /** The preferred one first. */
  readonly destinations: readonly Destination[];
  readonly prefix: string;
  /** Further ones that could not even be opened: what nobody found may be there. */
  readonly unopened?: readonly UnopenedDestination[] | undefined;
  readonly signal: AbortSignal;
}

export interface UnopenedDestination {
  readonly name: string;
  readonly error: OperationalError;
}

/** A snapshot and where it is. */
export interface PlacedSnapshot extends SnapshotSummary {
  readonly destinations: readonly Destination[];
  /** Those of them whose list lacks volumes of it. */
  readonly incompleteAt: readonly Destination[];
}

/** What all destinations together have. */
export interface PlacedList {
  /** What each one has by itself: two of them may have different snapshots with one id. */
  readonly at: ReadonlyMap<Destination, SnapshotList>;
  /** The oldest first. */
  readonly snapshots: readonly PlacedSnapshot[];
  readonly damaged: readonly (DamagedSnapshot & { readonly destination: Destination })[];
  /** Encrypted ones that no given key opens. */
  readonly locked: readonly (LockedSnapshot & { readonly destination: Destination })[];
  /** Destinations that could not be read: what they have is not in the list. */
  readonly unread: readonly { readonly destination: Destination; readonly error: OperationalError }[];
}

/** Lists the snapshots of several destinations as one. Fails with kind `destination` only when none can be read. */
export async function listEverywhere(options: LocateOptions): Promise<PlacedList> {
  const unread: { destination: Destination; error: OperationalError }[] = [];
  const lists = await Promise.all(
    options.destinations.map(async (destination) => {
      try {
        return { destination, list: await openRepository(destination, options.prefix, options).list(options) };
      } catch (error) {
        options.signal.throwIfAborted();
        if (!(error instanceof OperationalError)) throw error;
        unread.push({ destination, error });
        return { destination, list: { snapshots: [], damaged: [], locked: [] } };
      }
    }),
  );
  if (unread[0] && unread.length === options.destinations.length) throw unread[0].error;
  return { ...merge(lists), unread };
}

function merge(lists: readonly { readonly destination: Destination; readonly list: SnapshotList }[]) {
  const byId = new Map<string, SnapshotSummary & { destinations: Destination[]; incompleteAt: Destination[] }>();
  for (const { destination, list } of lists) {
    for (const { isIncomplete, ...summary } of list.snapshots) {
      const known = byId.get(summary.id);
      const incomplete = isIncomplete ? [destination] : [];
      if (!known) byId.set(summary.id, { ...summary, destinations: [destination], incompleteAt: incomplete });
      else
        byId.set(summary.id, {
          ...known,
          ...newestMarks(known, summary),
          destinations: [...known.destinations, destination],
          incompleteAt: [...known.incompleteAt, ...incomplete],
        });
    }
  }
  return {
    at: new Map(lists.map(({ destination, list }) => [destination, list])),
    snapshots: [...byId.values()].sort((left, right) => (left.createdAt < right.createdAt ? -1 : 1)),
    damaged: lists.flatMap(({ destination, list }) => list.damaged.map((damaged) => ({ ...damaged, destination }))),
    locked: lists.flatMap(({ destination, list }) => list.locked.map((locked) => ({ ...locked, destination }))),
  };
}

function newestMarks(left: SnapshotSummary, right: SnapshotSummary): Partial<SnapshotSummary> {
  const newest = (name: "verifiedAt" | "drilledAt" | "undoneAt" | "passedAt" | "acknowledgedAt") => {
    const times = [left[name], right[name]].filter((time) => time !== undefined).sort();
    return times.length > 0 ? { [name]: times.at(-1) } : {};
  };
  return {
    ...newest("verifiedAt"),
    ...newest("drilledAt"),
    ...newest("undoneAt"),
    ...latestUndo(left, right),
    ...newest("passedAt"),
    ...newest("acknowledgedAt"),
    ...(left.pinned || right.pinned ? { pinned: true } : {}),
  };
}

function latestUndo({ undoingBy: left }: SnapshotSummary, { undoingBy: right }: SnapshotSummary) {
  const latest = left && right ? (BigInt(left) > BigInt(right) ? left : right) : (left ?? right);
  return latest ? { undoingBy: latest } : {};
}

export interface LocatedSnapshot {
  readonly id: string;
  readonly manifest: Manifest;
  /** What a reader of an encrypted snapshot needs. */
  readonly decrypt?: OpenFile | undefined;
  /** Those that have it, the one that gave the manifest first. */
  readonly destinations: readonly Destination[];
  /** Those where its manifest is damaged, or could not be read. */
  readonly failedAt: readonly { readonly destination: Destination; readonly error: OperationalError }[];
  readonly unread: PlacedList["unread"];
}

/**
 * Finds the chosen snapshot at these destinations and reads its manifest from the first one that gives it undamaged.
 * Fails with kind `usage` (`not-found`, `ambiguous`), `archive` (`invalid-manifest`, `future-version`,
 * `key-needed`, `wrong-key`, `damaged`) or `destination`, also when it may be where nobody answered.
 */
export async function locateSnapshot(
  options: LocateOptions & { readonly choice: SnapshotChoice },
): Promise<LocatedSnapshot> {
  const { snapshots, unread, ...others } = await listEverywhere(options);
  const good = new Set(snapshots.map(({ id }) => id));
  const damaged = others.damaged.filter((one) => !good.has(one.id));
  const locked = others.locked.filter((one) => !good.has(one.id));
  const id = await orUnread({ ...options, unread }, () => findSnapshot({ snapshots, damaged, locked }, options.choice));
  const places = snapshots.find((snapshot) => snapshot.id === id)?.destinations ?? [];
  const failedAt: { destination: Destination; error: OperationalError }[] = [
    ...others.damaged,
    ...others.locked,
  ].filter((one) => one.id === id);
  let failure = failedAt[0]?.error;
  for (const [index, place] of places.entries()) {
    try {
      const opened = await openRepository(place, options.prefix, options).open(id, options);
      return { id, ...opened, destinations: places.slice(index), failedAt, unread };
    } catch (error) {
      options.signal.throwIfAborted();
      if (!(error instanceof OperationalError)) throw error;
      failedAt.push({ destination: place, error });
      failure = error;
    }
  }
  throw failure;
}

/** Looks for something. What is not found may be where nobody answered: then that is the failure. */
export async function orUnread<T>(where: NotLookedAt, find: () => T | Promise<T>): Promise<T> {
  try {
    return await find();
  } catch (error) {
    const [first] = allUnread(where);
    if (!first || !NOT_FOUND.has(codeOf(error))) throw error;
    const { kind, code, hint, message } = first.error;
    throw new OperationalError(`${messageOf(error)} where rowkeep could look; ${first.name} was not read: ${message}`, {
      kind,
      code,
      hint,
      cause: first.error,
    });
  }
}

type NotLookedAt = Pick<PlacedList, "unread"> & Pick<LocateOptions, "unopened">;

/** Gives the destinations of which nobody knows what they have. */
export function allUnread({ unread, unopened = [] }: NotLookedAt): readonly UnopenedDestination[] {
  return [...unread.map(({ destination: { name }, error }) => ({ name, error })), ...unopened];
}

const NOT_FOUND: ReadonlySet<string | undefined> = new Set(["not-found", "nothing-to-undo"]);
