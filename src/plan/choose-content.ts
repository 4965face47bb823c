import { OperationalError } from "../base/errors.ts";
import type { Definition } from "../drivers/driver.ts";
import type { Manifest } from "../snapshot/manifest.ts";
import { matchTables } from "./table-patterns.ts";

export interface ChosenContent {
  /** The manifest with nothing but the chosen tables and what they need. */
  readonly manifest: Manifest;
  /** What belongs to the chosen tables and is left out, and tables that are made without their rows. */
  readonly warnings: readonly string[];
}

const DEPENDENCY = "extension-dependency";

/** These belong to a table and may stay away; all else is part of it. */
const DISPENSABLE = new Set([
  "foreign-key",
  "trigger",
  "rule",
  "policy",
  "publication",
  "grant",
  "comment",
  DEPENDENCY,
]);

/**
 * Gives the part of a snapshot that makes some tables in an empty database: the tables, the partitioned ones above them, and
 * what their definitions need. Fails with kind `usage` for a pattern without a table, `refused` where the snapshot does not
 * tell what its definitions need.
 */
export function chooseContent(manifest: Manifest, patterns: readonly string[]): ChosenContent {
  if (manifest.definitions.some(({ needs }) => needs === undefined)) {
    throw new OperationalError(`cannot choose tables of ${manifest.id}: it does not tell what its tables need`, {
      kind: "refused",
      code: "no-dependencies",
      hint: "Restore the whole database with --create, then drop what you do not want.",
    });
  }
  const definitions = withWholeViews(manifest.definitions);
  const tables = matchTables(patterns, manifest.tables);
  const chosen = withAncestors(definitions, new Set(tables.map(nameOf)));
  const { kept, leftOut } = chooseDefinitions(definitions, chosen);
  const bare = [...kept].flatMap((place) => {
    const table = tableMadeBy(definitions[place]);
    return table && !chosen.has(table) ? [table] : [];
  });
  const sequences = new Set(
    [...kept].flatMap((place) => (definitions[place]?.kind === "sequence" ? [nameOf(definitions[place])] : [])),
  );
  return {
    manifest: {
      ...manifest,
      definitions: definitions.filter((_, place) => kept.has(place)).map((own) => ({ ...own, needs: undefined })),
      tables,
      sequences: manifest.sequences.filter((sequence) => sequences.has(nameOf(sequence))),
      largeObjects: { count: 0, chunks: [] },
    },
    warnings: [
      ...leftOut.map((place) => sentenceOf(definitions, place, chosen)),
      ...[...new Set(bare)].map((table) => `table ${labelOf(table)} is made without rows: a chosen table needs it`),
      ...(manifest.largeObjects.count > 0 ? ["large objects are not restored with chosen tables"] : []),
    ],
  };
}

/** Adds the partitioned tables above chosen partitions. */
function withAncestors(definitions: readonly Definition[], tables: ReadonlySet<string>): ReadonlySet<string> {
  const chosen = new Set(tables);
  const attachments = definitions.filter(({ kind }) => kind === "attach");
  for (const name of chosen) {
    for (const { table, needs } of attachments) {
      if (!table || nameOf(table) !== name) continue;
      for (const place of needs ?? []) {
        const parent = tableMadeBy(definitions[place]);
        if (parent) chosen.add(parent);
      }
    }
  }
  return chosen;
}

function chooseDefinitions(definitions: readonly Definition[], chosen: ReadonlySet<string>) {
  const kept = new Set<number>();
  const leftOut: number[] = [];
  const own = definitions.flatMap(({ table }, place) => (table && chosen.has(nameOf(table)) ? [place] : []));
  for (const place of own) {
    if (DISPENSABLE.has(definitions[place]?.kind ?? "")) continue;
    for (const needed of reachable(definitions, place)) kept.add(needed);
  }
  for (const place of own) {
    const { kind } = definitions[place] ?? {};
    if (kind === undefined || !DISPENSABLE.has(kind) || isRemark(kind) || kind === "publication") continue;
    if (foreignNeedsOf(definitions, place, chosen).some((at) => kind === "foreign-key" || !kept.has(at))) {
      leftOut.push(place);
    } else {
      for (const at of reachable(definitions, place)) kept.add(at);
    }
  }
  for (const [place, { kind, needs = [] }] of definitions.entries()) {
    // What goes with an extension can be there without it.
    const about = kind === DEPENDENCY ? needs.filter((at) => definitions[at]?.kind !== "extension") : needs;
    if (!isRemark(kind) || about.length === 0 || !about.every((at) => kept.has(at))) continue;
    for (const at of reachable(definitions, place)) kept.add(at);
  }
  return { kept, leftOut };
}

/** Comments, rights and the like follow what they speak of. */
function isRemark(kind: string): boolean {
  return kind === "comment" || kind === "grant" || kind === DEPENDENCY;
}

/** It makes a relation that nobody chose. */
function isForeign(definition: Definition | undefined, chosen: ReadonlySet<string>): boolean {
  const table = tableMadeBy(definition);
  return table !== undefined ? !chosen.has(table) : definition?.kind === "view" || definition?.kind === "matview";
}

/** Tables and views that nobody chose and that it needs; a key to a table without its rows would be broken. */
function foreignNeedsOf(definitions: readonly Definition[], place: number, chosen: ReadonlySet<string>) {
  const { kind, needs = [] } = definitions[place] ?? {};
  // A key's own table may have parents without rows, which do not touch the key.
  const needed = kind === "foreign-key" ? needs : [...reachable(definitions, place)];
  return needed.filter((at) => isForeign(definitions[at], chosen));
}

/** A definition with all that it needs. */
function reachable(definitions: readonly Definition[], place: number): ReadonlySet<number> {
  const seen = new Set([place]);
  for (const at of seen) for (const needed of definitions[at]?.needs ?? []) seen.add(needed);
  return seen;
}

/** A view that is made in two steps, its columns first, is worth nothing without the second one. */
function withWholeViews(definitions: readonly Definition[]): readonly Definition[] {
  const wholes = new Map<number, number>();
  for (const [place, { kind, needs = [], ...own }] of definitions.entries()) {
    const isFirst = (at: number) => definitions[at]?.kind === "view" && nameOf(own) === nameOf(definitions[at]);
    const first = kind === "view" ? needs.find(isFirst) : undefined;
    if (first !== undefined) wholes.set(first, place);
  }
  return definitions.map((own, place) => {
    const whole = wholes.get(place);
    return whole === undefined ? own : { ...own, needs: [...(own.needs ?? []), whole] };
  });
}

function sentenceOf(definitions: readonly Definition[], place: number, chosen: ReadonlySet<string>): string {
  const { kind = "", name = "", table } = definitions[place] ?? {};
  const foreign = foreignNeedsOf(definitions, place, chosen).flatMap((at) => {
    const needed = definitions[at];
    return needed ? [labelOf(nameOf(needed))] : [];
  });
  const owner = table ? ` of ${table.schema}.${table.name}` : "";
  return `${kind} ${name}${owner} is not restored: it needs ${[...new Set(foreign)].join(", ")}`;
}

function tableMadeBy(definition: Definition | undefined): string | undefined {
  return definition?.kind === "table" ? nameOf(definition) : undefined;
}

function nameOf({ schema, name }: Pick<Definition, "schema" | "name">): string {
  return JSON.stringify([schema ?? "", name ?? ""]);
}

function labelOf(name: string): string {
  return (JSON.parse(name) as readonly string[]).join(".");
}
