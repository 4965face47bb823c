import type { ChunkRef, Manifest } from "./manifest.ts";

/** A chunk and what it belongs to. */
export interface ChunkPlace {
  readonly ref: ChunkRef;
  /** For people: `public.orders 2/5` is the fifth chunk of the second segment. */
  readonly label: string;
  /** Whether each row of its raw bytes ends with a newline. */
  readonly countsLines: boolean;
}

/** Gives every chunk of a snapshot with what it belongs to, in the order of the manifest. */
export function* chunkPlacesOf(manifest: Manifest): Iterable<ChunkPlace> {
  for (const { schema, name, format, segments, removed, pageMaps = [] } of manifest.tables) {
    for (const [segment, { chunks }] of segments.entries()) {
      for (const [index, ref] of chunks.entries()) {
        yield { ref, label: `${schema}.${name} ${segment + 1}/${index + 1}`, countsLines: format === "text" };
      }
    }
    for (const [index, ref] of (removed?.chunks ?? []).entries()) {
      yield { ref, label: `${schema}.${name} removed ${index + 1}`, countsLines: true };
    }
    for (const [index, ref] of pageMaps.entries()) {
      yield { ref, label: `${schema}.${name} page map ${index + 1}`, countsLines: true };
    }
  }
  for (const [index, ref] of manifest.largeObjects.chunks.entries()) {
    yield { ref, label: `large objects ${index + 1}`, countsLines: true };
  }
  for (const { path, chunks } of manifest.files) {
    for (const [index, ref] of chunks.entries()) yield { ref, label: `${path} ${index + 1}`, countsLines: false };
  }
}

/** Groups chunks by the index of their volume, each group in the order of offsets. */
export function byVolume(places: Iterable<ChunkPlace>): ReadonlyMap<number, readonly ChunkPlace[]> {
  const groups = new Map<number, ChunkPlace[]>();
  for (const place of places) {
    const group = groups.get(place.ref.volume);
    if (group) group.push(place);
    else groups.set(place.ref.volume, [place]);
  }
  for (const group of groups.values()) group.sort((left, right) => left.ref.offset - right.ref.offset);
  return groups;
}
