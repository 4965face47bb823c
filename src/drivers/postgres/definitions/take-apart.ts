import type { CapturedObject, ObjectPart } from "./captured-object.ts";

export interface DependencyGraph {
  readonly objects: readonly CapturedObject[];
  /** What each object needs, with what its parts need. */
  readonly needs: ReadonlyMap<string, ReadonlySet<string>>;
  /** What each part of an object needs by itself. */
  readonly partNeeds: ReadonlyMap<string, ReadonlySet<string>>;
}

/** What may be made on its own, in the order in which that is tried: a check is then asked of all rows, behind those that need it. */
const PART_KINDS = ["check", "view"] as const;

/**
 * Chooses the parts that must be made on their own, like pg_dump: those by which an object needs itself (a check over the row of its own table), and
 * those by which a table needs what comes behind the rows (a view that groups by a primary key). Gives the parts of one kind at a time.
 */
export function chooseParts(graph: DependencyGraph): ReadonlySet<string> {
  const { objects } = graph;
  const late = findLate(graph);
  const stuck = findStuck(graph);
  // A table that comes late itself, and all that makes it late.
  const before = new Set<string>();
  for (const { key, definition } of objects) if (definition.kind === "table" && late.has(key)) before.add(key);
  for (const key of before) for (const needed of graph.needs.get(key) ?? []) if (late.has(needed)) before.add(needed);
  for (const kind of PART_KINDS) {
    const chosen = new Set<string>();
    for (const { key, parts = [] } of objects) {
      for (const part of parts) {
        if (part.kind !== kind) continue;
        const needs = graph.partNeeds.get(part.key) ?? new Set();
        const isLate = before.has(key) && !needs.isDisjointFrom(late);
        if (isLate || (stuck.has(key) && reachable(needs, graph).has(key))) chosen.add(part.key);
      }
    }
    if (chosen.size > 0) return chosen;
  }
  return new Set();
}

/** Makes objects of parts. */
export function takeApart(objects: readonly CapturedObject[], chosen: ReadonlySet<string>): readonly CapturedObject[] {
  return objects.flatMap((object) => {
    const { parts = [], sqlWith, ...whole } = object;
    const apart = parts.filter(({ key }) => chosen.has(key));
    if (apart.length === 0 || !sqlWith) return [object];
    const rest = parts.filter((part) => !apart.includes(part));
    const definition = { ...whole.definition, sql: sqlWith(rest) };
    return [{ ...whole, definition, parts: rest, sqlWith }, ...apart.map((part) => objectOf(part, object))];
  });
}

function objectOf(
  { key, kind, name, sql }: ObjectPart,
  { key: completes, definition }: CapturedObject,
): CapturedObject {
  const { schema, table } = definition;
  const about = { section: "pre-data" as const, kind, schema, name, ...(table ? { table } : {}) };
  return { key, completes, definition: { ...about, sql } };
}

/** What comes after the rows, or needs something that does. */
function findLate({ objects, needs }: DependencyGraph): ReadonlySet<string> {
  const needing = neededBy(needs);
  const late = new Set<string>();
  for (const { key, definition } of objects) if (definition.section === "post-data") late.add(key);
  for (const key of late) for (const other of needing.get(key) ?? []) late.add(other);
  return late;
}

/** What is in a circle, or needs something that is. */
function findStuck({ needs }: DependencyGraph): ReadonlySet<string> {
  const needing = neededBy(needs);
  const waiting = new Map([...needs].map(([key, own]) => [key, own.size]));
  const ready = [...needs.keys()].filter((key) => waiting.get(key) === 0);
  for (const key of ready) {
    waiting.delete(key);
    for (const other of needing.get(key) ?? []) {
      const left = (waiting.get(other) ?? 0) - 1;
      waiting.set(other, left);
      if (left === 0) ready.push(other);
    }
  }
  return new Set(waiting.keys());
}

/** Turns needs around. */
export function neededBy(needs: ReadonlyMap<string, Iterable<string>>): ReadonlyMap<string, readonly string[]> {
  const needing = new Map<string, string[]>();
  for (const [key, own] of needs) {
    for (const needed of own) {
      const others = needing.get(needed);
      if (others) others.push(key);
      else needing.set(needed, [key]);
    }
  }
  return needing;
}

/** Keys with all that they need. */
export function reachable(from: Iterable<string>, { needs }: Pick<DependencyGraph, "needs">): ReadonlySet<string> {
  const seen = new Set(from);
  for (const key of seen) for (const needed of needs.get(key) ?? []) seen.add(needed);
  return seen;
}
