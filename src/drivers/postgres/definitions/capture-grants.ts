import { type CapturedObject, type CatalogQuery, isNoMember, USER_SCHEMAS } from "./captured-object.ts";

/**
 * Rights on schemas, tables, views, sequences and routines, one object for each object whose rights were ever changed.
 * They name roles, which belong to the server: a restore executes them only when it is asked to.
 */
export async function captureGrants(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `with objects(key, place, schema, tablename, acl, owner, kind) as (
       select 'pg_namespace:' || n.oid, 'SCHEMA ' || pg_catalog.quote_ident(n.nspname), null::pg_catalog.text, null::pg_catalog.text, n.nspacl, n.nspowner, 'n'
         from pg_catalog.pg_namespace n where ${USER_SCHEMAS} and ${isNoMember("pg_namespace", "n.oid")} and n.nspname <> 'public'
       union all
       select 'pg_class:' || c.oid, case c.relkind when 'S' then 'SEQUENCE ' else 'TABLE ' end || pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
              n.nspname, case when c.relkind in ('r', 'p') then c.relname end, c.relacl, c.relowner, case c.relkind when 'S' then 's' else 'r' end
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p', 'v', 'm', 'S') and c.relpersistence <> 't' and ${USER_SCHEMAS} and ${isNoMember("pg_class", "c.oid")}
       union all
       select 'pg_proc:' || p.oid, case p.prokind when 'p' then 'PROCEDURE ' else 'FUNCTION ' end || p.oid::pg_catalog.regprocedure::pg_catalog.text,
              n.nspname, null, p.proacl, p.proowner, 'f'
         from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace where ${USER_SCHEMAS} and ${isNoMember("pg_proc", "p.oid")})
     select o.key, o.place, o.schema, o.tablename,
            (select pg_catalog.string_agg('GRANT ' || g.privileges || ' ON ' || o.place || ' TO ' || g.grantee || case when g.is_grantable then ' WITH GRANT OPTION' else '' end || ';', E'\\n' order by g.grantee, g.is_grantable)
               from (select case when a.grantee = 0 then 'PUBLIC' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) end as grantee, a.is_grantable,
                            pg_catalog.string_agg(a.privilege_type, ', ' order by a.privilege_type) as privileges
                       from pg_catalog.aclexplode(o.acl) a where a.grantee <> o.owner group by 1, 2) g)
       from objects o where o.acl is not null order by o.place`,
  );
  return rows.map(([key, place, schema, table, grants]) => ({
    key: `${key}:grants`,
    definition: {
      section: "post-data",
      kind: "grant",
      ...(schema ? { schema } : {}),
      name: place ?? "",
      ...(schema && table ? { table: { schema, name: table } } : {}),
      sql: `REVOKE ALL ON ${place} FROM PUBLIC;${grants ? `\n${grants}` : ""}`,
    },
  }));
}
