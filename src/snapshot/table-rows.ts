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

/** Gives the numbers of the removed rows, from 1, in ascending order, list by list. Fails with kind `archive` for anything else. */
export async function* readRemoved(
  reader: SnapshotReader,
  refs: readonly ChunkRef[],
  { signal }: { readonly signal: AbortSignal },
): AsyncGenerator<readonly number[], void> {
  let last = 0;
  for await (const bytes of reader.chunks(refs, { signal })) {
    const numbers = parseRemoved(bytes, last);
    last = numbers.at(-1) ?? last;
    if (numbers.length > 0) yield numbers;
  }
}

const [ZERO, LETTER_D] = [48, 100];
/** More than this is no exact number. */
const MOST_DIGITS = 15;

/** Reads lines `<number>d`. By hand: there may be millions of them. */
function parseRemoved(bytes: Uint8Array, before: number): readonly number[] {
  const numbers: number[] = [];
  let last = before;
  let value = 0;
  let digits = 0;
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = bytes[at] ?? 0;
    if (byte >= ZERO && byte <= ZERO + 9) {
      value = value * 10 + byte - ZERO;
      digits += 1;
      continue;
    }
    at += 1;
    const isLine = byte === LETTER_D && bytes[at] === NEWLINE && digits > 0 && digits <= MOST_DIGITS;
    if (!isLine || value <= last) throw invalidList();
    numbers.push(value);
    last = value;
    value = 0;
    digits = 0;
  }
  if (digits > 0) throw invalidList();
  return numbers;
}

function invalidList(): Error {
  return archiveError("cannot read a list of removed rows: it is not of its form", "invalid-manifest");
}

async function* withoutRemoved(
  refs: readonly ChunkRef[],
  chunks: AsyncIterable<Uint8Array>,
  removed: AsyncIterator<readonly number[], void>,
): AsyncIterable<Uint8Array> {
  /** The number of the row that the next byte belongs to. */
  let row = 1;
  const pull = async () => (await removed.next()).value ?? [];
  let list = await pull();
  let at = 0;
  /** The next row that is gone; behind the last one there is none. */
  let next = list[0] ?? Infinity;
  let index = 0;
  for await (const bytes of chunks) {
    const rows = refs[index++]?.rows ?? 0;
    if (next > row + rows) {
      row += rows;
      yield bytes;
      continue;
    }
    let from = 0;
    while (from < bytes.length && next !== Infinity) {
      if (next === row) {
        const end = bytes.indexOf(NEWLINE, from);
        // The rest of a row that goes on in the next chunk.
        if (end < 0) {
          from = bytes.length;
          break;
        }
        from = end + 1;
        row += 1;
        at += 1;
        if (at === list.length) {
          list = await pull();
          at = 0;
        }
        next = list[at] ?? Infinity;
        continue;
      }
      let end = from;
      while (row < next) {
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
    for (let end = bytes.indexOf(NEWLINE, from); end >= 0; end = bytes.indexOf(NEWLINE, end + 1)) row += 1;
  }
  if (next !== Infinity) throw invalidList();
}
