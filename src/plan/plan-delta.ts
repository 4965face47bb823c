import type { ChangedPage, PageRange, RowPlace } from "../drivers/change-tracker.ts";
import type { PageMap } from "../snapshot/page-map.ts";

/** Pages of a cell: the rows of one cell that are read together form a segment, 8 MiB of the table. */
export const CELL_PAGES = 1024;
/** Pages that are looked at together: what is known of them is in memory at a time. */
export const SPAN_PAGES = 16 * CELL_PAGES;

/** A cell of which more than this part would come from elsewhere, or is gone, is read again as a whole. */
const MAX_CHANGED_SHARE = 0.25;
/** Segments with single rows that a span has at most: a further one takes in the rows of all of them. */
const MAX_DELTAS = 8;

/** What an earlier snapshot stored of a span. */
export interface KnownSegment {
  /** A whole cell, or a whole span for single rows. */
  readonly pages: PageRange;
  /** Where its rows were, in their order. */
  readonly map: PageMap;
  /** Numbers, from 1, of its rows that are gone; ascending. */
  readonly removed: ArrayLike<number>;
}

export interface SpanPlan {
  /** For each known segment the numbers of its rows that are gone now, ascending; undefined: nothing of it is left. */
  readonly kept: readonly (readonly number[] | undefined)[];
  /** Cells that are read again as a whole, ascending. */
  readonly reread: readonly PageRange[];
  /** Single rows that are read, ascending. */
  readonly added: readonly RowPlace[];
}

/** Counts the rows of each page of the span that are there by what was stored. */
export function countRows(span: PageRange, segments: readonly KnownSegment[]): Int32Array {
  const counts = new Int32Array(span.hi - span.lo);
  for (const segment of segments) {
    eachPage(segment, (page, rows) => {
      counts[page - span.lo] = (counts[page - span.lo] ?? 0) + rows;
    });
  }
  return counts;
}

/**
 * Decides what is stored of a span whose rows changed on these pages. Gives a text when what the server says cannot follow from
 * what was stored: then nothing that is known of the table may be used.
 */
export function planSpan(
  span: PageRange,
  segments: readonly KnownSegment[],
  changed: readonly ChangedPage[],
): SpanPlan | string {
  const removed = segments.map((segment) => Array.from(segment.removed));
  const sight = new Sight(span, changed);
  for (const [index, segment] of segments.entries()) {
    const twice = findGone(segment, sight, removed[index] ?? []);
    if (twice !== undefined) return `the base has a row of page ${twice} twice`;
  }
  const unknown = sight.pageWithUnseen(changed);
  if (unknown !== undefined) return `a row of page ${unknown} is older than the base and not in it`;
  const added: RowPlace[] = [];
  for (const { page, added: fresh } of changed) {
    for (const offset of fresh) added.push({ page, offset });
  }
  for (const numbers of removed) numbers.sort((left, right) => left - right);
  return settle(span, segments, { removed, added });
}

const KEPT = 1;
const SEEN = 2;
/** A page of 8 KiB has at most 291 line pointers. */
const MOST_ROWS = 291;

/** What is known of each line pointer of the pages that changed: there may be a million, so all of them are in one array of bytes. */
class Sight {
  readonly #first: number;
  readonly #width: number;
  /** Where the line pointers of a page begin; -1 where nothing changed. */
  readonly #starts: Int32Array;
  readonly #rows: Uint8Array;

