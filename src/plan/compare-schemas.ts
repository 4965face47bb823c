import type { Column, Definition, TableName } from "../drivers/driver.ts";
import type { ComparedTable, CompareUnit } from "./plan-compare.ts";

/** One thing that the definitions of two sides do not have in common. */
export interface SchemaDifference {
  readonly schema: string;
  /** The table that it belongs to; undefined for what belongs to none (a function, a type …). */
  readonly table?: string | undefined;
  /** `table`, `column`, `primary-key`, `default`, `index`, `constraint`, `foreign-key`, `trigger` … */
  readonly object: string;
  readonly name: string;
  /** What it is on either side, as SQL or in words; undefined: it is missing there. */
  readonly left?: string | undefined;
  readonly right?: string | undefined;
}

/** Kinds that say where rows lie or who may do what, not what the data is. */
const NOT_COMPARED: ReadonlySet<string> = new Set(["grant", "comment", "attach", "schema", "statistics"]);

/** Compares the columns of the tables in these units: by name, whatever their order is. */
export function compareColumns(
  units: readonly CompareUnit<ComparedTable, ComparedTable>[],
): readonly SchemaDifference[] {
  return units.flatMap((unit) => {
    const { schema, name: table, left, right } = unit;
    const [one, other] = [left[0], right[0]];
    if (!one || !other) {
      const there = (parts: readonly unknown[]) => (parts.length > 0 ? "table" : undefined);
      return [{ schema, table, object: "table", name: table, left: there(left), right: there(right) }];
    }
    const names = new Set([...one.columns, ...other.columns].map(({ name }) => name));
    const columns = [...names].map((name) => ({
      schema,
      table,
      object: "column",
      name,
      left: describeColumn(one.columns.find((column) => column.name === name)),
      right: describeColumn(other.columns.find((column) => column.name === name)),
    }));
    const keys = { left: describeKey(one), right: describeKey(other) };
    return [...columns, { schema, table, object: "primary-key", name: table, ...keys }].filter(isDifferent);
  });
}

/**
 * Compares definitions by kind and name, those of tables that are compared and, with all tables, those of no table.
 * CHECK constraints are a part of CREATE TABLE; the columns in it are compared by `compareColumns`.
 */
export function compareDefinitions(
  left: readonly Definition[],
  right: readonly Definition[],
  isCompared: (table: TableName | undefined) => boolean,
): readonly SchemaDifference[] {
  const [one, other] = [left, right].map((definitions) => partsOf(definitions, isCompared)) as [Parts, Parts];
  return [...new Set([...one.keys(), ...other.keys()])]
    .sort()
    .map((key) => {
      const [here, there] = [one.get(key), other.get(key)];
      const { sql: _, ...about } = (here ?? there) as Part;
      return { ...about, left: here?.sql, right: there?.sql };
    })
    .filter(isDifferent);
}

interface Part {
  readonly schema: string;
  readonly table?: string | undefined;
  readonly object: string;
  readonly name: string;
  readonly sql: string;
}

type Parts = ReadonlyMap<string, Part>;

function partsOf(definitions: readonly Definition[], isCompared: (table: TableName | undefined) => boolean): Parts {
  const parts = new Map<string, Part>();
  // Several definitions can have one name (overloaded functions): their order is no difference.
  for (const definition of definitions.toSorted((one, other) => (one.sql < other.sql ? -1 : 1))) {
    if (NOT_COMPARED.has(definition.kind) || !isCompared(definition.table)) continue;
    for (const part of splitTable(definition)) {
      const key = JSON.stringify([part.schema, part.table, part.object, part.name]);
      const known = parts.get(key);
      parts.set(key, known ? { ...known, sql: `${known.sql}\n${part.sql}` } : part);
    }
  }
  return parts;
}

function splitTable({ kind, schema = "", name, table, sql }: Definition): readonly Part[] {
  const about = { schema, ...(table ? { table: table.name } : {}) };
  // It would be there in a circle with its own table.
  const apart = kind === "check" ? / (CHECK .*);$/s.exec(sql)?.[1] : undefined;
  if (apart) return [{ ...about, object: "constraint", name, sql: apart }];
  if (kind !== "table") return [{ ...about, object: kind, name, sql }];
  const [create = "", ...lines] = sql.split("\n");
  if (!create.startsWith("CREATE ")) return [];
  const checks = lines.flatMap((line) => {
    const check = /^ {4}CONSTRAINT ("(?:[^"]|"")+"|\S+) (CHECK .*?),?$/.exec(line);
    return check ? [{ ...about, object: "constraint", name: unquote(check[1] ?? ""), sql: check[2] ?? "" }] : [];
  });
  const isUnlogged = create.startsWith("CREATE UNLOGGED ");
  return [...checks, { ...about, object: "persistence", name, sql: isUnlogged ? "unlogged" : "logged" }];
}

function unquote(name: string): string {
  return name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name;
}

function describeColumn(column: Column | undefined): string | undefined {
  if (!column) return undefined;
  const { type, notNull, generated, identity } = column;
  return [
    type,
    ...(notNull ? ["not null"] : []),
    ...(generated ? [`generated ${generated}`] : []),
    ...(identity ? [`identity ${identity}`] : []),
  ].join(" ");
}

function describeKey({ primaryKey }: ComparedTable): string | undefined {
  return primaryKey.length > 0 ? primaryKey.join(", ") : undefined;
}

function isDifferent({ left, right }: Pick<SchemaDifference, "left" | "right">): boolean {
  return left !== right;
}
