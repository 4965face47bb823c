import type { StoredTable } from "../snapshot/manifest.ts";
import type { SnapshotReader } from "../snapshot/snapshot-reader.ts";

/** One stream for all segments of a text table; one for each segment of a binary one, which has its own header. */
export function* streamsOf(
  reader: SnapshotReader,
  part: StoredTable,
  signal: AbortSignal,
  count: (bytes: number) => void,
): Iterable<AsyncIterable<Uint8Array>> {
  const segments = part.segments.map(({ chunks }) => chunks);
  for (const chunks of part.format === "text" ? [segments.flat()] : segments) {
    yield counted(reader.chunks(chunks, { signal }), count);
  }
}

async function* counted(chunks: AsyncIterable<Uint8Array>, count: (bytes: number) => void): AsyncIterable<Uint8Array> {
  for await (const chunk of chunks) {
    count(chunk.length);
    yield chunk;
  }
}
