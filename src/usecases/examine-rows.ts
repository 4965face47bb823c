import type { TableName } from "../drivers/driver.ts";
import type { FoundRow } from "../drivers/fingerprints.ts";
import type { RowForm } from "../drivers/row-form.ts";
import type { CompareUnit } from "../plan/plan-compare.ts";
import { compareDifferences, type DifferenceKind, type RowDifference } from "../plan/row-differences.ts";
import type { CompareSide, SideTable } from "./compare-sides.ts";

type Unit = CompareUnit<SideTable, SideTable>;

/** A differing row as it is shown. */
export interface ShownDifference {
  /** Values of the key; of a table without one, the beginning of every value. */
  readonly key: Readonly<Record<string, string | null>>;
  readonly kind: DifferenceKind;
  /** Columns in which a changed row differs. */
  readonly columns?: readonly string[];
  /** How many rows of this content; left out when it is one. */
  readonly count?: number;
}

/** What the comparison of one table has found so far. */
export interface Finding {
  readonly schema: string;
  readonly name: string;
  readonly unit: Unit;
  /** Undefined when only rows were counted. */
  readonly form?: RowForm | undefined;
  readonly left: number;
  readonly right: number;
  readonly differences: readonly RowDifference[];
  /** Whether every differing bucket was listed. */
  readonly isComplete: boolean;
  readonly problem?: string | undefined;
  readonly inMotion?: number | undefined;
  readonly columns?: readonly string[] | undefined;
  readonly shown?: readonly ShownDifference[] | undefined;
  /** How many differing rows are not among those shown. */
  readonly leftOut?: number | undefined;
}

export interface ExamineOptions {
  readonly left: CompareSide;
  readonly right: CompareSide;
  readonly reopen?: (() => Promise<readonly [CompareSide, CompareSide]>) | undefined;
  readonly rows: boolean;
  readonly signal: AbortSignal;
}

/** Keys that one statement looks up, and one pass over the rows of a snapshot. */
const KEYS_AT_ONCE = 500;
const KEYS_A_SCAN = 5000;
/** Differing keys of one table that are looked up at all. */
const MOST_EXAMINED = 20_000;
/** Differing rows of one table that are shown. */
const MOST_SHOWN = 10_000;
/** Rows of tables without a key whose values are shown. */
const MOST_VALUES = 1000;

/**
 * Looks the differing rows up by their keys, once more and later where both sides are live: those that are equal then
 * were in motion. Finds the columns in which the others differ.
 */
export async function examineRows(findings: readonly Finding[], options: ExamineOptions): Promise<readonly Finding[]> {
  const isDiffering = ({ form, differences }: Finding) => (form?.key.length ?? 0) > 0 && differences.length > 0;
  await using stack = new AsyncDisposableStack();
  const again = findings.some(isDiffering) ? await options.reopen?.() : undefined;
  for (const side of again ?? []) stack.use(side);
  const results: Finding[] = [];
  for (const finding of findings) {
    if (isDiffering(finding)) results.push(await examineKeys(finding, { ...options, again }));
    else if (options.rows && finding.differences.length > 0) results.push(await showContents(finding, options));
    else results.push(options.rows && finding.form ? { ...finding, shown: [] } : finding);
  }
  return results;
}

interface ExaminedDifference extends RowDifference {
  readonly columns?: readonly string[];
}

interface KeyOptions extends ExamineOptions {
  readonly again: readonly [CompareSide, CompareSide] | undefined;
}

async function examineKeys(finding: Finding, options: KeyOptions): Promise<Finding> {
  const form = finding.form as RowForm;
  const later = laterUnit(finding, options.again);
  const isLater = later !== undefined;
  const { left, right } = later ?? finding.unit;
  const atOnce = options.left.isLive && options.right.isLive ? KEYS_AT_ONCE : KEYS_A_SCAN;
  const examined: ExaminedDifference[] = [];
  const columns = new Set<string>();
  let inMotion = 0;
  // Without a later look only changed rows have more to tell, unless rows of other buckets are missing from the list.
  const isOpen = (difference: RowDifference) => isLater || !finding.isComplete || difference.kind === "changed";
  const open = finding.differences.filter(isOpen);
  for (let at = 0; at < Math.min(open.length, MOST_EXAMINED); at += atOnce) {
    const some = open.slice(at, Math.min(at + atOnce, MOST_EXAMINED));
    const keys = some.map(({ key }) => key);
    const request = { form, keys, signal: options.signal };
    const [here, there] = await Promise.all([findAll(left, request), findAll(right, request)]);
    for (const difference of some) {
      const verdict = judge(difference, form, here, there, isLater);
      if (!verdict) inMotion += difference.count;
      else examined.push(verdict);
      for (const name of verdict?.columns ?? []) columns.add(name);
    }
  }
  const rest: readonly ExaminedDifference[] = [
    ...open.slice(MOST_EXAMINED),
    ...finding.differences.filter((difference) => !isOpen(difference)),
  ];
  const differences = [...examined, ...rest].sort(compareDifferences);
  const shown = options.rows
    ? differences.slice(0, MOST_SHOWN).map((difference) => keyed(form, difference))
    : undefined;
  const leftOut = shown ? differences.length - shown.length : 0;
  return { ...finding, differences, inMotion, columns: [...columns].sort(), shown, leftOut };
}

