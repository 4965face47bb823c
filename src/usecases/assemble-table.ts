import type { PageRange } from "../drivers/change-tracker.ts";
import type { ChunkRef, StoredSegment, StoredTable } from "../snapshot/manifest.ts";
import type { ReferenceBook } from "../snapshot/reference-book.ts";
import { storedRowsOf } from "./base-table.ts";
import type { ChunkSink } from "./reuse-chunks.ts";

/** A segment of a table as it was stored, or taken over. */
export interface SegmentPart {
  readonly pages?: StoredSegment["pages"];
  readonly chunks: readonly ChunkRef[];
  readonly pageMap?: { readonly chunk: ChunkRef; readonly line: number } | undefined;
  /** Rows by the page map. */
  readonly mappedRows?: number | undefined;
  /** Numbers of its rows that are gone; ascending. */
  readonly removed?: readonly number[] | undefined;
}

export type TableContent = Pick<
  StoredTable,
  "rows" | "rawBytes" | "storedBytes" | "segments" | "removed" | "pageMaps"
> & {
  /** Each segment has a page map that agrees with its rows. */
  readonly isMapped: boolean;
};

const LIST_BYTES = 1024 * 1024;

export interface AssembleOptions {
  readonly sink: ChunkSink;
  /** Number and name of the table, for the names of entries. */
  readonly group: number;
  readonly label: string;
}

/** Makes one table of its segments, in this order. Stores the list of the removed rows. */
export async function assembleTable(parts: readonly SegmentPart[], options: AssembleOptions): Promise<TableContent> {
  const isMapped = parts.every(({ pageMap, mappedRows, chunks }) => pageMap && mappedRows === storedRowsOf({ chunks }));
  const maps = new Map<string, number>();
  const pageMaps: ChunkRef[] = [];
  const segments = parts.map(({ pages, chunks, pageMap }): StoredSegment => {
    if (!isMapped || !pageMap) return { ...(pages ? { pages } : {}), chunks };
    const { snapshot, volume, offset } = pageMap.chunk;
    const key = `${snapshot}/${volume}/${offset}`;
    const map = maps.get(key) ?? pageMaps.push(pageMap.chunk) - 1;
    maps.set(key, map);
    return { ...(pages ? { pages } : {}), pageMap: { map, line: pageMap.line }, chunks };
  });
  const removed = await storeRemoved(parts, options);
  const gone = removed?.rows ?? 0;
  const total = { rows: 0 - gone, rawBytes: 0, storedBytes: 0 };
  for (const chunk of parts.flatMap(({ chunks }) => chunks)) {
    total.rows += chunk.rows;
    total.rawBytes += chunk.rawSize;
    total.storedBytes += chunk.size;
  }
  return { ...total, segments, isMapped, ...(removed ? { removed } : {}), ...(isMapped ? { pageMaps } : {}) };
}

async function storeRemoved(
  parts: readonly SegmentPart[],
  { sink, group, label }: AssembleOptions,
): Promise<StoredTable["removed"]> {
  const chunks: ChunkRef[] = [];
  let lines: string[] = [];
  let bytes = 0;
  let rows = 0;
  const flush = async () => {
    if (lines.length === 0) return;
    const entry = { group, label, segment: 0, index: chunks.length + 1, extension: "removed" };
    chunks.push(await sink.addChunk(entry, Buffer.from(lines.join("")), lines.length));
    rows += lines.length;
    lines = [];
    bytes = 0;
  };
  let before = 0;
  for (const part of parts) {
    for (const number of part.removed ?? []) {
      const line = `${before + number}d\n`;
      lines.push(line);
      bytes += line.length;
      if (bytes >= LIST_BYTES) await flush();
    }
    before += storedRowsOf(part);
  }
  await flush();
  return rows > 0 ? { rows, chunks } : undefined;
}

/** Takes a table of the base over as it is. */
export function adoptTable(stored: StoredTable, book: ReferenceBook): TableContent {
  const adopt = (chunk: ChunkRef) => book.adopt(chunk);
  const { rows, rawBytes, storedBytes, removed, pageMaps } = stored;
  return {
    rows,
    rawBytes,
    storedBytes,
    isMapped: true,
    segments: stored.segments.map((segment) => ({ ...segment, chunks: segment.chunks.map(adopt) })),
    ...(removed ? { removed: { rows: removed.rows, chunks: removed.chunks.map(adopt) } } : {}),
    ...(pageMaps ? { pageMaps: pageMaps.map(adopt) } : {}),
  };
}

/** Cuts pages 0 to `end` into ranges of this size; the last one is whole too. */
export function rangesOf(end: number, size: number): readonly PageRange[] {
  return Array.from({ length: Math.max(1, Math.ceil(end / size)) }, (_, index) => ({
    lo: index * size,
    hi: (index + 1) * size,
  }));
}
