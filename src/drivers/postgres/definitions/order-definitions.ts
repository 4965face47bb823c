import type { Definition } from "../../driver.ts";
import { type CapturedObject, type CatalogQuery, keyOf } from "./captured-object.ts";
import { chooseParts, type DependencyGraph, neededBy, takeApart } from "./take-apart.ts";

/** An object with the keys of those that must be there before it. */
export interface OrderedObject extends CapturedObject {
  readonly needs: readonly string[];
  /** It needs something that is not captured. */
  readonly lacks: boolean;
}

const RANKS: readonly string[] = [
  "schema",
  "extension",
  "type",
  "domain",
  "collation",
  "text-search-dictionary",
  "text-search-configuration",
  "function",
  "procedure",
  "operator",
  "operator-family",
  "operator-class",
  "cast",
  "table",
  "attach",
  "sequence",
  "aggregate",
  "default",
  "check",
  "view",
  "matview",
  "constraint",
  "index",
  "statistics",
  "replica-identity",
  "foreign-key",
  "trigger",
  "rule",
  "policy",
  "refresh",
  "publication",
  "extension-dependency",
  "comment",
  "grant",
]; // prettier-ignore

/**
 * Orders objects so that each comes after what it needs, by pg_depend; where that leaves a choice, by kind and name. Where it
 * leaves none, checks and what views read become statements of their own.
 * `missing` are keys of objects that are not captured. What needs something that comes after the rows comes after them itself (a view that groups by a primary key).
 */
export async function orderDefinitions(
  query: CatalogQuery,
  objects: readonly CapturedObject[],
  missing: ReadonlySet<string>,
): Promise<readonly OrderedObject[]> {
  const catalogs = { aliases: await readAliases(query), dependencies: await query(DEPENDENCIES), missing };
  let linked = link(objects, catalogs);
  for (let apart = chooseParts(linked); apart.size > 0; apart = chooseParts(linked)) {
    linked = link(takeApart(linked.objects, apart), catalogs);
  }
  const { needs, lacking } = linked;
  addRefreshNeeds(linked);
  return sortObjects(
    linked.objects.map((object) => ({
      ...object,
      lacks: lacking.has(object.key),
      needs: [...(needs.get(object.key) ?? [])],
    })),
  );
}

interface Catalogs {
  readonly aliases: ReadonlyMap<string, string>;
  /** Catalog and oid of what needs, catalog and oid of what is needed. */
  readonly dependencies: readonly (readonly (string | null)[])[];
  readonly missing: ReadonlySet<string>;
}

interface Linked extends DependencyGraph {
  readonly needs: ReadonlyMap<string, Set<string>>;
  readonly lacking: ReadonlySet<string>;
}

/** Finds what each object needs, and each of its parts. */
function link(objects: readonly CapturedObject[], { aliases, dependencies, missing }: Catalogs): Linked {
  const known = new Set(objects.map(({ key }) => key));
  const resolve = resolver(aliases, known.union(missing));
  const lacking = new Set<string>();
  // What says something of an object that is not captured (a comment on a function in C) goes with it.
  const kept = objects.filter(({ key }) => ownNeedsOf(key).every((base) => known.has(resolve(base))));
  const needs = new Map<string, Set<string>>(
    kept.map(({ key, after = [], completes }) => {
      const own = [...ownNeedsOf(key).map(resolve), ...after, ...(completes ? [completes] : [])];
      return [key, new Set(own.filter((needed) => known.has(needed)))];
    }),
  );
  const partNeeds = new Map<string, Set<string>>();
  for (const { parts = [] } of kept) for (const part of parts) partNeeds.set(part.key, new Set());
  for (const [catalog, oid, refCatalog, refOid] of dependencies) {
    const raw = keyOf(catalog ?? "", oid);
    const key = resolve(raw);
    const needed = resolve(keyOf(refCatalog ?? "", refOid));
    if (missing.has(needed)) lacking.add(key);
    if (key === needed || !needs.has(needed)) continue;
    needs.get(key)?.add(needed);
    partNeeds.get(raw)?.add(needed);
  }
  return { objects: kept, needs, partNeeds, lacking };
}

const DEPENDENCIES = `
  select distinct d.classid::pg_catalog.regclass::pg_catalog.text, d.objid, d.refclassid::pg_catalog.regclass::pg_catalog.text, d.refobjid
    from pg_catalog.pg_depend d where d.deptype in ('n', 'a', 'i', 'P', 'S') and d.objid >= 16384`;

/** A part of an object comes after the object; a partition's attachment after what it is a part of. */
function ownNeedsOf(key: string): readonly string[] {
  const base = key.split(":").slice(0, 2).join(":");
  return base === key ? [] : [base];
}

/** A refresh reads views and other materialized views: theirs come first. */
function addRefreshNeeds({ objects, needs }: Linked): void {
  const parts = new Map(objects.flatMap(({ key, completes }) => (completes ? [[completes, key] as const] : [])));
  for (const [key, own] of needs) {
    if (!key.endsWith(":refresh")) continue;
    const seen = new Set([key.slice(0, -":refresh".length)]);
    for (const at of seen) {
      const part = parts.get(at);
      for (const needed of [...(needs.get(at) ?? []), ...(part ? [part] : [])]) seen.add(needed);
      if (part) own.add(part);
    }
    for (const needed of seen) {
      const refresh = `${needed}:refresh`;
      if (refresh !== key && needs.has(refresh)) own.add(refresh);
    }
  }
}

