import type { TableName } from "../drivers/driver.ts";
import { takeOutShared } from "../plan/same-rows.ts";
import type { SnapshotReader } from "../snapshot/snapshot-reader.ts";
import { openSnapshotSide } from "./compare-sides.ts";
import { type CompareOptions, type CompareResult, compareSites, type TableComparison } from "./compare-sites.ts";

export interface DiffOptions extends Omit<CompareOptions, "left" | "right" | "reopen" | "countOnly"> {
  /** Both are disposed by the caller. */
  readonly left: SnapshotReader;
  readonly right: SnapshotReader;
}

/**
 * Finds the tables and rows in which two snapshots differ. A table whose stored bytes are the same in both is not read.
 * Fails with kind `archive`, `destination`, or `usage` for a pattern that matches nothing.
 */
export async function diffSnapshots({ left, right, ...options }: DiffOptions): Promise<CompareResult> {
  const rest = takeOutShared(left.manifest, right.manifest);
  const result = await compareSites({
    ...options,
    left: openSnapshotSide(left, rest.left),
    right: openSnapshotSide(right, rest.right),
    countOnly: false,
  });
  // A partitioned table is told as one, or each of its partitions when only some were chosen.
  const rows = new Map<string, number>();
  for (const table of rest.tables) {
    for (const name of [table, table.partitionRoot ?? []].flat()) {
      rows.set(keyOf(name), (rows.get(keyOf(name)) ?? 0) + table.rows);
    }
  }
  const tables = result.tables.map((table) => withShared(table, rows.get(keyOf(table)) ?? 0));
  return { ...result, tables };
}

function withShared(table: TableComparison, shared: number): TableComparison {
  const add = (side: TableComparison["left"]) => ({ ...side, rows: side.rows + shared });
  return shared === 0 ? table : { ...table, left: add(table.left), right: add(table.right) };
}

function keyOf({ schema, name }: TableName): string {
  return JSON.stringify([schema, name]);
}
