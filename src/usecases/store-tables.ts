import { OperationalError } from "../base/errors.ts";
import { sideBySide } from "../base/side-by-side.ts";
import type { ChangeTracker, PageRange, TableMark } from "../drivers/change-tracker.ts";
import { tableKey } from "../drivers/change-tracker.ts";
import type { RowFormat, Segment, SourceTable } from "../drivers/driver.ts";
import { findRewrite, isSameInstant } from "../plan/check-trust.ts";
import { CELL_PAGES, SPAN_PAGES } from "../plan/plan-delta.ts";
import type { StoredTable } from "../snapshot/manifest.ts";
import { adoptTable, assembleTable, rangesOf, type SegmentPart, type TableContent } from "./assemble-table.ts";
import { BaseTable, Doubt } from "./base-table.ts";
import { distrustBase } from "./distrust-base.ts";
import { storeScan } from "./store-scan.ts";
import { storeRows, type StoreTablesOptions } from "./store-rows.ts";
import { HASH_FAILED, openServerHash, type ServerHash } from "./server-hash.ts";
import {
  BASE_UNREADABLE,
  type FindChanges,
  type MapPlace,
  type SpanContext,
  storePageMaps,
  storeSpan,
} from "./store-span.ts";
import { tellMethod, type Way } from "./tell-method.ts";

/** One try to store a table; when another one begins, nothing of this one counts. */
interface Attempt extends Way {
  readonly format: RowFormat;
  /** How all of it is read. */
  readonly way?: "ranges" | "scan" | undefined;
  /** In their order; each is filled when its work is done. */
  parts: (readonly SegmentPart[] | undefined)[];
  /** Where the rows of cells are, by the place of the cell's part. */
  readonly maps: Map<number, MapPlace>;
  left: number;
  isUnchanged: boolean;
}

interface Work {
  /** Estimate of what it reads. */
  readonly bytes: number;
  readonly run: () => Promise<void>;
}

interface Hashed {
  readonly findChanges: FindChanges;
  /** Why row headers prove nothing. */
  readonly reason: string;
}

export interface StoredTables {
  readonly tables: readonly StoredTable[];
  /** The base and the server contradicted each other: whatever else was taken over from the base must be read, too. */
  readonly isBaseDoubted: boolean;
}

/**
 * Stores the rows of all tables by streams that take work from one queue: as many as the source has connections, and where tables are
 * compared with a base one more, so that the server works for the others while one decides what changed.
 */
export async function storeTables(options: StoreTablesOptions): Promise<StoredTables> {
  const [storing] = await sideBySide<[TableStoring, ...unknown[]]>(options.signal, (signal) => {
    const opening = TableStoring.open({ ...options, signal });
    const stream = async () => (await opening).work();
    const length = options.source.concurrency + (options.base ? 1 : 0);
    return [opening, ...Array.from({ length }, stream)];
  });
  return storing.finish();
}

interface TableState {
  readonly table: SourceTable;
  readonly number: number;
  readonly name: string;
  readonly pieces: number;
  readonly mark: TableMark | string | undefined;
  readonly base: BaseTable | undefined;
  attempt: Attempt | undefined;
  isStarted: boolean;
}

class TableStoring {
  readonly #options: StoreTablesOptions;
  readonly #tables: readonly TableState[];
  readonly #queue: Work[] = [];
  /** Why nothing that row headers tell is believed. */
  #distrust: string | undefined;
  #isBaseDoubted = false;
  readonly #isSameInstant: boolean;
  #serverHash: ServerHash | undefined;

