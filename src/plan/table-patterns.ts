import { OperationalError } from "../base/errors.ts";
import { nearestName } from "../base/nearest-name.ts";
import type { ChosenTable, TableChoice, TableName } from "../drivers/driver.ts";

/** One pattern, taken apart. An undefined schema matches every schema. */
interface Pattern {
  readonly text: string;
  readonly schema: RegExp | undefined;
  readonly name: RegExp;
}

/**
 * Gives the tables that at least one pattern matches, in their own order. A pattern is `orders` (in any schema),
 * `public.orders`, `*.audit_*`; a part in double quotes is meant letter by letter, with `""` for a quote in it. Names are
 * compared byte by byte: an upper-case letter is never the lower-case one.
 * Fails with kind `usage`, `unknown-table`, when a pattern matches nothing, and `invalid-pattern`.
 */
export function matchTables<T extends ChosenTable>(patterns: readonly string[], tables: readonly T[]): readonly T[] {
  const parsed = patterns.map(parsePattern);
  const idle = parsed.find((pattern) => !tables.some((table) => matchesOrRoot(pattern, table)));
  if (idle) throw unknownTable(idle.text, tables);
  return tables.filter((table) => parsed.some((pattern) => matchesOrRoot(pattern, table)));
}

export interface TablePatterns {
  readonly include?: readonly string[] | undefined;
  readonly exclude?: readonly string[] | undefined;
  readonly schemaOnly?: readonly string[] | undefined;
}

/** Makes the choice that a job's `tables:` describes. A partition follows the patterns of its own name and its root's. */
export function chooseTable({ include, exclude, schemaOnly }: TablePatterns): (table: ChosenTable) => TableChoice {
  const [included, excluded, bare] = [include ?? ["*"], exclude ?? [], schemaOnly ?? []].map((patterns) =>
    patterns.map(parsePattern),
  );
  const any = (patterns: readonly Pattern[] | undefined, table: ChosenTable) =>
    (patterns ?? []).some((pattern) => matchesOrRoot(pattern, table));
  return (table) => {
    if (!any(included, table) || any(excluded, table)) return "excluded";
    return any(bare, table) ? "schema-only" : "rows";
  };
}

/** A choice that remembers which patterns of `include` no table has matched so far. */
export interface WatchedChoice {
  readonly choose: (table: ChosenTable) => TableChoice;
  idlePatterns(): readonly string[];
}

export function watchChoice(patterns: TablePatterns): WatchedChoice {
  const choose = chooseTable(patterns);
  const idle = new Set(patterns.include?.map(parsePattern));
  return {
    choose: (table) => {
      for (const pattern of idle) if (matchesOrRoot(pattern, table)) idle.delete(pattern);
      return choose(table);
    },
    idlePatterns: () => [...idle].map(({ text }) => text),
  };
}

function matchesOrRoot(pattern: Pattern, table: ChosenTable): boolean {
  return matches(pattern, table) || (table.partitionRoot !== undefined && matches(pattern, table.partitionRoot));
}

function matches(pattern: Pattern, table: TableName): boolean {
  return (pattern.schema?.test(table.schema) ?? true) && pattern.name.test(table.name);
}

const PART = /^(?:"((?:[^"]|"")+)"|([^".]+))(?:\.|$)/;

function parsePattern(text: string): Pattern {
  const parts: RegExp[] = [];
  let rest = text.trim();
  while (rest !== "") {
    const match = PART.exec(rest);
    if (!match) throw invalidPattern(text);
    parts.push(match[1] === undefined ? globOf(match[2] ?? "") : exactly(match[1].replaceAll('""', '"')));
    if (match[0] === rest && rest.endsWith(".")) throw invalidPattern(text);
    rest = rest.slice(match[0].length);
  }
  const [first, second] = parts;
  if (!first || parts.length > 2) throw invalidPattern(text);
  return second ? { text, schema: first, name: second } : { text, schema: undefined, name: first };
}

function globOf(text: string): RegExp {
  const source = text.replace(/[\\^$.|?+()[\]{}]/g, "\\$&").replaceAll("*", ".*");
  return new RegExp(`^${source}$`, "su");
}

function exactly(text: string): RegExp {
  return new RegExp(`^${text.replace(/[\\^$.*|?+()[\]{}]/g, "\\$&")}$`, "su");
}

function unknownTable(pattern: string, tables: readonly TableName[]): OperationalError {
  const names = tables.flatMap(({ schema, name }) => [name, `${schema}.${name}`]);
  const near = nearestName(pattern, names);
  return new OperationalError(`cannot find a table that matches ${pattern}`, {
    kind: "usage",
    code: "unknown-table",
    hint: near ? `Did you mean ${near}?` : "Patterns look like orders, public.* or *.audit_*.",
  });
}

function invalidPattern(pattern: string): OperationalError {
  return new OperationalError(`cannot use the pattern ${pattern}: it is not schema.table`, {
    kind: "usage",
    code: "invalid-pattern",
    hint: 'Write public.orders, public.*, orders, or "odd.name" in double quotes.',
  });
}