  constructor({ lo, hi }: PageRange, changed: readonly ChangedPage[]) {
    this.#first = lo;
    this.#width = changed.reduce((most, { kept }) => Math.max(most, kept[kept.length - 1] ?? 0), MOST_ROWS) + 1;
    this.#starts = new Int32Array(hi - lo).fill(-1);
    const rows = new Uint8Array(changed.length * this.#width);
    this.#rows = rows;
    for (const [index, { page, kept }] of changed.entries()) {
      const start = index * this.#width;
      this.#starts[page - lo] = start;
      for (let at = 0; at < kept.length; at++) rows[start + (kept[at] ?? 0)] = KEPT;
    }
  }

  /** What is known of each line pointer of a page; undefined where nothing changed. */
  of(page: number): Uint8Array | undefined {
    const start = this.#starts[page - this.#first] ?? -1;
    return start < 0 ? undefined : this.#rows.subarray(start, start + this.#width);
  }

  /** A page with a row that is kept and was not seen. */
  pageWithUnseen(changed: readonly ChangedPage[]): number | undefined {
    const at = this.#rows.indexOf(KEPT);
    return at < 0 ? undefined : changed[Math.floor(at / this.#width)]?.page;
  }
}

/** Adds the rows of a segment that are on changed pages no more to `gone`; gives a page that has a row twice. */
function findGone({ map, removed }: KnownSegment, sight: Sight, gone: number[]): number | undefined {
  let number = 0;
  let at = 0;
  for (const rows of map) {
    const known = sight.of(rows.page);
    if (!known) {
      number += rows.count;
      while (at < removed.length && (removed[at] ?? 0) <= number) at += 1;
      continue;
    }
    const { offsets } = rows;
    for (let index = 0; index < offsets.length; index++) {
      number += 1;
      if (removed[at] === number) {
        at += 1;
        continue;
      }
      const offset = offsets[index] ?? 0;
      const what = known[offset];
      if (what === SEEN) return rows.page;
      // Nothing older than the base is at this place any more.
      if (what !== KEPT) gone.push(number);
      known[offset] = SEEN;
    }
  }
  return undefined;
}

type Rows = Pick<KnownSegment, "map" | "removed">;

/** Gives for each page the number of its rows that are not removed. */
function eachPage({ map, removed }: Rows, visit: (page: number, rows: number) => void): void {
  let number = 0;
  let at = 0;
  for (const rows of map) {
    const before = at;
    const { count } = rows;
    number += count;
    while (at < removed.length && (removed[at] ?? 0) <= number) at += 1;
    visit(rows.page, count - (at - before));
  }
}

function eachLiveRow({ map, removed }: Rows, visit: (page: number, offset: number, number: number) => void): void {
  let number = 0;
  let at = 0;
  for (const { page, offsets } of map) {
    for (const offset of offsets) {
      number += 1;
      if (removed[at] === number) at += 1;
      else visit(page, offset, number);
    }
  }
}

interface Changes {
  readonly removed: readonly number[][];
  readonly added: readonly RowPlace[];
}

/** Has cells read again that changed much, and single rows gathered that lie in many segments. */
function settle(span: PageRange, segments: readonly KnownSegment[], { removed, added }: Changes): SpanPlan {
  const cells = tallyCells(span, segments, { removed, added });
  const reread = [...cells]
    .filter(([, { gone, elsewhere, own }]) => gone + elsewhere > MAX_CHANGED_SHARE * (own - gone + elsewhere))
    .map(([cell]) => cell)
    .sort((left, right) => left - right);
  const isReread = new Set(reread);
  const rows = added.filter(({ page }) => !isReread.has(cellOf(page)));
  const kept = segments.map((segment, index) => {
    if (isCell(segment)) return isReread.has(cellOf(segment.pages.lo)) ? undefined : removed[index];
    return withoutCells(segment, removed[index] ?? [], isReread);
  });
  const deltas = segments.filter((segment, index) => !isCell(segment) && kept[index] !== undefined).length;
  if (deltas + (rows.length > 0 ? 1 : 0) > MAX_DELTAS) {
    for (const [index, segment] of segments.entries()) {
      if (isCell(segment)) continue;
      eachLiveRow({ map: segment.map, removed: kept[index] ?? allOf(segment) }, (page, offset) =>
        rows.push({ page, offset }),
      );
      kept[index] = undefined;
    }
  }
  rows.sort((left, right) => left.page - right.page || left.offset - right.offset);
  return {
    kept,
    reread: reread
      .map((cell) => ({ lo: cell * CELL_PAGES, hi: (cell + 1) * CELL_PAGES }))
      // A cell that lost its last row is not read: there is nothing in it.
      .filter(({ lo }) => {
        const cell = cells.get(cellOf(lo));
        return cell !== undefined && cell.own - cell.gone + cell.elsewhere > 0;
      }),
    added: rows,
  };
}

interface Tally {
  /** Rows in the segment of the cell, gone ones too. */
  own: number;
  gone: number;
  /** Rows of the cell that lie in other segments. */
  elsewhere: number;
}

function tallyCells(span: PageRange, segments: readonly KnownSegment[], { removed, added }: Changes) {
  const cells = new Map<number, Tally>();
  const tallyOf = (page: number) => {
    const known = cells.get(cellOf(page)) ?? { own: 0, gone: 0, elsewhere: 0 };
    cells.set(cellOf(page), known);
    return known;
  };
  for (const [index, segment] of segments.entries()) {
    const gone = removed[index] ?? [];
    if (isCell(segment)) {
      const tally = tallyOf(segment.pages.lo);
      tally.own += segment.map.rows;
      tally.gone += gone.length;
    } else {
      eachPage({ map: segment.map, removed: gone }, (page, rows) => {
        tallyOf(page).elsewhere += rows;
      });
    }
  }
  for (const { page } of added) if (page >= span.lo && page < span.hi) tallyOf(page).elsewhere += 1;
  return cells;
}

/** Removes the rows of cells that are read again; undefined when no row is left. */
function withoutCells(
  segment: KnownSegment,
  removed: readonly number[],
  cells: ReadonlySet<number>,
): readonly number[] | undefined {
  const all = [...removed];
  // Without a cell to look for, the line pointers of all its rows would be read in vain.
  if (cells.size > 0) {
    eachLiveRow({ map: segment.map, removed }, (page, _, number) => {
      if (cells.has(cellOf(page))) all.push(number);
    });
  }
  return all.length === segment.map.rows ? undefined : all.sort((left, right) => left - right);
}

/** Tells a segment with the rows of a whole cell from one with single rows of a span. */
export function isCell({ pages }: Pick<KnownSegment, "pages">): boolean {
  return pages.hi - pages.lo === CELL_PAGES;
}

function allOf(segment: KnownSegment): number[] {
  return Array.from({ length: segment.map.rows }, (_, index) => index + 1);
}

function cellOf(page: number): number {
  return Math.floor(page / CELL_PAGES);
}
