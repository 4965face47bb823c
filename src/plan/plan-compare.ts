import type { ChosenTable, Column, TableName } from "../drivers/driver.ts";
import type { BucketSums } from "../drivers/fingerprints.ts";
import { matchTables } from "./table-patterns.ts";

/** A table of one of the two sides: live, or of a snapshot. */
export interface ComparedTable extends ChosenTable {
  readonly columns: readonly Column[];
  readonly primaryKey: readonly string[];
}

/** What is compared as one: a table, or all partitions of one root, however they are cut on either side. */
export interface CompareUnit<L extends ComparedTable, R extends ComparedTable> extends TableName {
  /** None: the table is missing there. */
  readonly left: readonly L[];
  readonly right: readonly R[];
}

/**
 * Pairs the tables of both sides by name, in the order of names. Partitions are compared through their root when all of
 * them were chosen, so that other partitions on the other side are no difference of rows.
 * Fails with kind `usage`, `unknown-table`, when a pattern matches no table of either side.
 */
export function pairTables<L extends ComparedTable, R extends ComparedTable>(
  left: readonly L[],
  right: readonly R[],
  patterns: readonly string[] | undefined,
): readonly CompareUnit<L, R>[] {
  const chosen = new Set<ComparedTable>(patterns ? matchTables(patterns, [...left, ...right]) : [...left, ...right]);
  const units = new Map<string, { name: TableName; left: L[]; right: R[] }>();
  const partly = new Set(
    [...left, ...right]
      .filter((table) => table.partitionRoot && !chosen.has(table))
      .map((table) => keyOf(table.partitionRoot ?? table)),
  );
  const unitOf = (table: ComparedTable) => {
    const root = table.partitionRoot;
    const { schema, name } = root && !partly.has(keyOf(root)) ? root : table;
    const key = keyOf({ schema, name });
    const unit = units.get(key) ?? { name: { schema, name }, left: [], right: [] };
    units.set(key, unit);
    return unit;
  };
  for (const table of left) if (chosen.has(table)) unitOf(table).left.push(table);
  for (const table of right) if (chosen.has(table)) unitOf(table).right.push(table);
  return [...units.entries()]
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([, { name, ...unit }]) => ({ ...name, ...unit }));
}

function keyOf({ schema, name }: TableName): string {
  return JSON.stringify([schema, name]);
}

export interface DirtyBucket {
  readonly bucket: number;
  /** Rows of the larger side. */
  readonly rows: number;
}

/** Gives the buckets whose sums differ, by their numbers. */
export function findDirtyBuckets(left: BucketSums, right: BucketSums): readonly DirtyBucket[] {
  const dirty: DirtyBucket[] = [];
  for (const bucket of new Set([...left.keys(), ...right.keys()])) {
    const [one, other] = [left.get(bucket), right.get(bucket)];
    const isSame = one?.rows === other?.rows && one?.first === other?.first && one?.second === other?.second;
    if (!isSame) dirty.push({ bucket, rows: Math.max(one?.rows ?? 0, other?.rows ?? 0) });
  }
  return dirty.sort((one, other) => one.bucket - other.bucket);
}

/** Sums that one look at differing buckets brings, at most. */
const MOST_PARTS = 65_536;
/** Numbers of buckets fit into 31 bits. */
const MOST_BUCKETS = 2 ** 30;

export interface ListPlan {
  readonly buckets: readonly number[];
  /** Whether every differing bucket is listed. If not, what is counted is a lower bound. */
  readonly isComplete: boolean;
}

/** Chooses the buckets whose rows are listed: all of them, or as many as fit into `mostRows`, but at least one. */
export function planList(dirty: readonly DirtyBucket[], mostRows: number): ListPlan {
  const buckets: number[] = [];
  let rows = 0;
  for (const { bucket, rows: more } of dirty.toSorted((one, other) => one.rows - other.rows)) {
    if (buckets.length > 0 && rows + more > mostRows) break;
    buckets.push(bucket);
    rows += more;
  }
  return { buckets, isComplete: buckets.length === dirty.length };
}

/** Into how many parts each of these buckets is cut, so that fewer rows must be listed: a power of two; 1 when there are too many of them. */
export function planParts(dirty: readonly DirtyBucket[], { buckets }: { readonly buckets: number }): number {
  const parts = Math.min(MOST_PARTS / dirty.length, MOST_BUCKETS / buckets);
  return 2 ** Math.max(0, Math.floor(Math.log2(parts)));
}

/** How many rows the sums stand for. */
export function countRows(sums: BucketSums): number {
  let rows = 0;
  for (const sum of sums.values()) rows += sum.rows;
  return rows;
}