  static async open(options: StoreTablesOptions): Promise<TableStoring> {
    const { source, plan, base, signal } = options;
    const marks = await source.tracker?.marks(plan.map(({ table }) => table));
    const stored = new Map(base?.reader.manifest.tables.map((table) => [tableKey(table), table]));
    const tables = plan.map(({ table, pieces }, index): TableState => {
      const known = stored.get(tableKey(table));
      return {
        table,
        pieces,
        number: index + 1,
        name: `${table.schema}.${table.name}`,
        mark: marks?.get(tableKey(table)),
        base: base && known && new BaseTable(known, base.reader, signal),
        attempt: undefined,
        isStarted: false,
      };
    });
    const storing = new TableStoring(options, tables);
    storing.#serverHash = await storing.#openServerHash();
    // Before any stream starts: one that finds no work ends.
    for (const state of tables) await storing.#begin(state);
    // A cell of large values may be as large as a whole table: what takes long must not be begun last.
    if (source.tracker) storing.#queue.sort((left, right) => right.bytes - left.bytes);
    return storing;
  }

  constructor(options: StoreTablesOptions, tables: readonly TableState[]) {
    this.#options = options;
    this.#tables = tables;
    const { base, source } = options;
    const trust = base?.reader.manifest.trust;
    const token = source.tracker?.token;
    this.#distrust = base && distrustBase(source, base);
    this.#isSameInstant = trust !== undefined && typeof token === "object" && isSameInstant(trust, token);
  }

  async work(): Promise<void> {
    for (let work = this.#queue.shift(); work; work = this.#queue.shift()) await work.run();
  }

  async finish(): Promise<StoredTables> {
    const tables: StoredTable[] = [];
    for (const state of this.#tables) tables.push(await this.#finishTable(state));
    return { tables, isBaseDoubted: this.#isBaseDoubted };
  }

  /** Compares a table with the base where that can be trusted, or reads it in full. */
  async #begin(state: TableState): Promise<void> {
    const { base } = this.#options;
    if (!base) return this.#readInFull(state, { format: "text" });
    const reason = this.#distrust ?? whyInFull(state);
    if (reason === undefined) return this.#compare(state);
    const findChanges = this.#serverHash?.finderOf(state);
    if (findChanges) return this.#compare(state, { findChanges, reason });
    return this.#readInFull(state, { format: "text", reason });
  }

  async #openServerHash(): Promise<ServerHash | undefined> {
    const tables = this.#tables.filter((state) => (this.#distrust ?? whyInFull(state)) !== undefined);
    return openServerHash(this.#options, tables);
  }

  async #compare(state: TableState, hashed?: Hashed): Promise<void> {
    const { base: known, table } = state;
    const { tracker } = this.#options.source;
    if (!known || !tracker) throw new RangeError("a table is compared with its base");
    if (this.#isSameInstant && !hashed) {
      state.attempt = { format: "text", isDelta: true, parts: [], maps: new Map(), left: 0, isUnchanged: true };
      return;
    }
    const end = Math.max(known.end, await tracker.pagesOf(table));
    const spans = rangesOf(end, SPAN_PAGES);
    const attempt: Attempt = {
      format: "text",
      reason: hashed?.reason,
      isHashed: hashed !== undefined,
      isDelta: true,
      parts: spans.map(() => undefined),
      maps: new Map(),
      left: spans.length,
      isUnchanged: true,
    };
    state.attempt = attempt;
    const bytes = table.bytes / spans.length;
    const place = { known, tracker, findChanges: hashed?.findChanges };
    for (const [index, span] of spans.entries()) {
      this.#queue.push({ bytes, run: () => this.#compareSpan(state, attempt, { ...place, span, index }) });
    }
  }

  async #compareSpan(
    state: TableState,
    attempt: Attempt,
    { index, ...place }: Pick<SpanContext, "span" | "known" | "tracker" | "findChanges"> & { readonly index: number },
  ): Promise<void> {
    if (state.attempt !== attempt) return;
    this.#announce(state);
    try {
      const stored = await storeSpan({ ...this.#contextOf(state), ...place });
      attempt.parts[index] = stored.parts;
      attempt.isUnchanged &&= stored.isUnchanged;
      this.#count(state, attempt);
    } catch (error) {
      await this.#reconsider(state, attempt, error);
    }
  }

  /** What could not be compared is read in full; and when the server contradicted the base, so is all the rest. */
  async #reconsider(state: TableState, attempt: Attempt, error: unknown): Promise<void> {
    const isTooLarge = isTooLargeForText(error);
    const cannotBeCompared = error instanceof OperationalError && [BASE_UNREADABLE, HASH_FAILED].includes(error.code);
    // Another span of the table came to the same end before.
    if ((isTooLarge || cannotBeCompared) && state.attempt !== attempt) return;
    if (isTooLarge) return this.#readInFull(state, { format: "binary", reason: TOO_LARGE });
    if (cannotBeCompared) {
      const reason = [state.attempt?.reason, error.message].filter(Boolean).join("; ");
      return this.#readInFull(state, { format: "text", reason });
    }
    if (!(error instanceof Doubt)) throw error;
    this.#options.report({ type: "warning", message: `${state.name}: ${error.message}; every table is read in full` });
    this.#isBaseDoubted = true;
    this.#distrust ??= `${state.name}: ${error.message}`;
    for (const other of this.#tables) {
      if (other.attempt?.isDelta) await this.#readInFull(other, { format: "text", reason: this.#distrust });
    }
  }

  async #readInFull(
    state: TableState,
    { format, reason }: { readonly format: RowFormat; readonly reason?: string | undefined },
  ): Promise<void> {
    const { source } = this.#options;
    const { tracker } = source;
    const way = format === "text" ? tracker?.waysTo(state.table) : undefined;
    const attempt: Attempt = {
      format,
      way,
      reason,
      isDelta: false,
      parts: [],
      maps: new Map(),
      left: 0,
      isUnchanged: false,
    };
    state.attempt = attempt;
    const isMapped = tracker !== undefined && typeof tracker.token !== "string" && typeof state.mark === "object";
    // Always cut at the same pages, so that a change moves no more rows than those of its cell into other chunks.
    const cells = way === "ranges" ? rangesOf((await tracker?.pagesOf(state.table)) ?? 0, CELL_PAGES) : [];
    const segments = cells.length > 0 ? cells.map(segmentOf) : this.#segmentsOf(state, format, way);
    if (state.attempt !== attempt) return;
    attempt.parts = segments.map(() => undefined);
    attempt.left = segments.length;
    const bytes = state.table.bytes / segments.length;
    for (const [index, segment] of segments.entries()) {
      const cell = cells[index];
      this.#queue.push({ bytes, run: () => this.#storeSegment(state, attempt, { segment, index, cell }) });
      const isLastOfSpan = index === cells.length - 1 || (index + 1) % CELLS_A_SPAN === 0;
      if (!isMapped || !cell || !isLastOfSpan) continue;
      // Right behind its rows: the server still has their pages in memory.
      const span = { lo: Math.floor(index / CELLS_A_SPAN) * SPAN_PAGES, hi: cell.hi };
      this.#queue.push({ bytes, run: () => this.#mapSpan(state, attempt, span, tracker) });
    }
  }

