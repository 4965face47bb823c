import { OperationalError } from "../../../base/errors.ts";
import { schemaChanged } from "../schema-changed.ts";
import type { CapturedObject, CatalogQuery } from "./captured-object.ts";

const ACTION = "cannot read the definitions";

/** What functions that look for an object in the newest catalogs say when it is gone: `cache lookup failed`. */
const INTERNAL_ERROR = "XX000";

/**
 * Compares the snapshot with the newest catalogs, in which functions and casts look objects up: version 13 fails for what is gone, or gives
 * the number of a function or operator as its name; later ones give null. REINDEX CONCURRENTLY gives the old index another name
 * before it drops it.
 */
const FIRST_CHANGED = `
  select o.place - 1
    from rows from (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.oid[])) with ordinality o(catalog, oid, place)
   where pg_catalog.pg_describe_object(('pg_catalog.' || o.catalog)::pg_catalog.regclass, o.oid, 0) is null
      or o.catalog = 'pg_proc' and o.oid::pg_catalog.regprocedure::pg_catalog.text = o.oid::pg_catalog.text
      or o.catalog = 'pg_operator' and o.oid::pg_catalog.regoperator::pg_catalog.text = o.oid::pg_catalog.text
      or o.catalog = 'pg_class' and o.oid::pg_catalog.regclass::pg_catalog.text <>
         (select pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
            from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = o.oid)
   order by o.place limit 1`;

/**
 * Refuses definitions of which an object is gone, or has another name. No lock holds a view, function or index, and pg_get_functiondef() and its kind
 * look at what is committed when they run: they give null, or half of it, for what the snapshot still sees.
 * Fails with code `schema-changed`.
 */
export async function refuseChanged(query: CatalogQuery, objects: readonly CapturedObject[]): Promise<void> {
  const known = objects.flatMap(({ key, definition }) => {
    const [, catalog, oid] = /^(pg_\w+):(\d+)/.exec(key) ?? [];
    return catalog && oid ? [{ catalog, oid, definition }] : [];
  });
  const lists = [known.map(({ catalog }) => catalog), known.map(({ oid }) => oid)];
  const [row] = await query(
    FIRST_CHANGED,
    lists.map((list) => `{${list.join(",")}}`),
  );
  const changed = known[Number(row?.[0] ?? Number.NaN)]?.definition;
  if (changed)
    throw schemaChanged(ACTION, `the ${changed.kind} ${[changed.schema, changed.name].filter(Boolean).join(".")}`);
}

/** Gives the error of a view that was dropped before its definition was read; any other error as it is. */
export function asSchemaChange(error: unknown): unknown {
  if (!(error instanceof OperationalError) || error.code !== INTERNAL_ERROR) return error;
  return schemaChanged(ACTION, "an object", error);
}
