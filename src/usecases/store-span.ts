import { messageOf, OperationalError } from "../base/errors.ts";
import type {
  ChangedPage,
  ChangeTracker,
  PageRange,
  PageRows,
  RangeRows,
  RowPlace,
  TrustToken,
} from "../drivers/change-tracker.ts";
import type { SourceTable } from "../drivers/driver.ts";
import { CELL_PAGES, countRows, planSpan, type SpanPlan } from "../plan/plan-delta.ts";
import type { ChunkRef } from "../snapshot/manifest.ts";
import { renderPageMap } from "../snapshot/page-map.ts";
import type { SegmentPart } from "./assemble-table.ts";
import { RowBuffer } from "./row-buffer.ts";
import { type BaseSegment, type BaseTable, Doubt, type OutlinedSegment, storedRowsOf } from "./base-table.ts";
import { BATCH_BYTES, storeRows, type StoreTablesOptions } from "./store-rows.ts";

/** The base could not be read where it is kept. */
export const BASE_UNREADABLE = "base-unreadable";

/** Pages that one statement looks at. */
const SCAN_PAGES = 8192;

export interface TableContext extends Omit<StoreTablesOptions, "plan"> {
  readonly table: SourceTable;
  readonly group: number;
  readonly label: string;
}

export interface SpanContext extends TableContext {
  readonly known: BaseTable;
  readonly span: PageRange;
  readonly tracker: ChangeTracker;
  /** Finds the changed pages where row headers prove nothing. */
  readonly findChanges?: FindChanges | undefined;
}

export type FindChanges = (context: SpanContext, segments: readonly BaseSegment[]) => Promise<readonly ChangedPage[]>;

export interface StoredSpan {
  readonly parts: readonly SegmentPart[];
  readonly isUnchanged: boolean;
}

/**
 * Finds out what changed in a span since the base and stores it: cells that changed much as a whole, else single rows.
 * Fails with a Doubt when what the server says cannot be.
 */
export async function storeSpan(context: SpanContext): Promise<StoredSpan> {
  const { span, known, findChanges } = context;
  const outline = await ofBase(() => known.outlineOf(span));
  const read = () => ofBase(() => known.withMaps(outline));
  // The server looks at its pages while the page maps are read. Not read before they are needed for a table without changes so far.
  const ahead = findChanges || known.isChanging ? read() : undefined;
  ahead?.catch(() => undefined);
  const looks = findChanges ? [] : await lookAtRows(context);
  if (!findChanges && isUntouched(outline, looks)) {
    // Not needed here, but what was found out counts: nothing may refer to page maps that are known to be damaged.
    await ahead;
    known.isChanging = false;
    return { isUnchanged: true, parts: outline.map((segment) => takeOver(context, segment, segment.removed)) };
  }
  const mapped = ahead ?? read();
  const finding = findChanges
    ? mapped.then((found) => findChanges(context, found))
    : findByHeaders(context, mapped, looks);
  const [segments, changed] = await Promise.all([mapped, finding]);
  const plan = await planChanges(context, segments, changed);
  const isUnchanged =
    plan.added.length === 0 &&
    plan.reread.length === 0 &&
    segments.every(({ removed }, index) => plan.kept[index]?.length === removed.length);
  known.isChanging = !isUnchanged;
  const kept = segments.flatMap((segment, index): SegmentPart[] => {
    const removed = plan.kept[index];
    return removed ? [takeOver(context, segment, removed)] : [];
  });
  return { isUnchanged, parts: [...kept, ...(await storeChanges(context, plan))] };
}

async function planChanges(
  { span, table, tracker }: SpanContext,
  segments: readonly BaseSegment[],
  changed: readonly ChangedPage[],
): Promise<SpanPlan> {
  if (changed.length === 0) return { kept: segments.map(({ removed }) => removed), reread: [], added: [] };
  const { hashPlace } = tracker;
  let plan = planSpan(span, segments, { changed, hashPlace });
  if ("unclear" in plan) {
    const lists = new Map((await tracker.listPages(table, plan.unclear)).map(({ page, offsets }) => [page, offsets]));
    const told = changed.map((one): ChangedPage => {
      const offsets = lists.get(one.page);
      return offsets ? { page: one.page, offsets, added: one.added } : one;
    });
    plan = planSpan(span, segments, { changed: told, hashPlace });
  }
  if ("kept" in plan) return plan;
  throw new Doubt("doubt" in plan ? plan.doubt : `the rows of page ${plan.unclear[0]} are not told`);
}

