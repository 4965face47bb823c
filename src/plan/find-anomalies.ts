import type { ChosenTable, TableChoice, TableName } from "../drivers/driver.ts";
import type { Anomaly } from "../snapshot/manifest.ts";

/** What the comparison needs of a table of a snapshot. */
export interface CountedTable extends ChosenTable {
  readonly rows: number;
}

export interface FindAnomaliesOptions {
  /** Tables of the snapshot before, and of the new one. */
  readonly before: readonly CountedTable[];
  readonly after: readonly CountedTable[];
  /** What the job says of a table now: one whose rows nobody wants any more has not vanished. */
  readonly choose: (table: ChosenTable) => TableChoice;
  /** Part of its rows that a table may lose, 0.5 for half of them; 1 and more: all of them. */
  readonly maxShrink: number;
}

export const DEFAULT_MAX_SHRINK = 0.5;

/** A smaller table is no alarm while a row of it is left: a list of five things becomes one of two every day. */
const MIN_ROWS = 20;

/**
 * Finds tables that vanished or lost more than their share of rows, in the order of names. Partitions count as one table
 * with their root: dropping the oldest one is everyday work. Tables that had no rows cannot lose any.
 */
export function findAnomalies({ before, after, choose, maxShrink }: FindAnomaliesOptions): readonly Anomaly[] {
  const now = sumByRoot(after);
  const anomalies: Anomaly[] = [];
  for (const [key, { schema, name, rows: rowsBefore }] of sumByRoot(before.filter((one) => choose(one) === "rows"))) {
    const rows = now.get(key)?.rows;
    if (rowsBefore === 0) continue;
    if (rows === undefined) anomalies.push({ schema, name, kind: "vanished", rowsBefore, rows: 0 });
    else if (hasShrunk(rowsBefore, rows, maxShrink)) anomalies.push({ schema, name, kind: "shrunk", rowsBefore, rows });
  }
  return anomalies.sort((left, right) => (keyOf(left) < keyOf(right) ? -1 : 1));
}

/** Tables of the snapshot before whose rows the job does not want any more, by name; a partition counts with its root. */
export interface NoLongerWanted {
  readonly excluded: readonly string[];
  readonly schemaOnly: readonly string[];
}

export function findNoLongerWanted({
  before,
  choose,
}: Pick<FindAnomaliesOptions, "before" | "choose">): NoLongerWanted {
  const namesOf = (choice: TableChoice) =>
    [...sumByRoot(before.filter((table) => choose(table) === choice)).values()]
      .map(({ schema, name }) => `${schema}.${name}`)
      .sort();
  return { excluded: namesOf("excluded"), schemaOnly: namesOf("schema-only") };
}

function hasShrunk(before: number, after: number, maxShrink: number): boolean {
  const lost = before - after;
  return (after === 0 || before >= MIN_ROWS) && lost > before * maxShrink;
}

function sumByRoot(tables: readonly CountedTable[]): ReadonlyMap<string, TableName & { readonly rows: number }> {
  const sums = new Map<string, TableName & { readonly rows: number }>();
  for (const { schema, name, partitionRoot, rows } of tables) {
    const root = partitionRoot ?? { schema, name };
    const key = keyOf(root);
    sums.set(key, { schema: root.schema, name: root.name, rows: rows + (sums.get(key)?.rows ?? 0) });
  }
  return sums;
}

function keyOf({ schema, name }: TableName): string {
  return JSON.stringify([schema, name]);
}

/** Reads `safety.maxShrink` of a job: `50%` is 0.5. */
export function maxShrinkOf(written: string | undefined): number {
  return written === undefined ? DEFAULT_MAX_SHRINK : Number.parseInt(written, 10) / 100;
}