/** The same table as the sides have it now; undefined when one of them has lost it, which is no proof of anything. */
function laterUnit({ unit }: Finding, again: readonly [CompareSide, CompareSide] | undefined): Unit | undefined {
  const laterParts = (now: CompareSide | undefined, then: readonly SideTable[]) =>
    (now?.tables ?? []).filter(
      (table) => then.some((part) => isSame(part, table)) || (table.partitionRoot && isSame(table.partitionRoot, unit)),
    );
  const [left, right] = [laterParts(again?.[0], unit.left), laterParts(again?.[1], unit.right)];
  return left.length > 0 && right.length > 0 ? { ...unit, left, right } : undefined;
}

function isSame(one: TableName, other: TableName): boolean {
  return one.schema === other.schema && one.name === other.name;
}

async function findAll(
  parts: readonly SideTable[],
  request: Parameters<SideTable["find"]>[0],
): Promise<ReadonlyMap<string, FoundRow>> {
  const found = await Promise.all(parts.map((part) => part.find(request)));
  return new Map(found.flat().map((row) => [JSON.stringify(row.key), row]));
}

/** Says what a row is now: undefined when it is equal on both sides, or gone from both. */
function judge(
  difference: RowDifference,
  form: RowForm,
  left: ReadonlyMap<string, FoundRow>,
  right: ReadonlyMap<string, FoundRow>,
  isLater: boolean,
): ExaminedDifference | undefined {
  const name = JSON.stringify(difference.key);
  const [here, there] = [left.get(name), right.get(name)];
  if (!here && !there) return isLater ? undefined : difference;
  if (!there) return { ...difference, kind: "onlyLeft" };
  if (!here) return { ...difference, kind: "onlyRight" };
  const columns = form.columns
    .filter((_, index) => here.columns[index] !== there.columns[index])
    .map((column) => column.name);
  if (columns.length > 0) return { ...difference, kind: "changed", columns: columns.sort() };
  // At one and the same instant the lists are right: two rows had this key.
  return isLater ? undefined : difference;
}

/** Shows the content of differing rows of a table without a key. */
async function showContents(finding: Finding, { signal }: ExamineOptions): Promise<Finding> {
  const form = finding.form as RowForm;
  const some = finding.differences.slice(0, MOST_VALUES);
  const show = async (parts: readonly SideTable[], kind: DifferenceKind) => {
    const hashes = some.filter((difference) => difference.kind === kind).map(({ hash }) => hash);
    if (hashes.length === 0) return [];
    return (await Promise.all(parts.map((part) => part.show({ form, hashes, signal })))).flat();
  };
  const shownRows = await Promise.all([show(finding.unit.left, "onlyLeft"), show(finding.unit.right, "onlyRight")]);
  const values = new Map(shownRows.flat().map((row) => [row.hash, row.values]));
  const shown = some.map((difference) => {
    const contents = form.columns.map(({ name }, index) => [name, values.get(difference.hash)?.[index] ?? null]);
    return { key: Object.fromEntries(contents), ...kindOf(difference) };
  });
  return { ...finding, shown, leftOut: finding.differences.length - shown.length };
}

function keyed(form: RowForm, difference: ExaminedDifference): ShownDifference {
  const key = Object.fromEntries(form.key.map((name, index) => [name, difference.key[index] ?? null]));
  return { key, ...kindOf(difference), ...(difference.columns ? { columns: difference.columns } : {}) };
}

function kindOf({ kind, count }: RowDifference): Pick<ShownDifference, "kind" | "count"> {
  return { kind, ...(count === 1 ? {} : { count }) };
}
