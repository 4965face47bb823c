import { formatBytes, formatCount, formatTime } from "../format.ts";
import type { Output } from "../output.ts";
import { plain } from "../text-table.ts";

/** One table as `restore --json` gives it: planned, or done. */
export interface RestoredTable {
  readonly schema: string;
  readonly name: string;
  readonly deleted: number;
  readonly inserted: number;
  /** Only where chosen rows are merged. */
  readonly updated?: number | undefined;
}

/** What is told before anything is changed. */
interface ShownPlan {
  readonly target: ShownServer;
  readonly source: ShownServer;
  readonly snapshot: string;
  readonly createdAt: string;
  readonly tables: readonly RestoredTable[];
  readonly foreignKeys: readonly string[];
  readonly triggers: readonly string[];
  readonly warnings: readonly string[];
  readonly notes?: readonly string[] | undefined;
  readonly thaw?: ShownThaw | undefined;
}

/** What lies in an archive and must be thawed before it can be read. */
interface ShownThaw {
  readonly volumes: readonly {
    readonly destination: string;
    readonly name: string;
    readonly size: number;
    readonly state: "archived" | "thawing";
  }[];
  readonly bytes: number;
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
  output.line(`snapshot  ${plain(plan.snapshot)} of ${nameServer(plan.source)}, taken ${formatTime(plan.createdAt)}`);
  output.line(
    `target    ${nameServer(plan.target)} as ${plain(plan.target.user)}, PostgreSQL ${plain(plan.target.version)}`,
  );
  printTables(output, plan.tables, "planned");
  const many = (names: readonly string[]) => names.map(plain).join(", ");
  if (plan.foreignKeys.length > 0) output.line(`foreign keys taken off and put on again: ${many(plan.foreignKeys)}`);
  if (plan.triggers.length > 0) output.line(`triggers off meanwhile: ${many(plan.triggers)}`);
  for (const note of plan.notes ?? []) output.line(`note: ${plain(note)}`);
  if (plan.thaw) printThaw(output, plan.thaw);
  for (const warning of plan.warnings) output.warn(plain(warning));
}

function printThaw(output: Output, { volumes, bytes }: ShownThaw): void {
  output.line(`must be thawed first (restore --thaw): ${formatBytes(bytes)}`);
  for (const { destination, name, size, state } of volumes) {
    output.line(`  ${plain(name)} at ${plain(destination)}, ${formatBytes(size)}, ${state}`);
  }
}

function nameServer({ database, host, port }: ShownServer): string {
  return plain(`${database} at ${host}:${port}`);
}

export interface ShownRestore {
  readonly target: ShownServer;
  readonly tables: readonly RestoredTable[];
  readonly safetySnapshot?: string | undefined;
  /** Only where chosen rows are merged. */
  readonly mode?: string | undefined;
  /** When that was all that was asked for. */
  readonly plan?: ShownPlan | undefined;
  /** The command that undoes it, where it can be undone. */
  readonly undo?: string | undefined;
}

/** Prints what a restore did, or with a plan only would do. */
export function printRestored(output: Output, restored: ShownRestore): void {
  const { target, tables, safetySnapshot, plan, undo } = restored;
  if (plan) {
    // Its warnings are told with those of the command.
    printPlan(output, { ...plan, warnings: [] });
    output.line("This is only the plan: nothing was changed.");
    return;
  }
  printTables(output, tables, "done");
  const rows = restored.mode === undefined ? "the rows" : "the chosen rows";
  output.line(`${output.paint.green("done:")} ${nameServer(target)} has ${rows} of the snapshot`);
  if (safetySnapshot && undo) {
    output.line(`What was replaced is kept in ${plain(safetySnapshot)}; ${plain(undo)} puts it back.`);
  }
}

/** Renders what stands in the database where the files of the snapshot could not be put back, too. */
export function renderRowsOnly({ target, safetySnapshot, undo }: Omit<ShownRestore, "plan">): string {
  const way = safetySnapshot && undo ? `; ${undo} puts back what was replaced` : "";
  return `${nameServer(target)} has the rows of the snapshot, but not all of its files were restored${plain(way)}`;
}

/** Renders the command that puts back what a restore replaced, with the options without which it would find something else. */
export function renderUndo({
  job,
  database,
  to,
}: {
  readonly job: string;
  readonly database?: string | undefined;
  readonly to?: string | undefined;
}): string {
  const words = ["rowkeep", "undo", job];
  if (database !== undefined) words.push("--database", database);
  if (to !== undefined && to !== "primary") words.push("--to", to);
  return words.map(shellWord).join(" ");
}

/** What a POSIX shell, PowerShell and people take for one word. */
function shellWord(text: string): string {
  return /^[\w@%+=:,./~-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

function printTables(output: Output, tables: readonly RestoredTable[], tense: "planned" | "done"): void {
  const isMerge = tables.some(({ updated }) => updated !== undefined);
  const sum = (pick: (table: RestoredTable) => number) => tables.reduce((total, table) => total + pick(table), 0);
  const columns: readonly (readonly [string, string, (table: RestoredTable) => number])[] = [
    ["rows to delete", "deleted", (table) => table.deleted],
    ...(isMerge ? [["rows to update", "updated", (table: RestoredTable) => table.updated ?? 0] as const] : []),
    ["rows to insert", "inserted", (table) => table.inserted],
  ];
  const rows = tables.map((table) => [
    plain(`${table.schema}.${table.name}`),
    ...columns.map(([, , pick]) => formatCount(pick(table))),
  ]);
  if (tables.length > 1) rows.push(["total", ...columns.map(([, , pick]) => formatCount(sum(pick)))]);
  output.table(
    [
      { title: "table" },
      ...columns.map(([planned, done]) => ({
        title: tense === "planned" ? planned : done,
        align: "right" as const,
      })),
    ],
    rows,
  );
}
