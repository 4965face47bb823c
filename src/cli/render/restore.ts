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

/** What is told before anything is changed. */
interface ShownPlan {
  readonly target: ShownServer;
  readonly source: ShownServer;
  readonly snapshot: string;
  readonly tables: readonly RestoredTable[];
  readonly foreignKeys: readonly string[];
  readonly triggers: readonly string[];
  readonly warnings: readonly string[];
  readonly notes?: readonly string[] | undefined;
}

interface ShownServer {
  readonly database: string;
  readonly host?: string | undefined;
  readonly port?: number | undefined;
  readonly user: string;
  readonly version: string;
}

/** Prints a plan: from where to where, rows per table, what is switched off meanwhile. */
export function printPlan(output: Output, plan: ShownPlan): void {
  output.line(`snapshot  ${plain(plan.snapshot)} of ${nameServer(plan.source)}`);
  output.line(
    `target    ${nameServer(plan.target)} as ${plain(plan.target.user)}, PostgreSQL ${plain(plan.target.version)}`,
  );
  printTables(output, plan.tables, "planned");
  const many = (names: readonly string[]) => names.map(plain).join(", ");
  if (plan.foreignKeys.length > 0) output.line(`foreign keys taken off and put on again: ${many(plan.foreignKeys)}`);
  if (plan.triggers.length > 0) output.line(`triggers off meanwhile: ${many(plan.triggers)}`);
  for (const note of plan.notes ?? []) output.line(`note: ${plain(note)}`);
  for (const warning of plan.warnings) output.warn(plain(warning));
}

function nameServer({ database, host, port }: ShownServer): string {
  return plain(`${database} at ${host}:${port}`);
}

export interface ShownRestore {
  readonly target: ShownServer;
  readonly tables: readonly RestoredTable[];
  readonly safetySnapshot?: string | undefined;
  readonly notes?: readonly string[] | undefined;
  readonly tense: "planned" | "done";
  /** Named where the restore can be undone. */
  readonly job?: string | undefined;
}

/** Prints what a restore did, or with a plan only would do. */
export function printRestored(output: Output, restored: ShownRestore): void {
  const { target, tables, safetySnapshot, tense, job } = restored;
  printTables(output, tables, tense);
  if (tense === "planned") {
    for (const note of restored.notes ?? []) output.line(`note: ${plain(note)}`);
    output.line("This is only the plan: nothing was changed.");
    return;
  }
  output.line(`${output.paint.green("done:")} ${nameServer(target)} has the rows of the snapshot`);
  if (safetySnapshot && job) {
    output.line(`What was replaced is kept in ${plain(safetySnapshot)}; rowkeep undo ${plain(job)} puts it back.`);
  }
}

function printTables(output: Output, tables: readonly RestoredTable[], tense: "planned" | "done"): void {
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
