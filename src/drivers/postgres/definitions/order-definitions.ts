import type { Definition } from "../../driver.ts";
import { type CapturedObject, type CatalogQuery, keyOf } from "./captured-object.ts";

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
  "comment",
  "grant",
]; // prettier-ignore

/**
 * Orders objects so that each comes after what it needs, by pg_depend; where that leaves a choice, by kind and name.
 * `missing` are keys of objects that are not captured. What needs something that comes after the rows comes after them itself (a view that groups by a primary key).
 */
export async function orderDefinitions(
  query: CatalogQuery,
  objects: readonly CapturedObject[],
  missing: ReadonlySet<string>,
): Promise<readonly OrderedObject[]> {
  const known = new Set(objects.map(({ key }) => key));
  const resolve = await readAliases(query, known.union(missing));
  const lacking = new Set<string>();
  // What says something of an object that is not captured (a comment on a function in C) goes with it.
  const kept = objects.filter(({ key }) => ownNeedsOf(key).every((base) => known.has(resolve(base))));
  const needs = new Map<string, Set<string>>(
    kept.map(({ key, after = [] }) => [key, new Set([...ownNeedsOf(key).map(resolve), ...after])]),
  );
  for (const [catalog, oid, refCatalog, refOid] of await query(DEPENDENCIES)) {
    const key = resolve(keyOf(catalog ?? "", oid));
    const needed = resolve(keyOf(refCatalog ?? "", refOid));
    if (missing.has(needed)) lacking.add(key);
    if (key !== needed && needs.has(needed)) needs.get(key)?.add(needed);
  }
  addRefreshNeeds(needs);
  return sortObjects(
    kept.map((object) => ({
      ...object,
      lacks: lacking.has(object.key),
      needs: [...(needs.get(object.key) ?? [])].filter((key) => needs.has(key)),
    })),
  );
}

const DEPENDENCIES = `
  select distinct d.classid::pg_catalog.regclass::pg_catalog.text, d.objid, d.refclassid::pg_catalog.regclass::pg_catalog.text, d.refobjid
    from pg_catalog.pg_depend d where d.deptype in ('n', 'a', 'i', 'P', 'S') and d.objid >= 16384`;

/** A part of an object comes after the object; a partition's attachment after what it is a part of. */
function ownNeedsOf(key: string): readonly string[] {
  const base = key.split(":").slice(0, 2).join(":");
  return base === key ? [] : [base];
}

/** A refresh reads other materialized views: theirs come first. */
function addRefreshNeeds(needs: ReadonlyMap<string, Set<string>>): void {
  for (const [key, own] of needs) {
    if (!key.endsWith(":refresh")) continue;
    const base = key.slice(0, -":refresh".length);
    for (const needed of reachable(base, needs)) {
      const refresh = `${needed}:refresh`;
      if (refresh !== key && needs.has(refresh)) own.add(refresh);
    }
  }
}

function reachable(from: string, needs: ReadonlyMap<string, Set<string>>): ReadonlySet<string> {
  const seen = new Set([from]);
  for (const key of seen) for (const needed of needs.get(key) ?? []) seen.add(needed);
  return seen;
}

/** What pg_depend calls otherwise than the captured objects are called: row types, array types, rules of views … */
async function readAliases(query: CatalogQuery, known: ReadonlySet<string>): Promise<(key: string) => string> {
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
  const aliases = new Map(rows.map(([from, to]) => [from ?? "", to ?? ""]));
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
  const needing = new Map<string, string[]>();
  for (const { key, needs } of objects)
    for (const needed of needs) needing.set(needed, [...(needing.get(needed) ?? []), key]);
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
