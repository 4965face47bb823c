import {
  type ChangedPage,
  type ChangesQuestion,
  type ChangeTracker,
  type PageRange,
  type PageRows,
  type PlacedBytes,
  type RangeRows,
  type RowPlace,
  type TableMark,
  type TrustToken,
  tableKey,
} from "../change-tracker.ts";
import type { RowOptions, SourceTable } from "../driver.ts";
import type { PlaceHashes } from "../place-hashes.ts";
import { type Ask, findChangedPages, listPages } from "./postgres-changed-pages.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { readTableMarks } from "./postgres-marks.ts";
import { PostgresPlaceHashes } from "./postgres-place-hashes.ts";
import { offsetList, offsetsOf, onPage } from "./postgres-page-sql.ts";
import { quoteIdentifier, quoteLiteral, quoteName } from "./postgres-quote.ts";
import { placedCopy, placedRows } from "./postgres-placed-rows.ts";
import { canCountRows, headerXidOf, type RangeQuestion, readRangeRows } from "./postgres-range-rows.ts";
import { storedColumns } from "./postgres-rows.ts";
import { lockLikeLeader } from "./postgres-table-lock.ts";
import type { CatalogTable } from "./postgres-tables.ts";
import { hashTid } from "./postgres-tid-hash.ts";
import { asSchemaLocked } from "./schema-changed.ts";

const MIN_VERSION = 140000;
const PAGE_BYTES = "8192";

/** Beyond this share of pages with holes one scan that reads all line pointers is cheaper than two. */
const HOLED_SHARE = 0.3;

/** Rows that one statement asks for by their places: its text grows by some ten bytes for each. */
const PLACES_A_STATEMENT = 10_000;

/**
 * Reads what the server says of its history. Call it right behind the snapshot, in its transaction. A text says why the
 * row headers of this server prove nothing.
 */
export async function readTrustToken(leader: PostgresClient): Promise<TrustToken | string> {
  if (leader.serverVersion < MIN_VERSION) return "a server before version 14 cannot read ranges of pages";
  if (leader.isPooled) return "a pooler stands between";
  const [facts] = await leader.query(
    `select pg_is_in_recovery(), has_function_privilege('pg_control_system()', 'execute'), current_setting('block_size')`,
  );
  if (facts?.[0] !== "f") return "the server is a replica";
  if (facts[1] !== "t") return "this login may not read pg_control_system()";
  if (facts[2] !== PAGE_BYTES) return `pages of ${facts[2]} bytes are not known`;
  const [row] = await leader.query(
    `select (select system_identifier from pg_control_system()),
            d.oid, d.xmin,
            substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8),
            extract(epoch from pg_postmaster_start_time())::text,
            pg_current_snapshot()::text, pg_snapshot_xmin(pg_current_snapshot())::text,
            (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::text
       from pg_database d where d.datname = current_database()`,
  );
  const [systemIdentifier, databaseOid, databaseXmin, timeline, startedAt, snapshot, xmin, lsn] = row ?? [];
  if (!systemIdentifier || !databaseOid || !databaseXmin || !timeline || !startedAt || !snapshot || !xmin || !lsn) {
    return "the server does not tell its history";
  }
  const major = Math.floor(leader.serverVersion / 10_000);
  return { systemIdentifier, databaseOid, databaseXmin, timeline, startedAt, major, snapshot, xmin, lsn };
}

export interface TrackerParts {
  readonly leader: PostgresClient;
  readonly token: TrustToken | string;
  readonly isSetBack: boolean;
  /** In which the server holds text. */
  readonly encoding: string;
  /** Lends a connection that shares the snapshot. */
  readonly withWorker: <T>(use: (worker: PostgresClient) => Promise<T>) => Promise<T>;
  /** Commits an empty transaction with a number of its own, in another session: it writes nothing but the end of the log. */
  readonly commitNothing: () => Promise<void>;
  /** Streams a COPY of text on such a connection. */
  readonly copy: (
    options: RowOptions,
    prepare: (worker: PostgresClient) => Promise<string>,
  ) => AsyncIterable<{ readonly bytes: Uint8Array }>;
}

/**
 * For the transactions of a tracked source. A page is found by its number, never by a scan of the whole table; and rows of a range
 * come in their physical order, which page maps stand on.
 */
export const SCAN_SETTINGS = `set local enable_tidscan = on; set local enable_seqscan = off;
  set local max_parallel_workers_per_gather = 0; set local synchronize_seqscans = off`;

