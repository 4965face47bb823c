import type { PageRange, RangeRows, TrustToken } from "../change-tracker.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { onPages } from "./postgres-page-sql.ts";

export interface RangeQuestion extends PageRange {
  readonly since: TrustToken;
}

interface ScannedTable {
  readonly oid: string;
  /** Its quoted name. */
  readonly name: string;
}

/** The number of a transaction as row headers have it. */
export function headerXidOf({ xmin }: TrustToken): string {
  return (BigInt(xmin) % (1n << 32n)).toString();
}

/** Whether the server counts what its scans read, and tells this login. */
export async function canCountRows(client: PostgresClient): Promise<boolean> {
  const [row] = await client.query(
    `select pg_catalog.current_setting('track_counts') = 'on'
        and pg_catalog.has_function_privilege('pg_catalog.pg_stat_get_xact_tuples_returned(oid)', 'execute')`,
  );
  return row?.[0] === "t";
}

/**
 * Reads the places of those rows of a range that may be new, and how many are visible in all. The server counts every row that a scan
 * reads in this transaction, those that a filter leaves out too: that takes a third less than any aggregate over them.
 */
export async function readRangeRows(
  client: PostgresClient,
  table: ScannedTable,
  { lo, hi, since }: RangeQuestion,
): Promise<RangeRows> {
  const before = await countedRows(client, table);
  const [found] = await client.query(newRows(table.name), [lo, hi, headerXidOf(since)]);
  const rows = (await countedRows(client, table)) - before;
  return { added: placesByPage(found?.[0]), rows };
}

async function countedRows(client: PostgresClient, { oid }: ScannedTable): Promise<number> {
  const [row] = await client.query("select pg_catalog.pg_stat_get_xact_tuples_returned($1::pg_catalog.oid)", [oid]);
  return Number(row?.[0]);
}

/** Renders the scan of pages $1 (inclusive) to $2 (exclusive) for rows of transaction $3 or of a later one. */
function newRows(name: string): string {
  return `
    select pg_catalog.encode(pg_catalog.string_agg(pg_catalog.tidsend(x.ctid), ''), 'hex') from only ${name} x
     where ${onPages("x", "$1::pg_catalog.int8", "$2::pg_catalog.int8")} and ${isNew("x")}`;
}

/** The age of the parameter is computed once for the statement: for each row it would cost as much as that row's. */
export function isNew(alias: string, parameter = "$3"): string {
  return `pg_catalog.age(${alias}.xmin) <= (select pg_catalog.age(${parameter}::pg_catalog.xid))`;
}

/** A text `(page,line pointer)` for each row would be longer, and slower to make. */
const PLACE_BYTES = 6;

/** Reads places as `tidsend` gives them, in hex: the line pointers of each page, ascending where the scan was. */
export function placesByPage(hex: string | null | undefined): ReadonlyMap<number, readonly number[]> {
  const bytes = Buffer.from(hex ?? "", "hex");
  const pages = new Map<number, number[]>();
  for (let at = 0; at < bytes.length; at += PLACE_BYTES) {
    const page = bytes.readUInt32BE(at);
    const offset = bytes.readUInt16BE(at + 4);
    const offsets = pages.get(page);
    if (offsets) offsets.push(offset);
    else pages.set(page, [offset]);
  }
  return pages;
}
