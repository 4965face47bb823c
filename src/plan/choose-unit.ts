import { OperationalError } from "../base/errors.ts";
import type { Manifest, StoredTable } from "../snapshot/manifest.ts";
import { planUnits, type RestoreUnit } from "./plan-restore.ts";
import { matchTables } from "./table-patterns.ts";

/**
 * Gives the one table whose rows are asked for; a partitioned one with all its partitions. Fails with kind `usage`: no table
 * or several match; `refused` where rows cannot be looked at one by one.
 */
export function chooseUnit(manifest: Manifest, patterns: readonly string[]): RestoreUnit {
  const units = planUnits(matchTables(patterns, manifest.tables), manifest.tables);
  const [unit, ...more] = units;
  if (!unit || more.length > 0) {
    const names = units.map(({ table }) => `${table.schema}.${table.name}`);
    throw new OperationalError(`cannot choose the rows of one table: ${patterns.join(",")} means ${names.join(", ")}`, {
      kind: "usage",
      code: "several-tables",
      hint: "Name one table, with its schema.",
    });
  }
  const { schema, name } = unit.table;
  if (unit.parts.some(({ format }) => format !== "text")) {
    throw new OperationalError(`cannot choose rows of ${schema}.${name}: the snapshot holds them in binary form`, {
      kind: "refused",
      code: "binary-rows",
      hint: "Restore the whole table, into a database of its own if need be.",
    });
  }
  return unit;
}

/** The columns that can be shown of a table: those that every one of its parts has stored, in the order of the first. */
export function shownColumns({ table, parts }: RestoreUnit, wanted: readonly string[] | undefined): readonly string[] {
  const stored = parts.map((part) => new Set(namesOf(part)));
  const all = parts[0] ? namesOf(parts[0]).filter((name) => stored.every((names) => names.has(name))) : [];
  const names = wanted?.map(unquote) ?? all;
  const unknown = names.find((name) => !all.includes(name));
  if (unknown === undefined) return names;
  throw new OperationalError(`cannot show ${table.schema}.${table.name}: it has no stored column ${unknown}`, {
    kind: "usage",
    code: "unknown-column",
    hint: `Its columns are ${all.join(", ")}.`,
  });
}

function namesOf(part: StoredTable): readonly string[] {
  return part.columns.filter(({ generated }) => !generated).map(({ name }) => name);
}

function unquote(name: string): string {
  return /^"(?:[^"]|"")+"$/.test(name) ? name.slice(1, -1).replaceAll('""', '"') : name;
}