export class PostgresTracker implements ChangeTracker {
  readonly token: TrustToken | string;
  readonly isSetBack: boolean;
  readonly hashes: PlaceHashes;
  readonly #parts: TrackerParts;
  readonly #pages = new Map<CatalogTable["oid"], Promise<number>>();
  /** Tables of which the last scan found many pages with holes. */
  readonly #hasHoles = new Set<string>();
  /** Tables whose pages lose rows without getting new ones: their groups of pages are counted at once. */
  readonly #isLosing = new Set<string>();
  #canCount: Promise<boolean> | undefined;
  /** The end of the log that must be on the server's disk. */
  #lsn: string;

  constructor(parts: TrackerParts) {
    this.token = parts.token;
    this.#lsn = typeof parts.token === "string" ? "0" : parts.token.lsn;
    this.isSetBack = parts.isSetBack;
    this.hashes = new PostgresPlaceHashes(parts.withWorker, parts.encoding);
    this.#parts = parts;
  }

  waysTo(table: SourceTable): "ranges" | "scan" | undefined {
    if (!(table as CatalogTable).isHeap || storedColumns(table).length === 0) return undefined;
    return this.#parts.leader.serverVersion < MIN_VERSION ? "scan" : "ranges";
  }

  async marks(tables: readonly SourceTable[]): Promise<ReadonlyMap<string, TableMark | string>> {
    const known = tables as readonly CatalogTable[];
    const { token } = this;
    // A server that is not believed may be one that is not asked in this way: version 13 has no multiranges.
    if (typeof token === "string") return new Map(known.map((table) => [tableKey(table), token]));
    const marks = new Map<string, TableMark | string>();
    const read = await readTableMarks(
      this.#parts.leader,
      known.map(({ oid }) => oid),
    ).catch((error: unknown) => {
      throw asSchemaLocked("cannot read what the tables are", error);
    });
    for (const table of known) {
      const doubt = doubtOf(table) ?? read.get(table.oid) ?? "its definition could not be read";
      marks.set(tableKey(table), doubt);
    }
    return marks;
  }

  async pagesOf(table: SourceTable): Promise<number> {
    const { oid } = table as CatalogTable;
    const known = this.#pages.get(oid) ?? this.#readPages(table);
    this.#pages.set(oid, known);
    return known;
  }

