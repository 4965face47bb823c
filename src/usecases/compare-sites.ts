import { sideBySide } from "../base/side-by-side.ts";
import { makeRowForm, type RowForm } from "../drivers/row-form.ts";
import type { RowHash } from "../drivers/row-hash.ts";
import { compareColumns, compareDefinitions, type SchemaDifference } from "../plan/compare-schemas.ts";
import {
  type CompareUnit,
  countRows,
  type DirtyBucket,
  findDirtyBuckets,
  type ListPlan,
  pairTables,
  planList,
  planParts,
} from "../plan/plan-compare.ts";
import { RowDifferences } from "../plan/row-differences.ts";
import { addSums, type BucketSums, type SumsRequest } from "../drivers/fingerprints.ts";
import { type CompareSide, chooseHash, type SideTable } from "./compare-sides.ts";
import { examineRows, type Finding, type ShownDifference } from "./examine-rows.ts";
import type { Report } from "./progress.ts";

type Unit = CompareUnit<SideTable, SideTable>;

export interface CompareOptions {
  readonly left: CompareSide;
  readonly right: CompareSide;
  /** Opens both sides again, at a later instant, to look at differing rows once more; undefined: rows stand still. */
  readonly reopen?: (() => Promise<readonly [CompareSide, CompareSide]>) | undefined;
  /** Patterns; undefined: all tables, and the definitions of what is no table. */
  readonly tables?: readonly string[] | undefined;
  /** Count the rows and look no further. */
  readonly countOnly: boolean;
  /** List differing rows. */
  readonly rows: boolean;
  /** Tables that are compared at once. */
  readonly parallel: number;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/** What one side has of a table. */
interface SideRows {
  readonly rows: number;
  readonly missing?: true | undefined;
}

export interface TableComparison {
  readonly schema: string;
  readonly name: string;
  /** Rows and definitions. With `countOnly`: as many rows. */
  readonly equal: boolean;
  readonly left: SideRows;
  readonly right: SideRows;
  /** How many rows differ, when some do. */
  readonly onlyLeft?: number;
  readonly onlyRight?: number;
  readonly changed?: number;
  /** There are so many that not all were looked at: the numbers are lower bounds. */
  readonly atLeast?: true;
  /** Rows that differed at first and were equal when both sites were looked at again. */
  readonly inMotion?: number;
  /** Columns in which changed rows differ. */
  readonly columns?: readonly string[];
  readonly differences?: readonly ShownDifference[];
  readonly differencesLeftOut?: number;
  readonly schemaDifferences?: readonly SchemaDifference[];
  /** Why the rows could not be compared; then the table is not called equal. */
  readonly problem?: string;
}

export interface CompareResult {
  readonly equal: boolean;
  readonly left: { readonly label: string; readonly takenAt: string };
  readonly right: { readonly label: string; readonly takenAt: string };
  readonly tables: readonly TableComparison[];
  /** Definitions that belong to no compared table. */
  readonly schemaDifferences: readonly SchemaDifference[];
  readonly largeObjects?: { readonly equal: boolean; readonly left: number; readonly right: number } | undefined;
  readonly countOnly: boolean;
}

/** Rows of differing buckets that are listed of one table, at most: what bounds memory. */
const MOST_LISTED = 200_000;

/**
 * Compares the rows and definitions of two sides. Equal tables cost one pass over their rows on each server and some
 * sums on the wire; of those that differ the buckets with other sums are listed, then the differing rows looked at.
 * Fails with kind `database`, `archive`, `destination`, or `usage` for a pattern that matches nothing.
 */
export async function compareSites(options: CompareOptions): Promise<CompareResult> {
  const { left, right, signal, report } = options;
  const units = pairTables(left.tables, right.tables, options.tables);
  const schema = options.countOnly ? [] : compareSchemas(options, units);
  const hash = await chooseHash([left, right], { signal });
  const bySize = units.toSorted((one, other) => sizeOf(other) - sizeOf(one));
  report({
    type: "plan",
    tables: bySize.map((unit) => ({ table: labelOf(unit), estimatedRows: 0, bytes: sizeOf(unit) })),
  });
  const found = new Map<Unit, Finding>();
  await runAll(bySize, options, async (unit, taskSignal) => {
    report({ type: "table-start", table: labelOf(unit) });
    const finding = await compareUnit(unit, { ...options, signal: taskSignal, hash });
    found.set(unit, finding);
    report({ type: "table-done", table: labelOf(unit), rows: Math.max(finding.left, finding.right) });
  });
  const largeObjects = await compareLargeObjects(options, hash);
  const findings = units.map((unit) => found.get(unit) as Finding);
  const examined = await examineRows(findings, { ...options, right });
  const tables = examined.map((finding) => tableResult(finding, schema));
  const others = schema.filter(({ table }) => table === undefined);
  return {
    equal: tables.every(({ equal }) => equal) && others.length === 0 && largeObjects?.equal !== false,
    left: { label: left.label, takenAt: left.takenAt },
    right: { label: right.label, takenAt: right.takenAt },
    tables,
    schemaDifferences: others,
    ...(largeObjects ? { largeObjects } : {}),
    countOnly: options.countOnly,
  };
}

function compareSchemas({ left, right, tables }: CompareOptions, units: readonly Unit[]): readonly SchemaDifference[] {
  const names = (side: "left" | "right") =>
    new Set(units.flatMap((unit) => (unit[side].length > 0 ? [unit, ...unit[side]] : [])).map((name) => labelOf(name)));
  const [here, there] = [names("left"), names("right")];
  return [
    ...compareColumns(units),
    ...compareDefinitions(left.definitions, right.definitions, (table) =>
      table === undefined ? tables === undefined : here.has(labelOf(table)) && there.has(labelOf(table)),
    ),
  ];
}

interface UnitOptions extends CompareOptions {
  readonly hash: RowHash;
}

/** Compares the rows of one table as they are at the instants of the two sides. */
async function compareUnit(unit: Unit, options: UnitOptions): Promise<Finding> {
  const { signal } = options;
  const { schema, name } = unit;
  const problem = [...unit.left, ...unit.right].find((table) => table.problem)?.problem;
  if (options.countOnly || problem !== undefined || unit.left.length === 0 || unit.right.length === 0) {
    const count = async (parts: readonly SideTable[]) =>
      (await Promise.all(parts.map((part) => part.count({ signal })))).reduce((sum, rows) => sum + rows, 0);
    const [left, right] = await Promise.all([count(unit.left), count(unit.right)]);
    return { schema, name, unit, left, right, problem, differences: [], isComplete: true };
  }
  const estimate = (parts: readonly SideTable[]) => parts.reduce((sum, part) => sum + part.estimatedRows, 0);
  const form = makeRowForm([...unit.left, ...unit.right], {
    hash: options.hash,
    rows: Math.max(estimate(unit.left), estimate(unit.right)),
    majors: [options.left.majorVersion, options.right.majorVersion],
    isLive: options.left.isLive && options.right.isLive,
  });
  const sumsOf = (request: SumsRequest) =>
    Promise.all(
      [unit.left, unit.right].map(async (parts) =>
        addSums(await Promise.all(parts.map((part) => part.sums(request)))),
      ) as [Promise<BucketSums>, Promise<BucketSums>],
    );
  const [left, right] = await sumsOf({ form, signal });
  const finding = { schema, name, unit, form, left: countRows(left), right: countRows(right) };
  const dirty = findDirtyBuckets(left, right);
  if (dirty.length === 0) return { ...finding, differences: [], isComplete: true };
  const plan = await planListing(form, dirty, (request) => sumsOf({ ...request, signal }));
  const rows = new RowDifferences();
  await Promise.all([
    ...unit.left.map((part) => part.list({ ...plan, take: rows.takeLeft, signal })),
    ...unit.right.map((part) => part.list({ ...plan, take: rows.takeRight, signal })),
  ]);
  return { ...finding, differences: rows.result(), isComplete: plan.isComplete };
}

/** Chooses the rows to list; where they are too many, those of smaller buckets, for which both sides are read once more. */
async function planListing(
  form: RowForm,
  dirty: readonly DirtyBucket[],
  sumsOf: (request: Omit<SumsRequest, "signal">) => Promise<readonly [BucketSums, BucketSums]>,
): Promise<ListPlan & { readonly form: RowForm }> {
  const plan = planList(dirty, MOST_LISTED);
  const parts = planParts(dirty, form);
  if (plan.isComplete || parts === 1) return { ...plan, form };
  const finer = { ...form, buckets: form.buckets * parts };
  const within = { buckets: dirty.map(({ bucket }) => bucket), of: form.buckets };
  const [left, right] = await sumsOf({ form: finer, within });
  return { ...planList(findDirtyBuckets(left, right), MOST_LISTED), form: finer };
}

/** Runs a task for each unit, some at once; the first failure stops the others. */
async function runAll(
  units: readonly Unit[],
  options: CompareOptions,
  task: (unit: Unit, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const queue = [...units];
  const worker = async (signal: AbortSignal) => {
    for (let unit = queue.shift(); unit; unit = queue.shift()) await task(unit, signal);
  };
  await sideBySide(options.signal, (signal) => Array.from({ length: options.parallel }, () => worker(signal)));
}

async function compareLargeObjects(
  { left, right, tables, countOnly, signal }: CompareOptions,
  hash: RowHash,
): Promise<CompareResult["largeObjects"]> {
  const counts = { left: left.largeObjects, right: right.largeObjects };
  if (tables !== undefined || counts.left + counts.right === 0) return undefined;
  if (countOnly || counts.left !== counts.right) return { equal: counts.left === counts.right, ...counts };
  const [one, other] = await Promise.all([left, right].map((side) => side.hashLargeObjects({ hash, signal })));
  return { equal: one === other, ...counts };
}

function tableResult(finding: Finding, schema: readonly SchemaDifference[]): TableComparison {
  const { unit, differences, isComplete, inMotion, problem } = finding;
  const names = new Set([unit, ...unit.left, ...unit.right].map(labelOf));
  const own = schema.filter(
    ({ schema: there, table }) => table !== undefined && names.has(labelOf({ schema: there, name: table })),
  );
  const isMissing = (parts: readonly unknown[]) => (parts.length === 0 ? { missing: true as const } : {});
  const count = (kind: string) =>
    differences.reduce((sum, difference) => sum + (difference.kind === kind ? difference.count : 0), 0);
  // Rows in motion can make the numbers of rows differ; without differing rows that is no difference.
  const sameRows = finding.form ? differences.length === 0 && isComplete : finding.left === finding.right;
  const isThere = unit.left.length > 0 && unit.right.length > 0;
  return {
    schema: finding.schema,
    name: finding.name,
    equal: sameRows && isThere && own.length === 0 && problem === undefined,
    left: { rows: finding.left, ...isMissing(unit.left) },
    right: { rows: finding.right, ...isMissing(unit.right) },
    ...(differences.length > 0
      ? { onlyLeft: count("onlyLeft"), onlyRight: count("onlyRight"), changed: count("changed") }
      : {}),
    ...(isComplete ? {} : { atLeast: true as const }),
    ...(inMotion ? { inMotion } : {}),
    ...(finding.columns?.length ? { columns: finding.columns } : {}),
    ...(finding.shown ? { differences: finding.shown } : {}),
    ...(finding.leftOut ? { differencesLeftOut: finding.leftOut } : {}),
    ...(own.length > 0 ? { schemaDifferences: own } : {}),
    ...(problem === undefined ? {} : { problem }),
  };
}

function sizeOf({ left, right }: Unit): number {
  return [...left, ...right].reduce((sum, { bytes }) => sum + bytes, 0);
}

function labelOf({ schema, name }: { readonly schema: string; readonly name: string }): string {
  return `${schema}.${name}`;
}
