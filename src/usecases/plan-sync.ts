import { OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import { readGoodParts, type SnapshotCopy } from "../snapshot/copy-snapshot.ts";
import type { Volume } from "../snapshot/manifest.ts";
import { hasManifest, isSameFolder, listSnapshotFolders, type SnapshotFolder } from "../snapshot/snapshot-folders.ts";
import { compareIdTexts } from "../snapshot/snapshot-id.ts";
import type { SnapshotParts } from "../snapshot/snapshot-parts.ts";

export interface PlanSyncOptions {
  readonly destinations: readonly Destination[];
  readonly prefix: string;
  readonly isSource: (destination: Destination) => boolean;
  readonly onUnread: (destination: Destination, error: OperationalError) => void;
  readonly onDamaged: (error: OperationalError) => void;
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

/**
 * Compares what destinations have of one database by their listings. Manifests are read only where those differ: copies that
 * look the same have nothing to give each other, and whether their bytes are right is what verify tells.
 */
export async function planSync(options: PlanSyncOptions): Promise<SyncPlan> {
  const folders = await listAll(options);
  const missed: MissedSnapshot[] = [];
  const unknown: { id: string; error: OperationalError }[] = [];
  for (const id of idsOf(folders.values())) {
    const copies = [...folders].map(([destination, byId]) => ({ destination, folder: byId.get(id) ?? NOTHING }));
    const sources = copies.filter(({ destination }) => options.isSource(destination));
    const listed = sources.filter(({ folder }) => hasManifest(folder));
    const [first] = copies;
    if (!first || listed.length === 0 || copies.every(({ folder }) => isSameFolder(folder, first.folder))) continue;
    let parts: SnapshotParts;
    try {
      parts = await readGoodParts({ ...options, id, onFailure: options.onDamaged }, listed);
    } catch (error) {
      options.signal.throwIfAborted();
      if (!(error instanceof OperationalError)) throw error;
      unknown.push({ id, error });
      continue;
    }
    for (const target of copies) {
      if (isComplete(target.folder, parts)) continue;
      const others = sources.filter(({ destination }) => destination !== target.destination);
      missed.push({
        id,
        listed,
        sources: others.toSorted((left, right) => Number(hasManifest(right.folder)) - Number(hasManifest(left.folder))),
        target,
        lacking: parts.volumes.filter(({ name, size }) => target.folder.get(name) !== size),
      });
    }
  }
  return { missed, unknown };
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

function isComplete(folder: SnapshotFolder, { volumes, small }: SnapshotParts): boolean {
  return (
    volumes.every(({ name, size }) => folder.get(name) === size) &&
    small.every(({ name, bytes }) => folder.get(name) === bytes.length)
  );
}

/** Ids of what is a snapshot somewhere, the oldest first. */
function idsOf(lists: Iterable<ReadonlyMap<string, SnapshotFolder>>): readonly string[] {
  const ids = new Set<string>();
  for (const list of lists) for (const [id, folder] of list) if (hasManifest(folder)) ids.add(id);
  return [...ids].sort(compareIdTexts);
}
