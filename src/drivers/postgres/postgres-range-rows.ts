import type { PageRange, RangeRows, TrustToken } from "../change-tracker.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { onPages } from "./postgres-page-sql.ts";
import { quoteLiteral } from "./postgres-quote.ts";

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
  const counted = `select pg_catalog.pg_stat_get_xact_tuples_returned(${quoteLiteral(table.oid)}::pg_catalog.oid)`;
  // In one message: beside a short scan the ways to the server and back would count.
  const [before, found, after] = await client.queryAll([counted, newRows(table.name, { lo, hi, since }), counted]);
  return { added: placesByPage(found?.[0]?.[0]), rows: Number(after?.[0]?.[0]) - Number(before?.[0]?.[0]) };
}

function newRows(name: string, { lo, hi, since }: RangeQuestion): string {
  const isInRange = onPages("x", `${lo}::pg_catalog.int8`, `${hi}::pg_catalog.int8`);
  return `
    select pg_catalog.encode(pg_catalog.string_agg(pg_catalog.tidsend(x.ctid), ''), 'hex') from only ${name} x
     where ${isInRange} and ${isNew("x", quoteLiteral(headerXidOf(since)))}`;
}

/** The age of the given transaction is computed once for the statement: for each row it would cost as much as that row's. */
export function isNew(alias: string, xid = "$3"): string {
  return `pg_catalog.age(${alias}.xmin) <= (select pg_catalog.age(${xid}::pg_catalog.xid))`;
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
