import type { StoredTable } from "../snapshot/manifest.ts";
import type { SnapshotReader } from "../snapshot/snapshot-reader.ts";
import { readTableRows } from "../snapshot/table-rows.ts";

/** One stream for all segments of a text table; one for each segment of a binary one, which has its own header. */
export function* streamsOf(
  reader: SnapshotReader,
  part: StoredTable,
  signal: AbortSignal,
  count: (bytes: number) => void,
): Iterable<AsyncIterable<Uint8Array>> {
  if (part.format === "text") {
    yield counted(readTableRows(reader, part, { signal }), count);
    return;
  }
  for (const { chunks } of part.segments) yield counted(reader.chunks(chunks, { signal }), count);
}

async function* counted(chunks: AsyncIterable<Uint8Array>, count: (bytes: number) => void): AsyncIterable<Uint8Array> {
  for await (const chunk of chunks) {
    count(chunk.length);
    yield chunk;
  }
}
