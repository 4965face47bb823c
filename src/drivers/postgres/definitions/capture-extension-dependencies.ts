import { type CapturedObject, type CatalogQuery, isNoMember, keyOf, USER_SCHEMAS } from "./captured-object.ts";

/** What goes with an extension when that is dropped, by ALTER … DEPENDS ON EXTENSION: routines, triggers, indexes, materialized views. */
export async function captureExtensionDependencies(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `with named(catalog, objid, place, schema, tablename, owner) as (
       select 'pg_proc', p.oid, 'ROUTINE ' || p.oid::pg_catalog.regprocedure::pg_catalog.text, n.nspname, null, 'pg_proc:' || p.oid
         from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where ${USER_SCHEMAS} and ${isNoMember("pg_proc", "p.oid")}
       union all
       select 'pg_class', c.oid, case c.relkind when 'm' then 'MATERIALIZED VIEW ' else 'INDEX ' end || c.oid::pg_catalog.regclass::pg_catalog.text, n.nspname,
              (select t.relname from pg_catalog.pg_index i join pg_catalog.pg_class t on t.oid = i.indrelid and t.relkind <> 'm' where i.indexrelid = c.oid),
              'pg_class:' || c.oid
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('i', 'I', 'm') and ${USER_SCHEMAS} and ${isNoMember("pg_class", "c.oid")}
       union all
       select 'pg_trigger', g.oid, 'TRIGGER ' || pg_catalog.quote_ident(g.tgname) || ' ON ' || c.oid::pg_catalog.regclass::pg_catalog.text, n.nspname, c.relname,
              (with recursive above(oid, parent) as (select g.oid, g.tgparentid union all select a.oid, a.tgparentid from above join pg_catalog.pg_trigger a on a.oid = above.parent)
               select 'pg_trigger:' || oid from above where parent = 0)
         from pg_catalog.pg_trigger g join pg_catalog.pg_class c on c.oid = g.tgrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where ${USER_SCHEMAS} and ${isNoMember("pg_class", "c.oid")})
     select m.place, m.schema, m.tablename, m.owner, e.oid, pg_catalog.quote_ident(e.extname)
       from pg_catalog.pg_depend d join named m on d.classid = ('pg_catalog.' || m.catalog)::pg_catalog.regclass and d.objid = m.objid
       join pg_catalog.pg_extension e on d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass and e.oid = d.refobjid
      where d.deptype = 'x' order by m.place, e.extname`,
  );
  return rows.map(([place, schema, table, owner, extensionOid, extension], index) => ({
    key: `${owner}:extension-${index}`,
    after: [keyOf("pg_extension", extensionOid)],
    definition: {
      section: "pre-data",
      kind: "extension-dependency",
      schema: schema ?? "",
      name: `${place} ON ${extension}`,
      ...(schema && table ? { table: { schema, name: table } } : {}),
      sql: `ALTER ${place} DEPENDS ON EXTENSION ${extension};`,
    },
  }));
}