  /** Once for each table: pages that come later hold no row of the snapshot, and our lock keeps those that are there. */
  async #readPages(table: SourceTable): Promise<number> {
    const sql = "select pg_relation_size($1::oid::regclass, 'main') / 8192";
    // Even its size is read behind a lock.
    const [row] = await this.#scan(table, () => ({ sql, values: [(table as CatalogTable).oid] }));
    return Number(row?.[0] ?? 0);
  }

  async pageRows(table: SourceTable, { lo, hi }: PageRange): Promise<readonly PageRows[]> {
    const key = tableKey(table);
    const rows = await this.#scan(table, () => ({
      sql: mapScan(nameOf(table), this.#hasHoles.has(key)),
      values: [lo, hi - 1],
    }));
    const dense = new Map<number, readonly number[]>();
    let holed = 0;
    let last = -1;
    let isSorted = true;
    const pages = rows.map(([page, count, offsets]): PageRows => {
      const number = Number(page);
      isSorted &&= number > last;
      last = number;
      // A list as long as its last line pointer is one without holes.
      const isDense = offsets === null || offsets === undefined || offsets.endsWith(hexOf(Number(count)));
      if (!isDense) holed += 1;
      return { page: number, offsets: isDense ? denseOffsets(Number(count), dense) : offsetsOf(offsets) };
    });
    if (holed > HOLED_SHARE * (hi - lo)) this.#hasHoles.add(key);
    else this.#hasHoles.delete(key);
    return isSorted ? pages : pages.sort((left, right) => left.page - right.page);
  }

  async rangeRows(table: SourceTable, range: RangeQuestion): Promise<RangeRows | undefined> {
    if (this.#isLosing.has(tableKey(table))) return undefined;
    const scanned = { oid: (table as CatalogTable).oid, name: nameOf(table) };
    return this.#parts.withWorker(async (worker) => {
      this.#canCount ??= canCountRows(worker);
      if (!(await this.#canCount)) return undefined;
      await lockLikeLeader(worker, table);
      return readRangeRows(worker, scanned, range);
    });
  }

  async changedPages(table: SourceTable, { since, ...question }: ChangesQuestion): Promise<readonly ChangedPage[]> {
    const found = await findChangedPages(this.#asking(table), {
      ...question,
      name: nameOf(table),
      xid: headerXidOf(since),
    });
    if (found.hasLost) this.#isLosing.add(tableKey(table));
    return found.changed;
  }

  readonly hashPlace = hashTid;

  listPages(table: SourceTable, pages: readonly number[]): Promise<readonly PageRows[]> {
    return listPages(this.#asking(table), nameOf(table), pages);
  }

  async *rowsAt(
    table: SourceTable,
    places: readonly RowPlace[],
    options: RowOptions,
  ): AsyncIterable<Iterable<PlacedBytes>> {
    const columns = storedColumns(table).map((column) => `t.${quoteIdentifier(column)}`);
    for (let at = 0; at < places.length; at += PLACES_A_STATEMENT) {
      const wanted = places.slice(at, at + PLACES_A_STATEMENT).map(({ page, offset }) => `"(${page},${offset})"`);
      const batches = this.#parts.copy(options, async (worker) => {
        await lockLikeLeader(worker, table);
        return `copy (select t.ctid, ${columns.join(", ")} from only ${nameOf(table)} t
                       where t.ctid = any (${quoteLiteral(`{${wanted.join(",")}}`)}::pg_catalog.tid[])) to stdout`;
      });
      yield* placedRows(batches);
    }
  }

  async *scan(table: SourceTable, options: RowOptions): AsyncIterable<Iterable<PlacedBytes>> {
    const batches = this.#parts.copy(options, async (worker) => {
      await lockLikeLeader(worker, table);
      return placedCopy(table);
    });
    yield* placedRows(batches);
  }

  /** Functions that write definitions look at what is committed when they run, which the token does not know. */
  async noteDefinitionsRead(): Promise<void> {
    if (typeof this.token === "string") return;
    const [row] = await this.#parts.leader.query("select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::text");
    this.#lsn = row?.[0] ?? this.#lsn;
  }

  async isDurable(): Promise<boolean> {
    const { leader, token } = this.#parts;
    if (typeof token === "string") return false;
    for (let attempt = 1; attempt <= DURABLE_ATTEMPTS; attempt += 1) {
      // A log that ends with anything but a commit may stay in memory for as long as nobody commits.
      if (attempt === 2) await this.#parts.commitNothing();
      const [row] = await leader.query("select (pg_current_wal_flush_lsn() - '0/0'::pg_lsn) >= $1::numeric", [
        this.#lsn,
      ]);
      if (row?.[0] === "t") return true;
      await leader.query("select pg_sleep(0.1)");
    }
    return false;
  }

  #asking(table: SourceTable): Ask {
    return (sql, values) => this.#scan(table, () => ({ sql, values }));
  }

  /** The statement is chosen when its turn has come: earlier ones tell what suits the table. */
  async #scan(table: SourceTable, choose: () => { readonly sql: string; readonly values: readonly unknown[] }) {
    return this.#parts.withWorker(async (worker) => {
      await lockLikeLeader(worker, table);
      const { sql, values } = choose();
      return worker.query(sql, values);
    });
  }
}

/** The writer of the log flushes by itself several times a second. */
const DURABLE_ATTEMPTS = 20;

/** Why the headers of this table tell nothing. */
function doubtOf(table: CatalogTable): string | undefined {
  if (!table.isHeap) return "it is not stored as a heap";
  if (table.condition) return "only some of its rows belong to the backup";
  if (storedColumns(table).length === 0) return "it has no columns";
  if (table.isUnlogged) return "it is unlogged";
  return undefined;
}

function nameOf(table: SourceTable): string {
  return quoteName(table.schema, table.name);
}

/**
 * Renders the scan of pages $1 to $2 for the places of their rows. A page without holes tells its line pointers by their number, so
 * that they are read by a second scan of the other pages; where most pages have holes, one scan that reads all is cheaper.
 */
function mapScan(name: string, hasHoles: boolean): string {
  if (hasHoles) {
    return `
      select g.page, c.n, c.offsets
        from generate_series($1::bigint, $2::bigint) g(page)
       cross join lateral (
               select count(*)::int as n, ${offsetList("x")} as offsets from only ${name} x where ${onPage("x")}) c
       where c.n > 0`;
  }
  return `
      select g.page, c.n, d.offsets
        from generate_series($1::bigint, $2::bigint) g(page)
       cross join lateral (
               select count(*)::int as n, max(x.ctid) as last from only ${name} x where ${onPage("x")}) c
        left join lateral (
               select ${offsetList("y")} as offsets from only ${name} y
                where ${onPage("y")} and c.last <> format('(%s,%s)', g.page, c.n)::tid) d on true
       where c.n > 0`;
}

function denseOffsets(count: number, known: Map<number, readonly number[]>): readonly number[] {
  const offsets = known.get(count) ?? Array.from({ length: count }, (_, index) => index + 1);
  known.set(count, offsets);
  return offsets;
}

function hexOf(offset: number): string {
  return offset.toString(16).padStart(4, "0");
}
