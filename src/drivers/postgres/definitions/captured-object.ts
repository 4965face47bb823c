import type { Definition } from "../../driver.ts";

/** Runs one catalog query; rows are arrays of the strings that the server sent. */
export type CatalogQuery = (sql: string, values?: readonly unknown[]) => Promise<(string | null)[][]>;

/** One object as a reader found it, with the identity by which pg_depend knows it. */
export interface CapturedObject {
  /** Catalog and oid, `pg_class:16384`; the statements of one object come in the order of the list. */
  readonly key: string;
  readonly definition: Definition;
  /** Keys of what comes before it, where that is captured, and pg_depend does not say so. */
  readonly after?: readonly string[];
  /** Parts of the definition that could be statements of their own. */
  readonly parts?: readonly ObjectPart[];
  /** The definition with these of its parts alone. */
  readonly sqlWith?: (rest: readonly ObjectPart[]) => string;
  /** Key of the object of which this was a part. */
  readonly completes?: string;
}

/** A check of a table, or what a view reads, by the key that pg_depend has for it. */
export interface ObjectPart {
  readonly key: string;
  readonly kind: "check" | "view";
  readonly name: string;
  /** The statement that adds it to the object. */
  readonly sql: string;
}

/** WITH clause of `above`: the oids of the tables that the relation `c` inherits from, over all levels. */
export const WITH_ABOVE = `with recursive above(oid) as (
  select i.inhparent from pg_catalog.pg_inherits i where i.inhrelid = c.oid union
  select i.inhparent from above a join pg_catalog.pg_inherits i on i.inhrelid = a.oid)`;

export function keyOf(catalog: string, oid: string | null | undefined, part = ""): string {
  return `${catalog}:${oid ?? ""}${part}`;
}

/** Schemas of users. */
export const USER_SCHEMAS = `n.nspname <> 'information_schema' and n.nspname !~ '^pg_'`;

/** Condition: the object is not part of an extension, which brings its own. */
export function isNoMember(catalog: string, oid: string): string {
  return `not exists (select from pg_catalog.pg_depend x where x.classid = 'pg_catalog.${catalog}'::pg_catalog.regclass
                         and x.objid = ${oid} and x.deptype = 'e')`;
}

/** The name of the column of the NOT NULL `k`. */
export function columnOf(k: string): string {
  return `(select attname from pg_catalog.pg_attribute where attrelid = ${k}.conrelid and attnum = ${k}.conkey[1])`;
}

/** Reads a JSON column of a catalog query. */
export function parseJson<T>(text: string | null | undefined, otherwise: T): T {
  return text === null || text === undefined ? otherwise : (JSON.parse(text) as T);
}
