import { formatCount, formatPlural, formatTime } from "../format.ts";
import type { Output } from "../output.ts";
import { plain } from "../text-table.ts";

interface ShownSchemaDifference {
  readonly schema: string;
  readonly table?: string | undefined;
  readonly object: string;
  readonly name: string;
  readonly left?: string | undefined;
  readonly right?: string | undefined;
}

interface ShownTable {
  readonly schema: string;
  readonly name: string;
  readonly equal: boolean;
  readonly left: { readonly rows: number; readonly missing?: true | undefined };
  readonly right: { readonly rows: number; readonly missing?: true | undefined };
  readonly onlyLeft?: number;
  readonly onlyRight?: number;
  readonly changed?: number;
  readonly atLeast?: true;
  readonly inMotion?: number;
  readonly columns?: readonly string[];
  readonly differences?: readonly {
    readonly key: Readonly<Record<string, string | null>>;
    readonly kind: string;
    readonly columns?: readonly string[];
    readonly count?: number;
  }[];
  readonly differencesLeftOut?: number;
  readonly schemaDifferences?: readonly ShownSchemaDifference[];
  readonly problem?: string;
}

interface ShownComparison {
  readonly equal: boolean;
  readonly left: { readonly label: string; readonly takenAt: string };
  readonly right: { readonly label: string; readonly takenAt: string };
  readonly tables: readonly ShownTable[];
  readonly schemaDifferences: readonly ShownSchemaDifference[];
  readonly largeObjects?: { readonly equal: boolean; readonly left: number; readonly right: number } | undefined;
  readonly countOnly: boolean;
}

const MOST_ROWS = 100;
const MOST_SQL = 100;

/** Prints what a comparison found: a line for each table, then what differs, then the verdict. */
export function printComparison(output: Output, result: ShownComparison): void {
  output.line(`left   ${plain(result.left.label)}, ${formatTime(result.left.takenAt)}`);
  output.line(`right  ${plain(result.right.label)}, ${formatTime(result.right.takenAt)}`);
  const right = (title: string) => ({ title, align: "right" as const });
  output.table(
    [{ title: "table" }, right("left"), right("right"), { title: "verdict" }],
    result.tables.map((table) => [
      nameOf(table),
      rowsOf(table.left),
      rowsOf(table.right),
      table.equal ? `${output.paint.green("equal")}${motionOf(table)}` : output.paint.red(verdictOf(table)),
    ]),
  );
  for (const table of result.tables) printDetails(output, table);
  for (const difference of result.schemaDifferences) printSchema(output, difference);
  const { largeObjects } = result;
  if (largeObjects && !largeObjects.equal) {
    output.line(`large objects differ: ${formatCount(largeObjects.left)} and ${formatCount(largeObjects.right)}`);
  }
  const differing = result.tables.filter(({ equal }) => !equal).length;
  const sameText = result.countOnly ? "as many rows in every table; their content was not compared" : "no differences";
  if (result.equal) output.line(`${output.paint.green("equal:")} ${sameText}`);
  else output.line(`${output.paint.red("different:")} ${formatPlural(differing, "table")} of ${result.tables.length}`);
}

function nameOf({ schema, name }: { readonly schema: string; readonly name: string }): string {
  return plain(`${schema}.${name}`);
}

function rowsOf({ rows, missing }: ShownTable["left"]): string {
  return missing ? "missing" : formatCount(rows);
}

function verdictOf(table: ShownTable): string {
  const counts = [
    ...(table.changed ? [`${formatCount(table.changed)} changed`] : []),
    ...(table.onlyLeft ? [`${formatCount(table.onlyLeft)} only left`] : []),
    ...(table.onlyRight ? [`${formatCount(table.onlyRight)} only right`] : []),
  ];
  const parts = [
    ...(counts.length > 0 ? [`${table.atLeast ? "at least " : ""}${counts.join(", ")}`] : []),
    ...(table.schemaDifferences?.length ? [formatPlural(table.schemaDifferences.length, "definition")] : []),
    ...(table.problem === undefined ? [] : [`not compared: ${table.problem}`]),
  ];
  return `${parts.length > 0 ? parts.join("; ") : "different"}${motionOf(table)}`;
}

function motionOf({ inMotion }: ShownTable): string {
  return inMotion ? ` (${formatCount(inMotion)} in motion)` : "";
}

function printDetails(output: Output, table: ShownTable): void {
  const { columns, differences, schemaDifferences, differencesLeftOut = 0 } = table;
  if (columns?.length) output.line(`${nameOf(table)}: changed rows differ in ${columns.map(plain).join(", ")}`);
  else if (differences?.length || differencesLeftOut > 0) output.line(`${nameOf(table)}:`);
  for (const difference of differences?.slice(0, MOST_ROWS) ?? []) {
    const key = Object.entries(difference.key).map(([name, value]) => `${name}=${value ?? "NULL"}`);
    const times = difference.count === undefined ? "" : ` ${formatCount(difference.count)} times`;
    const where = difference.columns ? ` in ${difference.columns.join(", ")}` : "";
    output.line(plain(`  ${KINDS[difference.kind] ?? difference.kind}  ${key.join(" ")}${times}${where}`));
  }
  const more = Math.max((differences?.length ?? 0) - MOST_ROWS, 0) + differencesLeftOut;
  if (more > 0) output.line(`  and ${formatCount(more)} more${differencesLeftOut > 0 ? "" : "; see --json"}`);
  for (const difference of schemaDifferences ?? []) printSchema(output, difference);
}

const KINDS: Readonly<Record<string, string>> = {
  onlyLeft: "only left ",
  onlyRight: "only right",
  changed: "changed   ",
};

function printSchema(output: Output, difference: ShownSchemaDifference): void {
  const { schema, table, object, name } = difference;
  const owner = [schema, ...(table === undefined || table === name ? [] : [table]), name].join(".");
  const shown = (sql: string | undefined) => (sql === undefined ? "missing" : plain(shorten(sql)));
  output.line(`${plain(`${object} ${owner}`)}: left ${shown(difference.left)}, right ${shown(difference.right)}`);
}

function shorten(sql: string): string {
  const line = sql.replace(/\s+/g, " ");
  return line.length > MOST_SQL ? `${line.slice(0, MOST_SQL)}…` : line;
}
