import { OperationalError } from "../base/errors.ts";
import type { Destination, ObjectInfo } from "../destinations/destination.ts";
import type { ChunkRef, Manifest, Volume } from "./manifest.ts";

/** A volume that lies in an archive at every destination that has it. */
export interface ArchivedVolume {
  /** Where it is to be thawed. */
  readonly destination: Destination;
  /** The snapshot in whose folder it lies. */
  readonly id: string;
  readonly key: string;
  readonly name: string;
  readonly size: number;
  readonly state: "archived" | "thawing";
}

/** What some chunks need before they can be read. */
export interface VolumeStates {
  readonly archived: readonly ArchivedVolume[];
  /** Thawed copies that nothing replaces can be read until then; undefined: no end is known. */
  readonly readableUntil?: Date | undefined;
  /** Destinations that cannot give a volume now, by the volume's key: those that can are asked first. */
  readonly closed: ReadonlyMap<string, ReadonlySet<Destination>>;
}

export interface VolumeStatesOptions {
  /** The preferred one first. */
  readonly destinations: readonly Destination[];
  readonly prefix: string;
  readonly signal: AbortSignal;
}

const STATS_AT_ONCE = 8;

/** A volume of a snapshot, or of one that it refers to. */
export interface NeededVolume {
  /** The snapshot in whose folder it lies. */
  readonly id: string;
  /** For people: that of another snapshot begins with the snapshot's id. */
  readonly name: string;
  readonly volume: Volume;
}

/** Gives the volumes that hold these chunks, each once, in their order; those of earlier snapshots come behind. */
export function volumesOf(manifest: Manifest, refs: Iterable<ChunkRef>): readonly NeededVolume[] {
  const needed = new Map<number | undefined, Set<number>>();
  for (const { snapshot, volume } of refs) {
    const indexes = needed.get(snapshot);
    if (indexes) indexes.add(volume);
    else needed.set(snapshot, new Set([volume]));
  }
  const chosen = (volumes: readonly Volume[], index?: number) =>
    volumes.filter((_, volume) => needed.get(index)?.has(volume));
  const { id, volumes, references = [] } = manifest;
  return [
    ...chosen(volumes).map((volume) => ({ id, name: volume.name, volume })),
    ...references.flatMap((reference, index) =>
      chosen(reference.volumes, index).map((volume) => ({
        id: reference.id,
        name: `${reference.id}/${volume.name}`,
        volume,
      })),
    ),
  ];
}

/**
 * Asks for the state of volumes, destination by destination until each volume is found where it can be read. A destination
 * without archives is believed to have them; one that does not answer, or does not have a volume, says nothing: the
 * read itself tells why.
 */
export async function readVolumeStates(
  options: VolumeStatesOptions,
  volumes: readonly NeededVolume[],
): Promise<VolumeStates> {
  const { destinations, prefix, signal } = options;
  const closed = new Map<string, Set<Destination>>();
  const archived: ArchivedVolume[] = [];
  const ends: Date[] = [];
  const look = async ({ id, name, volume }: NeededVolume) => {
    const key = `${prefix}/${id}/${volume.name}`;
    let found: ArchivedVolume | undefined;
    for (const destination of destinations) {
      if (!destination.thaw) return;
      const info = await statOf(destination, key, signal);
      if (info && (info.thaw === undefined || info.thaw === "thawed")) {
        if (info.thawedUntil) ends.push(info.thawedUntil);
        return;
      }
      closed.set(key, (closed.get(key) ?? new Set()).add(destination));
      if (info?.thaw === undefined || info.thaw === "thawed") continue;
      // What is on its way already is not asked for elsewhere.
      if (!found || (found.state === "archived" && info.thaw === "thawing")) {
        found = { destination, id, key, name, size: volume.size, state: info.thaw };
      }
    }
    if (found) archived.push(found);
  };
  await eachOf(volumes, STATS_AT_ONCE, look);
  archived.sort((left, right) => (left.key < right.key ? -1 : 1));
  const readableUntil = ends.sort((left, right) => left.getTime() - right.getTime())[0];
  return { archived, closed, ...(readableUntil ? { readableUntil } : {}) };
}

async function statOf(destination: Destination, key: string, signal: AbortSignal): Promise<ObjectInfo | undefined> {
  try {
    return await destination.stat(key, { signal });
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof OperationalError)) throw error;
    return undefined;
  }
}

/** Works through a list, a few at a time. The first failure ends all, once those under way have settled. */
export async function eachOf<T>(items: readonly T[], atOnce: number, work: (item: T) => Promise<void>): Promise<void> {
  const queue = items.values();
  let failure: { readonly error: unknown } | undefined;
  const worker = async () => {
    for (const item of queue) {
      if (failure) return;
      try {
        await work(item);
      } catch (error) {
        failure ??= { error };
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, worker));
  if (failure) throw failure.error;
}
