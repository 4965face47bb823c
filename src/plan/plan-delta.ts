import type { PageRange, RowPlace } from "../drivers/change-tracker.ts";
import { findGone, type GoneQuestion, type GoneRows, type KnownSegment } from "./find-gone.ts";

/** Pages of a cell: the rows of one cell that are read together form a segment, 8 MiB of the table. */
export const CELL_PAGES = 1024;
/** Pages that are looked at together: what is known of them is in memory at a time. */
export const SPAN_PAGES = 16 * CELL_PAGES;

/** A cell of which more than this part would come from elsewhere, or is gone, is read again as a whole. */
const MAX_CHANGED_SHARE = 0.25;
/** Segments with single rows that a span has at most: a further one takes in the rows of all of them. */
const MAX_DELTAS = 8;

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

/** The pages of which their sums do not tell enough, or why nothing that is known of the table may be used. */
export type NoPlan = Exclude<GoneRows, { readonly gone: unknown }>;

/** Decides what is stored of a span whose rows changed on these pages. */
export function planSpan(
  span: PageRange,
  segments: readonly KnownSegment[],
  question: GoneQuestion,
): SpanPlan | NoPlan {
  const found = findGone(span, segments, question);
  if (!("gone" in found)) return found;
  const removed = segments.map((segment, index) =>
    [...Array.from(segment.removed), ...(found.gone[index] ?? [])].sort((left, right) => left - right),
  );
  const added: RowPlace[] = [];
  for (const { page, added: fresh } of question.changed) {
    for (const offset of fresh) added.push({ page, offset });
  }
  return settle(span, segments, { removed, added });
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
