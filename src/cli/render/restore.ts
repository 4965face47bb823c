import { formatCount } from "../format.ts";
import type { Output } from "../output.ts";
import { plain } from "../text-table.ts";

/** One table as `restore --json` gives it: planned, or done. */
export interface RestoredTable {
  readonly schema: string;
  readonly name: string;
  readonly deleted: number;
  readonly inserted: number;
}

/** Prints what a restore will do (`planned`) or did: rows to delete and to insert for each table. */
export function printRestore(output: Output, tables: readonly RestoredTable[], tense: "planned" | "done"): void {
  const right = (title: string) => ({ title, align: "right" as const });
  const sum = (pick: (table: RestoredTable) => number) => tables.reduce((total, table) => total + pick(table), 0);
  const rows = tables.map((table) => [
    plain(`${table.schema}.${table.name}`),
    formatCount(table.deleted),
    formatCount(table.inserted),
  ]);
  if (tables.length > 1) {
    rows.push(["total", formatCount(sum((table) => table.deleted)), formatCount(sum((table) => table.inserted))]);
  }
  output.table(
    [
      { title: "table" },
      right(tense === "planned" ? "rows to delete" : "deleted"),
      right(tense === "planned" ? "rows to insert" : "inserted"),
    ],
    rows,
  );
}
