import { messageOf, OperationalError } from "../base/errors.ts";
import type { ListedPage, PageRange } from "../drivers/change-tracker.ts";
import { HASHES_BYTES, type HashedPage, type PlaceSum } from "../drivers/place-hashes.ts";
import type { RowForm } from "../drivers/row-form.ts";
import { CELL_PAGES } from "../plan/plan-delta.ts";
import { type BaseHashes, hashBase } from "./base-hashes.ts";
import { type BaseSegment, Doubt } from "./base-table.ts";
import { BASE_UNREADABLE, type SpanContext } from "./store-span.ts";

/** Cells that one statement looks at, fewer where much of a table is kept apart: a statement is silent until it ends. */
const CELLS_A_STATEMENT = 4;
const BYTES_A_STATEMENT = 64 * 1024 * 1024;
/** Pages whose rows one statement lists. */
const PAGES_A_STATEMENT = 256;

/**
 * Finds the pages of a span whose rows are not those of the base, where row headers prove nothing: the server hashes what it has,
 * rowkeep hashes what the base has, and only what differs is looked at closer, cells first, then pages, then rows. Every row is
 * hashed together with its place, so that the page maps of the base stay true. Fails with kind `archive` when the base cannot be read.
 */
export async function findChangesByHash(
  context: SpanContext,
  segments: readonly BaseSegment[],
  form: RowForm,
): Promise<readonly ListedPage[]> {
  const { table, tracker, known, span } = context;
  const base = await hashRowsOfBase(context, segments, form);
  const end = Math.min(span.hi, Math.max(known.end, await tracker.pagesOf(table)));
  const pages = await findPages(context, { base, form, end });
  const changed: ListedPage[] = [];
  for (let at = 0; at < pages.length; at += PAGES_A_STATEMENT) {
    const some = pages.slice(at, at + PAGES_A_STATEMENT);
    const live = liveRowsOf(segments, new Set(some));
    const hashed = new Map((await tracker.hashes.rows(table, { form, pages: some })).map((one) => [one.page, one]));
    for (const page of some) {
      const now = hashed.get(page);
      changed.push(now ? compareRows(now, { base, live: live.get(page) }) : { page, offsets: [], added: [] });
    }
  }
  return changed;
}

async function hashRowsOfBase(
  { base, known, span, signal }: SpanContext,
  segments: readonly BaseSegment[],
  form: RowForm,
): Promise<BaseHashes> {
  if (!base) throw new RangeError("a span is compared with a base");
  try {
    return await hashBase(segments, { reader: base.reader, table: known.stored, form, span, signal });
  } catch (cause) {
    if (!(cause instanceof OperationalError || cause instanceof RangeError)) throw cause;
    signal.throwIfAborted();
    throw new OperationalError(`the base cannot be read: ${messageOf(cause)}`, {
      kind: "archive",
      code: BASE_UNREADABLE,
      cause,
    });
  }
}

interface Search {
  readonly base: BaseHashes;
  readonly form: RowForm;
  /** The page behind the last one that has rows, in the base or now. */
  readonly end: number;
}

/** Gives the pages whose sums differ, ascending. */
async function findPages({ table, tracker, known, span }: SpanContext, { base, form, end }: Search): Promise<number[]> {
  const first = span.lo / CELL_PAGES;
  const cells = numbersOf(first, Math.ceil(end / CELL_PAGES));
  const bytesACell = table.bytes / Math.max(1, known.end / CELL_PAGES);
  const size = Math.max(1, Math.min(CELLS_A_STATEMENT, Math.floor(BYTES_A_STATEMENT / bytesACell)));
  const groups = numbersOf(0, Math.ceil(cells.length / size)).map((group) =>
    cells.slice(group * size, (group + 1) * size),
  );
  // At once: the source has as many of them done at a time as it has connections.
  const sums = await Promise.all(groups.map((units) => tracker.hashes.sums(table, { form, units, pages: CELL_PAGES })));
  const changed: number[] = [];
  for (const cell of differing(cells, sums.flat(), base, CELL_PAGES)) {
    const pages = numbersOf(cell * CELL_PAGES, Math.min(end, (cell + 1) * CELL_PAGES));
    changed.push(...differing(pages, await tracker.hashes.sums(table, { form, units: pages, pages: 1 }), base, 1));
  }
  return changed;
}

/** The units whose rows are not those of the base. */
function differing(
  units: readonly number[],
  sums: readonly PlaceSum[],
  base: BaseHashes,
  pages: number,
): readonly number[] {
  const now = new Map(sums.map((sum) => [sum.unit, sum]));
  return units.filter((unit) => {
    const known = base.sum({ lo: unit * pages, hi: (unit + 1) * pages });
    const { rows = 0, first = 0n, second = 0n } = now.get(unit) ?? {};
    return rows !== known.rows || first !== known.first || second !== known.second;
  });
}

interface LiveRow {
  readonly segment: BaseSegment;
  /** Among the rows of its segment, from 1. */
  readonly number: number;
}

/** Finds the rows that the base has on some pages, by their line pointers. */
function liveRowsOf(segments: readonly BaseSegment[], pages: ReadonlySet<number>) {
  const live = new Map<number, Map<number, LiveRow>>();
  for (const segment of segments) {
    let number = 0;
    let at = 0;
    for (const found of segment.map) {
      const { page } = found;
      if (!pages.has(page)) {
        number += found.count;
        while (at < segment.removed.length && (segment.removed[at] ?? 0) <= number) at += 1;
        continue;
      }
      const rows = live.get(page) ?? new Map<number, LiveRow>();
      live.set(page, rows);
      for (const offset of found.offsets) {
        number += 1;
        if (segment.removed[at] === number) at += 1;
        else if (rows.has(offset)) throw new Doubt(`the base has a row of page ${page} twice`);
        else rows.set(offset, { segment, number });
      }
    }
  }
  return live;
}

interface KnownRows {
  readonly base: BaseHashes;
  /** The rows that the base has on the page, by their line pointers. */
  readonly live: ReadonlyMap<number, LiveRow> | undefined;
}

function compareRows({ page, offsets, hashes }: HashedPage, { base, live }: KnownRows): ListedPage {
  const added = Array.from(offsets).filter((offset, index) => {
    const row = live?.get(offset);
    return !row || !base.has(row.segment, row.number, { hashes, start: index * HASHES_BYTES });
  });
  return { page, offsets, added };
}

function numbersOf(from: PageRange["lo"], to: PageRange["hi"]): number[] {
  return Array.from({ length: Math.max(0, to - from) }, (_, index) => from + index);
}
