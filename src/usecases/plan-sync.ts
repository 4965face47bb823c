import { OperationalError } from "../base/errors.ts";
import { mapAhead } from "../base/map-ahead.ts";
import type { Destination } from "../destinations/destination.ts";
import type { ReadCopiesStore } from "../job/read-copies-store.ts";
import type { SnapshotCopy } from "../snapshot/copy-snapshot.ts";
import { noGoodSource } from "../snapshot/fetch-volume.ts";
import type { Volume } from "../snapshot/manifest.ts";
import { ENCRYPTED_MANIFEST_NAME } from "../snapshot/manifest-text.ts";
import {
  hasManifest,
  isSameFolder,
  listSnapshotFolders,
  type SnapshotFolder,
  stampOfSmall,
} from "../snapshot/snapshot-folders.ts";
import { compareIdTexts } from "../snapshot/snapshot-id.ts";
import {
  hashOfSmall,
  type PartsPlace,
  readParts,
  type SmallPart,
  type SnapshotParts,
} from "../snapshot/snapshot-parts.ts";

export interface PlanSyncOptions {
  readonly destinations: readonly Destination[];
  readonly prefix: string;
  readonly isSource: (destination: Destination) => boolean;
  readonly onUnread: (destination: Destination, error: OperationalError) => void;
  readonly onDamaged: (error: OperationalError) => void;
  /** What was read before. */
  readonly memory?: ReadCopiesStore | undefined;
  /** Read it all the same. */
  readonly readsAll?: boolean | undefined;
  readonly signal: AbortSignal;
}

/** One snapshot that one destination misses, wholly or in part. */
export interface MissedSnapshot {
  readonly id: string;
  /** Those that list it: one of them tells what it consists of. */
  readonly listed: readonly SnapshotCopy[];
  /** Where it may be had, those that list it first. */
  readonly sources: readonly SnapshotCopy[];
  readonly target: SnapshotCopy;
  /** The volumes that the target does not have in their size. */
  readonly lacking: readonly Volume[];
}

export interface SyncPlan {
  /** The oldest snapshot first. */
  readonly missed: readonly MissedSnapshot[];
  /** Snapshots that differ between destinations and whose content nobody can tell any more. */
  readonly unknown: readonly { readonly id: string; readonly error: OperationalError }[];
}

const NOTHING: SnapshotFolder = new Map();

/** Of so many snapshots the small objects are read at once, at all destinations. */
const SNAPSHOTS_AT_ONCE = 4;

/**
 * Compares what destinations have of one database: by their listings, and by the manifests, of which no listing tells that
 * one is damaged. Those are not read again that are listed as they were when they were last read and were the same everywhere.
 * Whether the bytes of volumes are right is what verify tells.
 */
export async function planSync(options: PlanSyncOptions): Promise<SyncPlan> {
  const folders = await listAll(options);
  const missed: MissedSnapshot[] = [];
  const unknown: { id: string; error: OperationalError }[] = [];
  const dead = new Set<Destination>();
  const read = async (id: string) => {
    const usable = [...folders].filter(([destination]) => !dead.has(destination));
    const copies = usable.map(([destination, byId]) => ({ destination, folder: byId.get(id) ?? NOTHING }));
    if (!options.readsAll && wereSame(id, copies, options)) return undefined;
    return { id, copies, known: await readCopies(id, copies, { ...options, dead }) };
  };
  for await (const found of mapAhead(idsOf(folders.values()), SNAPSHOTS_AT_ONCE, read)) {
    if (found === undefined) continue;
    const { id, copies, known } = found;
    const alive = copies.filter(({ destination }) => !dead.has(destination));
    const sources = alive.filter(({ destination }) => options.isSource(destination));
    const listed = sources.filter(({ folder }) => hasManifest(folder));
    if (listed.length === 0 || areSame(alive, known)) continue;
    const told = listed.map(({ destination }) => known.get(destination));
    const parts = told.find(isParts);
    if (!parts) {
      unknown.push({ id, error: noGoodSource(id, told.find(isError)) });
      continue;
    }
    for (const target of alive) {
      if (isComplete(target.folder, parts, known.get(target.destination))) continue;
      const others = sources.filter(({ destination }) => destination !== target.destination);
      missed.push({
        id,
        listed,
        sources: others.toSorted((left, right) => Number(hasManifest(right.folder)) - Number(hasManifest(left.folder))),
        target,
        lacking: parts.volumes.filter(({ name, size }) => target.folder.get(name)?.size !== size),
      });
    }
  }
  return { missed, unknown };
}