  #segmentsOf(
    { table, pieces }: TableState,
    format: RowFormat,
    way: "ranges" | "scan" | undefined,
  ): readonly Segment[] {
    if (format === "binary" || way === "scan") return [{ estimatedBytes: 0 }];
    return this.#options.source.segments(table, pieces);
  }

  async #storeSegment(
    state: TableState,
    attempt: Attempt,
    { segment, index, cell }: { segment: Segment; index: number; cell: SegmentPart["pages"] },
  ): Promise<void> {
    // A sibling found a value that text cannot carry: the table is read again, this part would count for nothing.
    if (state.attempt !== attempt) return;
    this.#announce(state);
    try {
      const { format, way } = attempt;
      const context = this.#contextOf(state);
      if (way === "scan") {
        attempt.parts[index] = await storeScan(context);
      } else {
        const chunks = await storeRows({ ...context, segment, format, segmentNumber: index + 1 });
        const pages = cell ?? segment.pages;
        attempt.parts[index] = [{ ...(pages ? { pages } : {}), chunks }];
      }
      this.#count(state, attempt);
    } catch (error) {
      if (!isTooLargeForText(error) || attempt.format === "binary") throw error;
      // Nothing of this table is used that was stored as text: it is read again as a whole.
      if (state.attempt === attempt) {
        await this.#readInFull(state, { format: "binary", reason: this.#options.base && TOO_LARGE });
      }
    }
  }

  /** Notes for the next incremental where the rows of a span's cells are. */
  async #mapSpan(state: TableState, attempt: Attempt, span: PageRange, tracker: ChangeTracker): Promise<void> {
    if (state.attempt !== attempt) return;
    const first = span.lo / CELL_PAGES;
    const cells = rangesOf(span.hi - span.lo, CELL_PAGES).map(({ lo, hi }) => ({ lo: span.lo + lo, hi: span.lo + hi }));
    const maps = await storePageMaps({ ...this.#contextOf(state), tracker }, cells);
    for (const [index, map] of maps.entries()) attempt.maps.set(first + index, map);
  }

  #contextOf({ table, number, name }: TableState) {
    const { source, sink, base, signal, report } = this.#options;
    return { source, sink, base, signal, report, table, group: number, label: name };
  }

  #announce(state: TableState): void {
    if (!state.isStarted) this.#options.report({ type: "table-start", table: state.name });
    state.isStarted = true;
  }

  #count(state: TableState, attempt: Attempt): void {
    if (state.attempt !== attempt) return;
    attempt.left -= 1;
    if (attempt.left > 0) return;
    const parts = attempt.parts.flatMap((some) => some ?? []);
    const chunks = parts.flatMap((part) => part.chunks);
    const gone = parts.reduce((sum, { removed = [] }) => sum + removed.length, 0);
    const rows = chunks.reduce((sum, chunk) => sum + chunk.rows, -gone);
    const storedBytes = chunks.reduce((sum, chunk) => sum + (chunk.snapshot === undefined ? chunk.size : 0), 0);
    this.#options.report({ type: "table-done", table: state.name, rows, storedBytes });
  }

  async #finishTable(state: TableState): Promise<StoredTable> {
    const { table, attempt } = state;
    if (!attempt) throw new RangeError("a table was not stored");
    const content = await this.#contentOf(state, attempt);
    const { isMapped, ...stored } = content;
    const { method, reason } = tellMethod(attempt, content, state.base?.stored);
    return {
      schema: table.schema,
      name: table.name,
      columns: table.columns,
      primaryKey: table.primaryKey,
      ...(table.partitionRoot ? { partitionRoot: table.partitionRoot } : {}),
      ...(table.isRootPartial ? { isRootPartial: true } : {}),
      ...(table.condition ? { condition: table.condition } : {}),
      format: attempt.format,
      method,
      ...(reason ? { reason } : {}),
      ...stored,
      ...(isMapped && typeof state.mark === "object" && attempt.format === "text" ? { mark: state.mark } : {}),
    };
  }

  async #contentOf(state: TableState, attempt: Attempt): Promise<TableContent> {
    const { base, sink } = this.#options;
    if (attempt.isDelta && attempt.isUnchanged && base && state.base) return adoptTable(state.base.stored, base.book);
    const parts = attempt.parts.flatMap((part, index) => {
      if (!part) throw new RangeError(`a part of ${state.name} was not stored`);
      const map = attempt.maps.get(index);
      return map ? part.map((segment) => ({ ...segment, ...map })) : part;
    });
    return assembleTable(parts, { sink, group: state.number, label: state.name });
  }
}

const CELLS_A_SPAN = SPAN_PAGES / CELL_PAGES;
const TOO_LARGE = "a value is too large for text";

/** The last one is open, so that nothing is lost whatever the server says of its size. */
function segmentOf(pages: PageRange, index: number, cells: readonly unknown[]): Segment {
  return { pages: index === cells.length - 1 ? { lo: pages.lo } : pages, estimatedBytes: 0 };
}

function whyInFull({ base, mark }: TableState): string | undefined {
  if (!base) return "it is not in the base";
  if (base.stored.format !== "text") return "it is stored in binary";
  return findRewrite(base.stored.mark, mark);
}

function isTooLargeForText(error: unknown): boolean {
  return error instanceof OperationalError && error.code === "value-too-large";
}
