import { archiveError } from "../archive/archive-error.ts";
import type { ChunkRef, StoredTable } from "./manifest.ts";
import type { SnapshotReader } from "./snapshot-reader.ts";

const NEWLINE = 10;

/**
 * Gives the rows of a table that is stored as text, those that were removed since left out. Bytes are whole chunks or parts of
 * them, with memory of their own. Fails as `SnapshotReader.chunks` does.
 */
export async function* readTableRows(
  reader: SnapshotReader,
  table: Pick<StoredTable, "segments" | "removed">,
  { signal }: { readonly signal: AbortSignal },
): AsyncIterable<Uint8Array> {
  const refs = table.segments.flatMap(({ chunks }) => chunks);
  yield* leaveOutRemoved(reader, table, reader.chunks(refs, { signal }), { signal });
}

/** Leaves the removed rows out of `chunks`, which are those of all segments of the table. */
export async function* leaveOutRemoved(
  reader: SnapshotReader,
  table: Pick<StoredTable, "segments" | "removed">,
  chunks: AsyncIterable<Uint8Array>,
  { signal }: { readonly signal: AbortSignal },
): AsyncIterable<Uint8Array> {
  if (!table.removed) {
    yield* chunks;
    return;
  }
  const refs = table.segments.flatMap((segment) => segment.chunks);
  const removed = readRemoved(reader, table.removed.chunks, { signal });
  try {
    yield* withoutRemoved(refs, chunks, removed);
  } finally {
    await removed.return(undefined);
  }
}

/** Gives the numbers of the removed rows, from 1, in ascending order. Fails with kind `archive` for anything else. */
export async function* readRemoved(
  reader: SnapshotReader,
  refs: readonly ChunkRef[],
  { signal }: { readonly signal: AbortSignal },
): AsyncGenerator<number, void> {
  let last = 0;
  for await (const bytes of reader.chunks(refs, { signal })) {
    const lines = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1").split("\n");
    if (lines.pop() !== "") throw invalidList();
    for (const line of lines) {
      if (!/^\d{1,15}d$/.test(line)) throw invalidList();
      const number = Number.parseInt(line, 10);
      if (number <= last) throw invalidList();
      last = number;
      yield number;
    }
  }
}

function invalidList(): Error {
  return archiveError("cannot read a list of removed rows: it is not of its form", "invalid-manifest");
}

async function* withoutRemoved(
  refs: readonly ChunkRef[],
  chunks: AsyncIterable<Uint8Array>,
  removed: AsyncIterator<number, void>,
): AsyncIterable<Uint8Array> {
  /** The number of the row that the next byte belongs to. */
  let row = 1;
  let next = await removed.next();
  let index = 0;
  for await (const bytes of chunks) {
    const rows = refs[index++]?.rows ?? 0;
    if (next.done || next.value > row + rows) {
      row += rows;
      yield bytes;
      continue;
    }
    let from = 0;
    while (from < bytes.length && !next.done) {
      if (next.value === row) {
        const end = bytes.indexOf(NEWLINE, from);
        // The rest of a row that goes on in the next chunk.
        if (end < 0) {
          from = bytes.length;
          break;
        }
        from = end + 1;
        row += 1;
        next = await removed.next();
        continue;
      }
      let end = from;
      while (row < next.value) {
        const newline = bytes.indexOf(NEWLINE, end);
        end = newline < 0 ? bytes.length : newline + 1;
        if (newline < 0) break;
        row += 1;
      }
      yield Buffer.from(bytes.subarray(from, end));
      from = end;
    }
    if (from >= bytes.length) continue;
    yield Buffer.from(bytes.subarray(from));
    for (let at = bytes.indexOf(NEWLINE, from); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) row += 1;
  }
  if (!next.done) throw invalidList();
}
