import type { TableName } from "../drivers/driver.ts";
import type { TargetColumn, TargetTable } from "../drivers/replacer.ts";
import type { StoredTable } from "../snapshot/manifest.ts";

/** One table of the target whose rows are replaced, and the stored tables that its new rows come from. */
export interface RestoreUnit {
  readonly table: TableName;
  /** Several for a partitioned table: its leaves, which go in through the root. */
  readonly parts: readonly StoredTable[];
  readonly rows: number;
}

/**
 * Groups the chosen tables of a snapshot into what is replaced at the target. When every stored partition of a root is
 * chosen, and none was left out of it, the root is replaced as one, whatever its partitions are there; else the chosen
 * partitions one by one.
 */
export function planUnits(chosen: readonly StoredTable[], all: readonly StoredTable[]): readonly RestoreUnit[] {
  const units = new Map<string, { table: TableName; parts: StoredTable[] }>();
  for (const part of chosen) {
    const root = part.partitionRoot;
    const isWhole =
      root !== undefined &&
      !part.isRootPartial &&
      all.filter((table) => sameName(table.partitionRoot, root)).every((table) => chosen.includes(table));
    const { schema, name } = isWhole ? root : part;
    const key = JSON.stringify([schema, name]);
    const unit = units.get(key) ?? { table: { schema, name }, parts: [] };
    unit.parts.push(part);
    units.set(key, unit);
  }
  return [...units.values()].map((unit) => ({ ...unit, rows: unit.parts.reduce((sum, part) => sum + part.rows, 0) }));
}

function sameName(left: TableName | undefined, right: TableName): boolean {
  return left?.schema === right.schema && left.name === right.name;
}

/** The columns whose values are stored, in the order of the stored bytes. */
export function storedColumnsOf(table: StoredTable): readonly string[] {
  return table.columns.filter((column) => !column.generated).map((column) => column.name);
}

export interface DriftOptions {
  readonly allowConversion: boolean;
  readonly ignoreMissing: boolean;
}

export interface Drift {
  /** Why the restore must not be done, one sentence each. */
  readonly problems: readonly string[];
  readonly warnings: readonly string[];
  /** Stored columns that the target lacks and that are left out (`ignoreMissing`). */
  readonly missing: readonly string[];
}

/** Compares the columns of a stored table with the target's: what would lose or change a value is a problem. */
export function findDrift(stored: StoredTable, target: TargetTable, options: DriftOptions): Drift {
  const problems: string[] = [];
  const warnings: string[] = [];
  const missing: string[] = [];
  const label = `${target.schema}.${target.name}`;
  const columns = new Map(target.columns.map((column) => [column.name, column]));
  for (const column of stored.columns) {
    const there = columns.get(column.name);
    if (column.generated) {
      if (!there || there.generated) continue;
      // It would be filled with its default or NULL in place of what was computed.
      const list = options.allowConversion ? warnings : problems;
      list.push(
        `${label}.${column.name} is stored there, but computed in the snapshot, which does not hold its values`,
      );
    } else if (!there) {
      missing.push(column.name);
      const list = options.ignoreMissing ? warnings : problems;
      list.push(`${label} has no column ${column.name}`);
    } else if (there.generated) {
      problems.push(`${label}.${column.name} is generated there, but its values are stored`);
    } else if (there.type !== column.type && !isWider(column.type, there.type)) {
      const list = options.allowConversion ? warnings : problems;
      list.push(`${label}.${column.name} is ${there.type} there, but ${column.type} in the snapshot`);
    }
  }
  const known = new Set(stored.columns.map((column) => column.name));
  for (const column of target.columns) {
    if (known.has(column.name) || column.generated) continue;
    if (needsValue(column)) problems.push(`${label}.${column.name} is not in the snapshot and takes no default`);
    else warnings.push(`${label}.${column.name} is not in the snapshot: it gets its default`);
  }
  if (stored.condition !== target.condition) {
    problems.push(`${label}: which of its rows belong to an extension is not what it was`);
  }
  if (target.rowSecurity) problems.push(`${label} has row security that hides rows from this login`);
  return { problems, warnings, missing };
}

function needsValue(column: TargetColumn): boolean {
  return column.notNull && !column.hasDefault && !column.identity;
}

const INTEGERS = ["smallint", "integer", "bigint"];

/** Whether every value of the first type stays exactly what it is in the second one. */
export function isWider(from: string, to: string): boolean {
  const integer = INTEGERS.indexOf(from);
  if (integer >= 0 && INTEGERS.indexOf(to) > integer) return true;
  if (integer >= 0 && to === "numeric") return true;
  const text = /^character varying(?:\((\d+)\))?$/;
  const [source, target] = [text.exec(from), text.exec(to)];
  if (source && to === "text") return true;
  if (from === "text" && target && target[1] === undefined) return true;
  if (source && target)
    return target[1] === undefined || (source[1] !== undefined && Number(source[1]) <= Number(target[1]));
  const numeric = /^numeric\((\d+),(-?\d+)\)$/;
  const [narrow, wide] = [numeric.exec(from), numeric.exec(to)];
  if (narrow && to === "numeric") return true;
  if (!narrow || !wide) return false;
  const [precision, scale, widePrecision, wideScale] = [narrow[1], narrow[2], wide[1], wide[2]].map(Number) as [
    number,
    number,
    number,
    number,
  ];
  // A larger scale would print more zeros: equal in value, not in text.
  return wideScale === scale && widePrecision >= precision;
}