/** Gives a segment of the base as a part of the new table, without the rows that are gone. */
function takeOver({ base }: SpanContext, segment: OutlinedSegment, removed: readonly number[]): SegmentPart {
  if (!base) throw new RangeError("a span is compared with a base");
  const { pages, stored, pageMap } = segment;
  return {
    pages,
    chunks: stored.chunks.map((chunk) => base.book.adopt(chunk)),
    pageMap: { chunk: base.book.adopt(pageMap.chunk), line: pageMap.line },
    mappedRows: storedRowsOf(stored),
    removed,
  };
}

async function ofBase<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (cause) {
    if (!(cause instanceof OperationalError)) throw cause;
    throw new OperationalError(`the base cannot be read: ${messageOf(cause)}`, {
      kind: "archive",
      code: BASE_UNREADABLE,
      cause,
    });
  }
}

interface Look {
  readonly range: PageRange;
  readonly seen: RangeRows | undefined;
}

/** At once: the source has as many of them done at a time as it has connections. */
async function lookAtRows(context: SpanContext): Promise<readonly Look[]> {
  const { table, tracker } = context;
  const since = tokenOf(context);
  const ranges = pieces(await pagesToLookAt(context));
  return Promise.all(
    ranges.map(async (range) => ({ range, seen: await tracker.rangeRows(table, { ...range, since }) })),
  );
}

/** Whether all rows of a span are those of the base: none of them is new, and there are as many. */
function isUntouched(segments: readonly OutlinedSegment[], looks: readonly Look[]): boolean {
  const expected = segments.reduce((sum, { stored, removed }) => sum + storedRowsOf(stored) - removed.length, 0);
  const rows = looks.reduce((sum, { seen }) => sum + (seen?.rows ?? 0), 0);
  return rows === expected && looks.every(({ seen }) => seen?.added.size === 0);
}

function tokenOf({ base }: SpanContext): TrustToken {
  const since = base?.reader.manifest.trust;
  if (!since) throw new RangeError("the base has no token");
  return since;
}

/** The pages of a span that hold rows, or held some. */
async function pagesToLookAt({ table, tracker, known, span }: SpanContext): Promise<PageRange> {
  return { lo: span.lo, hi: Math.min(span.hi, Math.max(known.end, await tracker.pagesOf(table))) };
}

async function findByHeaders(
  context: SpanContext,
  segments: Promise<readonly BaseSegment[]>,
  looks: readonly Look[],
): Promise<readonly ChangedPage[]> {
  const { table, tracker, span } = context;
  const since = tokenOf(context);
  let counted: Promise<Int32Array> | undefined;
  const countsOf = async ({ lo, hi }: PageRange) => {
    counted ??= segments.then((found) => countRows(span, found));
    return (await counted).subarray(lo - span.lo, hi - span.lo);
  };
  const found = await Promise.all(
    looks.map(({ range, seen }) =>
      tracker.changedPages(table, { ...range, since, seen, counts: () => countsOf(range) }),
    ),
  );
  return found.flat();
}

/** Cuts a span into ranges for one statement each. */
function pieces({ lo, hi }: PageRange): readonly PageRange[] {
  const count = Math.max(0, Math.ceil((hi - lo) / SCAN_PAGES));
  return Array.from({ length: count }, (_, index) => ({
    lo: lo + index * SCAN_PAGES,
    hi: Math.min(hi, lo + (index + 1) * SCAN_PAGES),
  }));
}

