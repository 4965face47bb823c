import type { Definition, TableName } from "../drivers/driver.ts";
import { type Drift, type DriftOptions, isWider } from "./plan-restore.ts";

/**
 * Compares the types that a stored table is made of with those of the same names at the target. A composite's text holds
 * its values by position, and a domain or an attribute of fewer digits rounds: both would load without an error.
 */
export function findTypeDrift(
  table: TableName,
  stored: readonly Definition[],
  there: readonly Definition[],
  options: DriftOptions,
): Pick<Drift, "problems" | "warnings"> {
  const target = new Map(there.map((definition) => [keyOf(definition), definition]));
  const sentences = typesOf(table, stored).flatMap((type) => {
    const other = target.get(keyOf(type));
    if (!other || isSame(type, other)) return [];
    return [
      `the ${type.kind} ${type.schema}.${type.name} of ${table.schema}.${table.name} is defined differently there`,
    ];
  });
  return options.allowConversion ? { problems: [], warnings: sentences } : { problems: sentences, warnings: [] };
}

/** The types that a table needs, directly or through others. */
function typesOf({ schema, name }: TableName, definitions: readonly Definition[]): readonly Definition[] {
  const seen = new Set([
    definitions.findIndex((one) => one.kind === "table" && one.schema === schema && one.name === name),
  ]);
  // A set gives what is added to it while it is walked, too.
  for (const place of seen) for (const needed of definitions[place]?.needs ?? []) seen.add(needed);
  return [...seen].flatMap((place) => {
    const definition = definitions[place];
    return definition?.kind === "type" || definition?.kind === "domain" ? [definition] : [];
  });
}

const DOMAIN_BASE = /^CREATE DOMAIN (?:"(?:[^"]|"")+"\.?){2} AS (.*?)(?: COLLATE | DEFAULT | NOT NULL| CONSTRAINT |;)/s;
const RANGE_SUBTYPE = /^CREATE TYPE (?:"(?:[^"]|"")+"\.?){2} AS RANGE \(SUBTYPE = (.*?), SUBTYPE_OPCLASS/s;
const ENUM = /^CREATE TYPE (?:"(?:[^"]|"")+"\.?){2} AS ENUM/;

/** What the server checks itself, labels and constraints, may differ: it complains, or nothing is lost. */
function isSame(stored: Definition, there: Definition): boolean {
  if (stored.sql === there.sql) return true;
  if (ENUM.test(stored.sql) && ENUM.test(there.sql)) return true;
  for (const pattern of [DOMAIN_BASE, RANGE_SUBTYPE]) {
    const [from, to] = [pattern.exec(stored.sql)?.[1], pattern.exec(there.sql)?.[1]];
    if (from !== undefined && to !== undefined) return from === to || isWider(from, to);
  }
  return false;
}

function keyOf({ schema, name }: Definition): string {
  return JSON.stringify([schema, name]);
}
