import type { PageRange, RangeRows, TrustToken } from "../change-tracker.ts";
import { quoteLiteral } from "./postgres-quote.ts";

export interface RangeQuestion extends PageRange {
  readonly since: TrustToken;
}

/** The number of a transaction as row headers have it. */
export function headerXidOf({ xmin }: TrustToken): string {
  return (BigInt(xmin) % (1n << 32n)).toString();
}

/**
 * Renders a scan that ends at the first row which may be new, and else says how many rows it left out: all that are visible. The
 * server counts them where it filters, which takes a third less than any aggregate.
 */
export function rangeScan(name: string, { lo, hi, since }: RangeQuestion): string {
  const xid = quoteLiteral(headerXidOf(since));
  return `explain (analyze, costs off, timing off, summary off, buffers off, format json)
    select from only ${name} x
     where x.ctid >= '(${lo},0)'::pg_catalog.tid and x.ctid < '(${hi},0)'::pg_catalog.tid
       and pg_catalog.age(x.xmin) <= (select pg_catalog.age(${xid}::pg_catalog.xid)) limit 1`;
}

interface PlanNode {
  readonly "Node Type"?: unknown;
  readonly "Actual Rows"?: unknown;
  readonly "Actual Loops"?: unknown;
  readonly "Rows Removed by Filter"?: unknown;
  readonly Plans?: readonly PlanNode[];
}

/** Reads the answer; undefined when the server did not do it in the one way whose numbers are known to be exact. */
export function parseRangeRows(text: string): RangeRows | undefined {
  const [answer] = JSON.parse(text) as readonly { readonly Plan?: PlanNode }[];
  const scan = answer?.Plan?.Plans?.find((node) => node["Node Type"] === "Tid Range Scan");
  if (answer?.Plan?.["Node Type"] !== "Limit" || scan?.["Actual Loops"] !== 1) return undefined;
  const { "Actual Rows": found, "Rows Removed by Filter": others } = scan;
  if (!Number.isSafeInteger(found) || !Number.isSafeInteger(others)) return undefined;
  return { hasNew: found !== 0, rows: Number(others) + Number(found) };
}
