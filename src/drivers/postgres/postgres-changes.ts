import {
  type ChangedPage,
  type ChangeTracker,
  type PageRange,
  type PageRows,
  type PlacedBytes,
  type PlacedRow,
  type RowPlace,
  type TableMark,
  type TrustToken,
  tableKey,
} from "../change-tracker.ts";
import type { RowOptions, SourceTable } from "../driver.ts";
import type { PlaceHashes } from "../place-hashes.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { readTableMarks } from "./postgres-marks.ts";
import { PostgresPlaceHashes } from "./postgres-place-hashes.ts";
import { quoteIdentifier, quoteLiteral, quoteName } from "./postgres-quote.ts";
import { placedBytes, placedCopy } from "./postgres-placed-rows.ts";
import { storedColumns } from "./postgres-rows.ts";
import type { CatalogTable } from "./postgres-tables.ts";

const MIN_VERSION = 140000;
const PAGE_BYTES = "8192";

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
            (select oid from pg_database where datname = current_database()),
            substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8),
            extract(epoch from pg_postmaster_start_time())::text,
            pg_current_snapshot()::text, pg_snapshot_xmin(pg_current_snapshot())::text,
            (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::text`,
  );
  const [systemIdentifier, databaseOid, timeline, startedAt, snapshot, xmin, lsn] = row ?? [];
  if (!systemIdentifier || !databaseOid || !timeline || !startedAt || !snapshot || !xmin || !lsn) {
    return "the server does not tell its history";
  }
  const major = Math.floor(leader.serverVersion / 10_000);
  return { systemIdentifier, databaseOid, timeline, startedAt, major, snapshot, xmin, lsn };
}

export interface TrackerParts {
  readonly leader: PostgresClient;
  readonly token: TrustToken | string;
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
  set local max_parallel_workers_per_gather = 0; set local synchronize_seqscans = off; set local jit = off`;

export class PostgresTracker implements ChangeTracker {
  readonly token: TrustToken | string;
  readonly hashes: PlaceHashes;
  readonly #parts: TrackerParts;

  constructor(parts: TrackerParts) {
    this.token = parts.token;
    this.hashes = new PostgresPlaceHashes(parts.withWorker, parts.encoding);
    this.#parts = parts;
  }

  waysTo(table: SourceTable): "ranges" | "scan" | undefined {
    if (!(table as CatalogTable).isHeap || storedColumns(table).length === 0) return undefined;
    return this.#parts.leader.serverVersion < MIN_VERSION ? "scan" : "ranges";
  }

  async marks(tables: readonly SourceTable[]): Promise<ReadonlyMap<string, TableMark | string>> {
    const known = tables as readonly CatalogTable[];
    const marks = new Map<string, TableMark | string>();
    const read = await readTableMarks(
      this.#parts.leader,
      known.map(({ oid }) => oid),
    );
    for (const table of known) {
      const doubt = doubtOf(table) ?? read.get(table.oid) ?? "its definition could not be read";
      marks.set(tableKey(table), doubt);
    }
    return marks;
  }

  async pagesOf(table: SourceTable): Promise<number> {
    const { oid } = table as CatalogTable;
    const sql = "select pg_relation_size($1::oid::regclass, 'main') / 8192";
    const [row] = await this.#parts.withWorker((worker) => worker.query(sql, [oid]));
    return Number(row?.[0] ?? 0);
  }

  async pageRows(table: SourceTable, { lo, hi }: PageRange): Promise<readonly PageRows[]> {
    // A page without holes tells its line pointers by their number: the second scan is for the others only.
    const sql = `
      select g, c.n, d.offsets
        from generate_series($1::bigint, $2::bigint) g
       cross join lateral (
               select count(*)::int as n, max(x.ctid) as last from only ${nameOf(table)} x where ${onPage("x")}) c
        left join lateral (
               select encode(string_agg(substr(tidsend(y.ctid), 5, 2), ''), 'hex') as offsets
                 from only ${nameOf(table)} y
                where ${onPage("y")} and c.last <> format('(%s,%s)', g, c.n)::tid) d on true
       where c.n > 0`;
    const rows = await this.#scan(table, sql, [lo, hi - 1]);
    const dense = new Map<number, readonly number[]>();
    return rows
      .map(([page, count, offsets]) => {
        const known = offsets === null || offsets === undefined ? denseOffsets(Number(count), dense) : undefined;
        return { page: Number(page), offsets: known ?? offsetsOf(offsets) };
      })
      .sort((left, right) => left.page - right.page);
  }

  async changedPages(
    table: SourceTable,
    { lo, hi, counts, since }: PageRange & { readonly counts: Int32Array; readonly since: TrustToken },
  ): Promise<readonly ChangedPage[]> {
    const isNew = (alias: string) => `age(${alias}.xmin) <= age($4::xid)`;
    const offsets = (condition: string) =>
      `encode(string_agg(substr(tidsend(y.ctid), 5, 2), '') filter (where ${condition}), 'hex')`;
    // The second scan depends on the first, so that it runs for flagged pages only.
    const sql = `
      select g, d.kept, d.added
        from generate_series($1::bigint, $2::bigint) g
       cross join lateral (
               select count(*)::int as n, count(*) filter (where ${isNew("x")})::int as fresh
                 from only ${nameOf(table)} x where ${onPage("x")}) c
        left join lateral (
               select ${offsets(`not ${isNew("y")}`)} as kept, ${offsets(isNew("y"))} as added
                 from only ${nameOf(table)} y where ${onPage("y")} and c.n > 0) d on true
       where c.fresh > 0 or c.n is distinct from ($3::int[])[(g - $1::bigint + 1)::int]`;
    const xid = (BigInt(since.xmin) % (1n << 32n)).toString();
    const rows = await this.#scan(table, sql, [lo, hi - 1, `{${counts.join(",")}}`, xid]);
    return rows
      .map(([page, kept, added]) => ({ page: Number(page), kept: offsetsOf(kept), added: offsetsOf(added) }))
      .sort((left, right) => left.page - right.page);
  }

  async *rowsAt(table: SourceTable, places: readonly RowPlace[], options: RowOptions): AsyncIterable<PlacedRow> {
    const columns = storedColumns(table).map((column) => `t.${quoteIdentifier(column)}`);
    for (let at = 0; at < places.length; at += PLACES_A_STATEMENT) {
      const wanted = places.slice(at, at + PLACES_A_STATEMENT).map(({ page, offset }) => `"(${page},${offset})"`);
      const batches = this.#parts.copy(options, async (worker) => {
        await prepareScan(worker, table);
        return `copy (select t.ctid, ${columns.join(", ")} from only ${nameOf(table)} t
                       where t.ctid = any (${quoteLiteral(`{${wanted.join(",")}}`)}::pg_catalog.tid[])) to stdout`;
      });
      yield* placedRows(batches);
    }
  }

  async *scan(table: SourceTable, options: RowOptions): AsyncIterable<PlacedBytes> {
    const batches = this.#parts.copy(options, async (worker) => {
      await prepareScan(worker, table);
      return placedCopy(table);
    });
    yield* placedBytes(batches);
  }

  async isDurable(): Promise<boolean> {
    const { leader, token } = this.#parts;
    if (typeof token === "string") return false;
    for (let attempt = 1; attempt <= DURABLE_ATTEMPTS; attempt += 1) {
      // A log that ends with anything but a commit may stay in memory for as long as nobody commits.
      if (attempt === 2) await this.#parts.commitNothing();
      const [row] = await leader.query("select (pg_current_wal_flush_lsn() - '0/0'::pg_lsn) >= $1::numeric", [
        token.lsn,
      ]);
      if (row?.[0] === "t") return true;
      await leader.query("select pg_sleep(0.1)");
    }
    return false;
  }

  async #scan(table: SourceTable, sql: string, values: readonly unknown[]) {
    return this.#parts.withWorker(async (worker) => {
      await prepareScan(worker, table);
      return worker.query(sql, values);
    });
  }
}