async function storeChanges(context: SpanContext, plan: SpanPlan): Promise<readonly SegmentPart[]> {
  const { span, tracker } = context;
  if (plan.reread.length === 0 && plan.added.length === 0) return [];
  const stored: { readonly pages: PageRange; readonly chunks: readonly ChunkRef[] }[] = [];
  for (const pages of plan.reread) {
    const segmentNumber = pages.lo / CELL_PAGES + 1;
    const segment = { pages, estimatedBytes: 0 };
    stored.push({ pages, chunks: await storeRows({ ...context, segment, segmentNumber, format: "text" }) });
  }
  const maps: (readonly PageRows[])[] = [];
  for (const pages of plan.reread) maps.push(await pageRowsOf(context, tracker, pages));
  if (plan.added.length > 0) {
    stored.push({ pages: span, chunks: await storeSingleRows(context, plan.added) });
    maps.push(pagesOf(plan.added));
  }
  const places = await storeMaps(context, maps, span);
  return stored.map((part, index) => ({ ...part, ...places[index] }));
}

/** Stores rows by their places; their order is that of the places. A row that is longer than a chunk goes into several. */
async function storeSingleRows(context: SpanContext, places: readonly RowPlace[]): Promise<readonly ChunkRef[]> {
  const { tracker, table, sink, group, label, span, signal, report } = context;
  const name = { group, label: `${label}-rows`, segment: span.lo / CELL_PAGES + 1, extension: "tsv" };
  const chunks: ChunkRef[] = [];
  const buffer = new RowBuffer();
  let at = 0;
  const flush = async () => {
    if (buffer.length === 0) return;
    const { bytes, rows } = buffer.take();
    chunks.push(await sink.addChunk({ ...name, index: chunks.length + 1 }, bytes, rows));
    report({ type: "rows", table: label, rows, bytes: bytes.length });
  };
  for await (const pieces of tracker.rowsAt(table, places, { batchBytes: BATCH_BYTES, signal })) {
    for (const { page, offset, bytes, isEnd } of pieces) {
      const place = places[at];
      if (place?.page !== page || place.offset !== offset) throw new Doubt("rows came in another order");
      if (buffer.length > 0 && buffer.length + bytes.length > BATCH_BYTES) await flush();
      buffer.append(bytes);
      if (!isEnd) continue;
      buffer.rows += 1;
      at += 1;
    }
  }
  await flush();
  if (at !== places.length) throw new Doubt("rows that were seen could not be read");
  return chunks;
}

function pagesOf(places: readonly RowPlace[]): readonly PageRows[] {
  const pages: { page: number; offsets: number[] }[] = [];
  for (const { page, offset } of places) {
    const last = pages.at(-1);
    if (last?.page === page) last.offsets.push(offset);
    else pages.push({ page, offsets: [offset] });
  }
  return pages;
}

async function pageRowsOf(
  { table }: TableContext,
  tracker: ChangeTracker,
  { lo, hi }: PageRange,
): Promise<readonly PageRows[]> {
  const end = Math.min(hi, Math.max(lo, await tracker.pagesOf(table)));
  return end > lo ? tracker.pageRows(table, { lo, hi: end }) : [];
}

export type MapPlace = Pick<SegmentPart, "pageMap" | "mappedRows">;

/** Reads and stores where the rows of neighbouring cells are, in one chunk. */
export async function storePageMaps(
  context: TableContext & { readonly tracker: ChangeTracker },
  cells: readonly PageRange[],
): Promise<readonly MapPlace[]> {
  const span = { lo: cells[0]?.lo ?? 0, hi: cells.at(-1)?.hi ?? 0 };
  const parts = await Promise.all(pieces(span).map((range) => pageRowsOf(context, context.tracker, range)));
  const maps = cells.map((): PageRows[] => []);
  for (const rows of parts.flat()) maps[Math.floor((rows.page - span.lo) / CELL_PAGES)]?.push(rows);
  return storeMaps(context, maps, span);
}

async function storeMaps(
  { sink, group, label }: TableContext,
  maps: readonly (readonly PageRows[])[],
  span: PageRange,
): Promise<readonly MapPlace[]> {
  const text = maps.map((map) => `${renderPageMap(map)}\n`).join("");
  const entry = { group, label, segment: 0, index: span.lo / CELL_PAGES + 1, extension: "pages" };
  const chunk = await sink.addChunk(entry, Buffer.from(text), maps.length);
  return maps.map((map, line) => {
    const mappedRows = map.reduce((sum, { offsets }) => sum + offsets.length, 0);
    return { pageMap: { chunk, line }, mappedRows };
  });
}