/** Tells copies that were read once and had nothing to give each other, and are listed as they were then. */
function wereSame(id: string, copies: readonly SnapshotCopy[], { prefix, memory }: PlanSyncOptions): boolean {
  const [first] = copies;
  if (!memory || !first) return false;
  const contentOf = ({ destination, folder }: SnapshotCopy) =>
    memory.get({ destination: destination.name, prefix, id }, stampOfSmall(folder));
  const content = contentOf(first);
  return (
    content !== undefined &&
    copies.every((copy) => isSameFolder(copy.folder, first.folder) && contentOf(copy) === content)
  );
}

/** What the small objects of a copy say, or what is wrong with them; of a destination that does not answer nothing is known. */
type KnownCopies = ReadonlyMap<Destination, SnapshotParts | OperationalError>;

async function readCopies(
  id: string,
  copies: readonly SnapshotCopy[],
  { dead, ...options }: PlanSyncOptions & { readonly dead: Set<Destination> },
): Promise<KnownCopies> {
  const known = new Map<Destination, SnapshotParts | OperationalError>();
  await Promise.all(
    copies
      .filter(({ folder }) => hasManifest(folder))
      .map(async ({ destination, folder }) => {
        const isEncrypted = folder.has(ENCRYPTED_MANIFEST_NAME);
        try {
          const parts = await readTwice({ ...options, destination, id, isEncrypted });
          known.set(destination, parts);
          const { prefix, memory } = options;
          const read = { stamp: stampOfSmall(folder), content: hashOfSmall(parts) };
          memory?.put({ destination: destination.name, prefix, id }, read);
        } catch (error) {
          options.signal.throwIfAborted();
          if (!(error instanceof OperationalError)) throw error;
          if (!isOfArchive(error)) {
            dead.add(destination);
            options.onUnread(destination, error);
            return;
          }
          known.set(destination, error);
          if (isDamage(error)) options.onDamaged(error);
        }
      }),
  );
  return known;
}

/** A bit that was flipped on the way is not damage. */
async function readTwice(place: PartsPlace): Promise<SnapshotParts> {
  try {
    return await readParts(place);
  } catch (error) {
    place.signal.throwIfAborted();
    if (!(error instanceof OperationalError) || !isDamage(error)) throw error;
    return readParts(place);
  }
}

function isOfArchive({ kind }: OperationalError): boolean {
  return kind === "archive";
}

/** What a newer version wrote is for that one to judge, and what was removed since it was listed is gone. */
function isDamage(error: OperationalError): boolean {
  return isOfArchive(error) && error.code !== "future-version" && error.code !== "not-found";
}

function isError(known: SnapshotParts | OperationalError | undefined): known is OperationalError {
  return known instanceof OperationalError;
}

function isParts(known: SnapshotParts | OperationalError | undefined): known is SnapshotParts {
  return known !== undefined && !isError(known);
}

/** Tells copies that have nothing to give each other. */
function areSame(copies: readonly SnapshotCopy[], known: KnownCopies): boolean {
  const [first] = copies;
  if (!first || !copies.every(({ folder }) => isSameFolder(folder, first.folder))) return false;
  const all = copies.map(({ destination }) => known.get(destination));
  const parts = all.find(isParts);
  return all.every((one) => (isParts(one) ? hasSmall(one, parts) : one !== undefined && !isDamage(one)));
}

function hasSmall(one: SnapshotParts, other: SnapshotParts | undefined): boolean {
  return one.small.every(({ name, bytes }) =>
    other?.small.some((part) => part.name === name && part.bytes.equals(bytes)),
  );
}

async function listAll({ destinations, prefix, signal, onUnread }: PlanSyncOptions) {
  const folders = new Map<Destination, ReadonlyMap<string, SnapshotFolder>>();
  const lists = await Promise.all(
    destinations.map(async (destination) => {
      try {
        return await listSnapshotFolders(destination, prefix, { signal });
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof OperationalError)) throw error;
        onUnread(destination, error);
        return undefined;
      }
    }),
  );
  // In the order of the job file: the first one is asked first.
  for (const [index, destination] of destinations.entries()) {
    const list = lists[index];
    if (list) folders.set(destination, list);
  }
  return folders;
}

function isComplete(
  folder: SnapshotFolder,
  { volumes, small }: SnapshotParts,
  known: SnapshotParts | OperationalError | undefined,
): boolean {
  const isRight = ({ name, bytes }: SmallPart) =>
    isParts(known)
      ? known.small.some((part) => part.name === name && part.bytes.equals(bytes))
      : folder.get(name)?.size === bytes.length && !(known && isDamage(known));
  return volumes.every(({ name, size }) => folder.get(name)?.size === size) && small.every(isRight);
}

/** Ids of what is a snapshot somewhere, the oldest first. */
function idsOf(lists: Iterable<ReadonlyMap<string, SnapshotFolder>>): readonly string[] {
  const ids = new Set<string>();
  for (const list of lists) for (const [id, folder] of list) if (hasManifest(folder)) ids.add(id);
  return [...ids].sort(compareIdTexts);
}