/** The writer of the log flushes by itself several times a second. */
const DURABLE_ATTEMPTS = 20;

async function prepareScan(worker: PostgresClient, table: SourceTable): Promise<void> {
  // Somebody's queued ALTER TABLE waits for our leader: waiting behind it would be a deadlock.
  await worker.query(`lock table only ${nameOf(table)} in access share mode nowait`);
}

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

function onPage(alias: string): string {
  return `${alias}.ctid >= format('(%s,0)', g)::tid and ${alias}.ctid < format('(%s,0)', g + 1)::tid`;
}

function denseOffsets(count: number, known: Map<number, readonly number[]>): readonly number[] {
  const offsets = known.get(count) ?? Array.from({ length: count }, (_, index) => index + 1);
  known.set(count, offsets);
  return offsets;
}

/** Line pointers, two bytes each, in hex; ascending. */
function offsetsOf(hex: string | null | undefined): number[] {
  const bytes = Buffer.from(hex ?? "", "hex");
  const offsets = Array.from({ length: bytes.length / 2 }, (_, index) => bytes.readUInt16BE(index * 2));
  return offsets.sort((left, right) => left - right);
}

/** Cuts `(page,offset) <tab> row` into its parts. A row may span batches. */
async function* placedRows(batches: AsyncIterable<{ readonly bytes: Uint8Array }>): AsyncIterable<PlacedRow> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const { bytes } of batches) {
    const own = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const all = rest.length > 0 ? Buffer.concat([rest, own]) : own;
    let from = 0;
    for (let end = all.indexOf(10); end >= 0; end = all.indexOf(10, from)) {
      const tab = all.indexOf(9, from);
      const match = /^\((\d+),(\d+)\)$/.exec(all.toString("latin1", from, tab));
      if (!match) throw new RangeError("the server gave a row without its place");
      yield { page: Number(match[1]), offset: Number(match[2]), bytes: all.subarray(tab + 1, end + 1) };
      from = end + 1;
    }
    // The batch's memory is used again for the next one.
    rest = Buffer.from(all.subarray(from));
  }
  if (rest.length > 0) throw new RangeError("the server ended inside a row");
}
