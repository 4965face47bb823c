import type { PageRange } from "../drivers/change-tracker.ts";
import type { KnownSegment } from "../plan/find-gone.ts";
import { CELL_PAGES, isCell, SPAN_PAGES } from "../plan/plan-delta.ts";
import type { ChunkRef, StoredSegment, StoredTable } from "../snapshot/manifest.ts";
import { parsePageMap } from "../snapshot/page-map.ts";
import type { SnapshotReader } from "../snapshot/snapshot-reader.ts";
import { readRemoved } from "../snapshot/table-rows.ts";

/** What the base says contradicts itself, or what the server says now: nothing that row headers tell is believed any more. */
export class Doubt extends Error {
  override readonly name = "Doubt";
}

/** A segment of the base, with what its manifest tells of it. */
export interface OutlinedSegment extends Omit<KnownSegment, "map"> {
  readonly removed: readonly number[];
  readonly stored: StoredSegment;
  readonly pageMap: { readonly chunk: ChunkRef; readonly line: number };
}

/** The same, with where its rows were. */
export interface BaseSegment extends OutlinedSegment {
  readonly map: KnownSegment["map"];
}

const NEWLINE = 10;
const NO_LINE = new Uint8Array();

/** Reads what an earlier snapshot tells of one table. */
export class BaseTable {
  readonly stored: StoredTable;
  /** The last span that was compared had changes. */
  isChanging = false;
  readonly #reader: SnapshotReader;
  readonly #signal: AbortSignal;
  #removed: Promise<readonly (readonly number[])[]> | undefined;

  constructor(stored: StoredTable, reader: SnapshotReader, signal: AbortSignal) {
    this.stored = stored;
    this.#reader = reader;
    this.#signal = signal;
  }

  /** The page behind the last one that held a row. */
  get end(): number {
    return Math.max(0, ...this.stored.segments.map(({ pages }) => pages?.hi ?? 0));
  }

  /** Gives the segments of one span without their page maps. Fails with kind `archive` or `destination`, or with a Doubt. */
  async outlineOf(span: PageRange): Promise<readonly OutlinedSegment[]> {
    const { segments, pageMaps = [] } = this.stored;
    this.#removed ??= this.#readRemoved();
    const removed = await this.#removed;
    const found: OutlinedSegment[] = [];
    for (const [index, stored] of segments.entries()) {
      const pages = rangeOf(stored);
      if (pages.lo < span.lo || pages.lo >= span.hi) continue;
      const place = stored.pageMap;
      const chunk = place && pageMaps[place.map];
      if (!place || !chunk) throw new Doubt("a segment of the base has no page map");
      found.push({ pages, removed: removed[index] ?? [], stored, pageMap: { chunk, line: place.line } });
    }
    return found;
  }

  /** Reads their page maps. Fails as `outlineOf` does. */
  async withMaps(outlines: readonly OutlinedSegment[]): Promise<readonly BaseSegment[]> {
    const lines = new Map<ChunkRef, readonly Uint8Array[]>();
    const found: BaseSegment[] = [];
    for (const outline of outlines) {
      const { chunk, line } = outline.pageMap;
      const known = lines.get(chunk) ?? (await this.#readLines(chunk));
      lines.set(chunk, known);
      const segment = { ...outline, map: parsePageMap(known[line] ?? NO_LINE) };
      assertSound(segment);
      found.push(segment);
    }
    return found;
  }

  async #readLines(chunk: ChunkRef): Promise<readonly Uint8Array[]> {
    const lines: Uint8Array[] = [];
    for await (const bytes of this.#reader.chunks([chunk], { signal: this.#signal })) {
      for (let from = 0; from < bytes.length; ) {
        const newline = bytes.indexOf(NEWLINE, from);
        const end = newline < 0 ? bytes.length : newline;
        lines.push(bytes.subarray(from, end));
        from = end + 1;
      }
    }
    return lines;
  }

  /** Gives the numbers of the removed rows segment by segment. */
  async #readRemoved(): Promise<readonly (readonly number[])[]> {
    const { segments, removed } = this.stored;
    const bySegment = segments.map((): number[] => []);
    if (!removed) return bySegment;
    let index = -1;
    let [first, end] = [0, 0];
    for await (const numbers of readRemoved(this.#reader, removed.chunks, { signal: this.#signal })) {
      for (const number of numbers) {
        while (number > end) {
          index += 1;
          const segment = segments[index];
          if (!segment) throw new Doubt("the base removes a row that it does not have");
          first = end;
          end += storedRowsOf(segment);
        }
        bySegment[index]?.push(number - first);
      }
    }
    return bySegment;
  }
}

function rangeOf({ pages }: StoredSegment): PageRange {
  if (pages?.hi === undefined) throw new Doubt("the base is not cut as it must be");
  const { lo, hi } = pages;
  const size = hi - lo;
  const isKnown = (size === CELL_PAGES || size === SPAN_PAGES) && lo % size === 0;
  if (!isKnown) throw new Doubt("the base is not cut as it must be");
  return { lo, hi };
}

function assertSound(segment: BaseSegment): void {
  const { map, pages, stored } = segment;
  const isInside = map.rows === 0 || (map.pages.lo >= pages.lo && map.pages.hi <= pages.hi);
  if (!isInside || map.rows !== storedRowsOf(stored)) {
    throw new Doubt(`the page map of a ${isCell(segment) ? "cell" : "span"} of the base is not that of its rows`);
  }
}

/** Rows in the chunks of a segment, removed ones too. */
export function storedRowsOf({ chunks }: Pick<StoredSegment, "chunks">): number {
  return chunks.reduce((sum, { rows }) => sum + rows, 0);
}