/** What pg_depend calls otherwise than the captured objects are called: row types, array types, rules of views … */
async function readAliases(query: CatalogQuery): Promise<ReadonlyMap<string, string>> {
  const rows = await query(`
    select 'pg_type:' || t.oid, case when c.relkind = 'c' then 'pg_type:' || t.oid else 'pg_class:' || c.oid end
      from pg_catalog.pg_type t join pg_catalog.pg_class c on c.oid = t.typrelid where t.oid >= 16384 and c.relkind <> 'c'
    union all select 'pg_class:' || c.oid, 'pg_type:' || c.reltype from pg_catalog.pg_class c where c.relkind = 'c'
    union all select 'pg_type:' || t.oid, 'pg_type:' || t.typelem from pg_catalog.pg_type t where t.typelem <> 0 and t.typcategory = 'A' and t.oid >= 16384
    union all select 'pg_type:' || (pg_catalog.to_jsonb(r)->>'rngmultitypid'), 'pg_type:' || r.rngtypid from pg_catalog.pg_range r where r.rngtypid >= 16384
    union all select 'pg_rewrite:' || r.oid, 'pg_class:' || r.ev_class from pg_catalog.pg_rewrite r where r.rulename = '_RETURN'
    union all select 'pg_attrdef:' || d.oid, 'pg_class:' || d.adrelid from pg_catalog.pg_attrdef d
    union all select 'pg_constraint:' || k.oid, case when k.contypid <> 0 then 'pg_type:' || k.contypid else 'pg_class:' || k.conrelid end
                from pg_catalog.pg_constraint k where k.contypid <> 0 or k.contype in ('c', 'n')
    union all select d.classid::pg_catalog.regclass::pg_catalog.text || ':' || d.objid,
                     case when d.refclassid = 'pg_catalog.pg_opclass'::pg_catalog.regclass then 'pg_opclass:' || d.refobjid else 'pg_opfamily:' || d.refobjid || ':members' end
                from pg_catalog.pg_depend d
               where d.classid in ('pg_catalog.pg_amop'::pg_catalog.regclass, 'pg_catalog.pg_amproc'::pg_catalog.regclass)
                 and d.refclassid in ('pg_catalog.pg_opclass'::pg_catalog.regclass, 'pg_catalog.pg_opfamily'::pg_catalog.regclass)
    union all select m.classid::pg_catalog.regclass::pg_catalog.text || ':' || m.objid, 'pg_extension:' || m.refobjid
                from pg_catalog.pg_depend m where m.deptype = 'e' and m.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
    union all select 'pg_publication_rel:' || r.oid, 'pg_publication:' || r.prpubid || ':table-' || r.oid from pg_catalog.pg_publication_rel r
    union all select 'pg_class:' || k.conindid, 'pg_constraint:' || k.oid from pg_catalog.pg_constraint k where k.contype in ('p', 'u', 'x')`);
  return new Map(rows.map(([from, to]) => [from ?? "", to ?? ""]));
}

function resolver(aliases: ReadonlyMap<string, string>, known: ReadonlySet<string>): (key: string) => string {
  return (key) => {
    let at = key;
    for (let step = 0; step < 8 && !known.has(at); step += 1) at = aliases.get(at) ?? at;
    return at;
  };
}

/** Kahn's algorithm; where objects need each other in a circle, the one of the lowest rank goes first. */
function sortObjects(objects: readonly OrderedObject[]): readonly OrderedObject[] {
  const byKey = new Map(objects.map((object) => [object.key, object]));
  const waiting = new Map(objects.map((object) => [object.key, object.needs.length]));
  const needing = neededBy(new Map(objects.map(({ key, needs }) => [key, needs])));
  const position = new Map(objects.toSorted(byRank).map(({ key }, index) => [key, index]));
  const order = (left: string, right: string) => (position.get(left) ?? 0) - (position.get(right) ?? 0);
  const sorted: OrderedObject[] = [];
  const sections = new Map<string, Definition["section"]>();
  const ready = objects
    .filter(({ needs }) => needs.length === 0)
    .map(({ key }) => key)
    .sort(order);
  while (waiting.size > 0) {
    const key = ready.shift() ?? [...waiting.keys()].sort(order)[0] ?? "";
    const object = byKey.get(key);
    if (!object || !waiting.delete(key)) continue;
    const isLate =
      object.definition.section === "post-data" || object.needs.some((needed) => sections.get(needed) === "post-data");
    const section = isLate ? "post-data" : "pre-data";
    sections.set(key, section);
    sorted.push({ ...object, definition: { ...object.definition, section } });
    for (const other of needing.get(key) ?? []) {
      if (!waiting.has(other)) continue;
      const left = (waiting.get(other) ?? 1) - 1;
      waiting.set(other, left);
      if (left === 0) insertSorted(ready, other, order);
    }
  }
  return [...sorted.filter(isBefore), ...sorted.filter((object) => !isBefore(object))];
}

/** Always the lowest rank of those that can come next: keys are complete before the first foreign key. */
function insertSorted(list: string[], key: string, order: (left: string, right: string) => number): void {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (order(list[middle] ?? "", key) < 0) low = middle + 1;
    else high = middle;
  }
  list.splice(low, 0, key);
}

function isBefore({ definition }: OrderedObject): boolean {
  return definition.section === "pre-data";
}

function byRank(left: CapturedObject, right: CapturedObject): number {
  const rank = ({ definition }: CapturedObject) => RANKS.indexOf(definition.kind);
  return rank(left) - rank(right) || compareTexts(nameOf(left), nameOf(right));
}

function nameOf({ definition, key }: CapturedObject): string {
  return `${definition.schema ?? ""}\0${definition.name}\0${key.split(":").slice(2).join(":")}\0${definition.sql}`;
}

function compareTexts(left: string, right: string): number {
  return left < right ? -1 : left > right ? 1 : 0;
}
