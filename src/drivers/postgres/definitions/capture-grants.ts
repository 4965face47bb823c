import { type CapturedObject, type CatalogQuery, isNoMember, parseJson, USER_SCHEMAS } from "./captured-object.ts";

/** Items of an access list, in its order: granted again in that order, the list is the same. */
const EXPLODED = "a(grantor, grantee, privilege_type, is_grantable, place)";
/** As the snapshot names the role: the function tells what it is called now, which the next incremental could not notice. */
const GRANTEE = `case when a.grantee = 0 then 'PUBLIC' else pg_catalog.quote_ident(
  coalesce((select named.rolname from pg_catalog.pg_roles named where named.oid = a.grantee), pg_catalog.pg_get_userbyid(a.grantee))) end`;

/** Rights of every kind: on objects, on columns, and those that objects get when they are made. */
export async function captureGrants(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  return [
    ...(await captureObjectGrants(query)),
    ...(await captureColumnGrants(query)),
    ...(await captureDefaultGrants(query)),
  ];
}

/** What the owner of an object lacks of the rights that it has by default. */
const LACKING = `pg_catalog.aclexplode(pg_catalog.acldefault(o.kind::"char", o.owner)) a
  where a.grantee = o.owner and not exists (select from pg_catalog.aclexplode(o.acl) has where has.grantee = o.owner and has.privilege_type = a.privilege_type)`;
/** What the owner of an object may hand on because somebody said so; it may in any case, until the object is given away. */
const GRANTABLE = "pg_catalog.aclexplode(o.acl) a where a.grantee = o.owner and a.is_grantable";
const PRIVILEGES = "pg_catalog.string_agg(distinct a.privilege_type, ', ' order by a.privilege_type)";

/**
 * Rights on schemas, tables, views, sequences, routines and types, one object for each object whose rights were ever changed, and one
 * for its owner where that one's rights are not those of every owner.
 * They name roles, which belong to the server: a restore executes them only when it is asked to.
 */
async function captureObjectGrants(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `with objects(key, place, schema, tablename, acl, owner, kind) as (
       select 'pg_namespace:' || n.oid, 'SCHEMA ' || pg_catalog.quote_ident(n.nspname), null::pg_catalog.text, null::pg_catalog.text, n.nspacl, n.nspowner, 'n'
         from pg_catalog.pg_namespace n where ${USER_SCHEMAS} and ${isNoMember("pg_namespace", "n.oid")}
          and (n.nspname <> 'public' or n.nspacl is distinct from (select i.initprivs from pg_catalog.pg_init_privs i
                                                                    where i.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass and i.objoid = n.oid))
       union all
       select 'pg_class:' || c.oid, case c.relkind when 'S' then 'SEQUENCE ' else 'TABLE ' end || pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
              n.nspname, case when c.relkind in ('r', 'p') then c.relname end, c.relacl, c.relowner, case c.relkind when 'S' then 's' else 'r' end
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p', 'v', 'm', 'S') and c.relpersistence <> 't' and ${USER_SCHEMAS} and ${isNoMember("pg_class", "c.oid")}
       union all
       select 'pg_proc:' || p.oid, case p.prokind when 'p' then 'PROCEDURE ' else 'FUNCTION ' end || p.oid::pg_catalog.regprocedure::pg_catalog.text,
              n.nspname, null, p.proacl, p.proowner, 'f'
         from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace where ${USER_SCHEMAS} and ${isNoMember("pg_proc", "p.oid")}
       union all
       select 'pg_type:' || t.oid, 'TYPE ' || pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(t.typname), n.nspname, null, t.typacl, t.typowner, 'T'
         from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace
        where t.typtype in ('e', 'd', 'r', 'c') and ${USER_SCHEMAS} and ${isNoMember("pg_type", "t.oid")})
     select o.key, o.place, o.schema, o.tablename,
            (select pg_catalog.string_agg('GRANT ' || g.privileges || ' ON ' || o.place || ' TO ' || g.grantee || case when g.is_grantable then ' WITH GRANT OPTION' else '' end || ';', E'\\n' order by g.place)
               from (select ${GRANTEE} as grantee, a.is_grantable, pg_catalog.min(a.place) as place,
                            pg_catalog.string_agg(a.privilege_type, ', ' order by a.privilege_type) as privileges
                       from pg_catalog.aclexplode(o.acl) with ordinality ${EXPLODED} where a.grantee <> o.owner group by 1, 2) g),
            r.rolname, pg_catalog.concat_ws(E'\\n',
              (select 'REVOKE ' || ${PRIVILEGES} || ' ON ' || o.place || ' FROM ' || pg_catalog.quote_ident(r.rolname) || ';' from ${LACKING}),
              (select 'GRANT ' || ${PRIVILEGES} || ' ON ' || o.place || ' TO ' || pg_catalog.quote_ident(r.rolname) || ' WITH GRANT OPTION;' from ${GRANTABLE}))
       from objects o join pg_catalog.pg_roles r on r.oid = o.owner where o.acl is not null order by o.place`,
  );
  return rows.flatMap(([key, place, schema, table, grants, role, ofOwner]) => {
    const about = {
      section: "post-data",
      kind: "grant",
      ...(schema ? { schema } : {}),
      ...(schema && table ? { table: { schema, name: table } } : {}),
    } as const;
    const sql = `REVOKE ALL ON ${place} FROM PUBLIC;${grants ? `\n${grants}` : ""}`;
    const owner = { role: role ?? "", object: place ?? "" };
    const all: CapturedObject = { key: `${key}:grants`, definition: { ...about, name: place ?? "", sql } };
    if (!ofOwner) return [all];
    const name = `${place} for its owner`;
    return [all, { key: `${key}:grants-of-owner`, definition: { ...about, name, owner, sql: ofOwner } }];
  });
}

/** Rights on single columns, the owner's for themselves; they come after the table's own, whose REVOKE takes them away too. */
async function captureColumnGrants(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select g.oid, g.nspname, g.relname, g.relkind, 'TABLE ' || pg_catalog.quote_ident(g.nspname) || '.' || pg_catalog.quote_ident(g.relname), g.owner,
            pg_catalog.string_agg('GRANT ' || g.privileges || ' ON TABLE ' || pg_catalog.quote_ident(g.nspname) || '.' || pg_catalog.quote_ident(g.relname)
                                  || ' TO ' || g.grantee || case when g.is_grantable then ' WITH GRANT OPTION' else '' end || ';', E'\\n' order by g.attnum, g.place)
       from (select c.oid, n.nspname, c.relname, c.relkind, case when a.grantee = c.relowner then r.rolname end as owner, t.attnum, ${GRANTEE} as grantee, a.is_grantable, pg_catalog.min(a.place) as place,
                    pg_catalog.string_agg(a.privilege_type || ' (' || pg_catalog.quote_ident(t.attname) || ')', ', ' order by a.privilege_type) as privileges
               from pg_catalog.pg_attribute t join pg_catalog.pg_class c on c.oid = t.attrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                    join pg_catalog.pg_roles r on r.oid = c.relowner,
                    pg_catalog.aclexplode(t.attacl) with ordinality ${EXPLODED}
              where t.attacl is not null and not t.attisdropped and c.relkind in ('r', 'p', 'v', 'm') and ${USER_SCHEMAS} and ${isNoMember("pg_class", "c.oid")}
              group by 1, 2, 3, 4, 5, 6, 7, 8) g
      group by 1, 2, 3, 4, g.owner order by 2, 3`,
  );
  return rows.map(([oid, schema, name, kind, place, role, sql]) => {
    const object = place ?? "";
    return {
      key: `pg_class:${oid}:grants-of-columns${role ? "-of-owner" : ""}`,
      definition: {
        section: "post-data",
        kind: "grant",
        schema: schema ?? "",
        name: `${object}${role ? " for its owner" : ""} by column`,
        ...(kind === "r" || kind === "p" ? { table: { schema: schema ?? "", name: name ?? "" } } : {}),
        ...(role ? { owner: { role, object } } : {}),
        sql: sql ?? "",
      },
    };
  });
}

/**
 * Default rights. Those of a schema are added to the server's own; those of no schema replace them, so they are taken
 * away first, the owner's too.
 */
async function captureDefaultGrants(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select d.oid, n.oid, n.nspname, k.what,
            'ALTER DEFAULT PRIVILEGES FOR ROLE ' || pg_catalog.quote_ident(r.rolname) || coalesce(' IN SCHEMA ' || pg_catalog.quote_ident(n.nspname), '') || ' ', pg_catalog.quote_ident(r.rolname),
            (select pg_catalog.jsonb_agg(g.line order by g.place) from (
               select pg_catalog.min(a.place) as place, 'GRANT ' || pg_catalog.string_agg(a.privilege_type, ', ' order by a.privilege_type) || ' ON ' || k.what || ' TO ' || ${GRANTEE}
                      || case when a.is_grantable then ' WITH GRANT OPTION' else '' end as line
                 from pg_catalog.aclexplode(d.defaclacl) with ordinality ${EXPLODED} group by a.grantee, a.is_grantable) g)
       from pg_catalog.pg_default_acl d join pg_catalog.pg_roles r on r.oid = d.defaclrole left join pg_catalog.pg_namespace n on n.oid = d.defaclnamespace
       join (values ('r', 'TABLES'), ('S', 'SEQUENCES'), ('f', 'FUNCTIONS'), ('T', 'TYPES'), ('n', 'SCHEMAS'), ('L', 'LARGE OBJECTS')) k(type, what) on k.type = d.defaclobjtype::pg_catalog.text
      order by r.rolname, n.nspname nulls first, k.what`,
  );
  return rows.map(([oid, schemaOid, schema, what, prefix, role, grants]) => {
    const revokes = schema ? [] : [`REVOKE ALL ON ${what} FROM PUBLIC`, `REVOKE ALL ON ${what} FROM ${role}`];
    const lines = [...revokes, ...parseJson<readonly string[]>(grants, [])];
    return {
      key: schemaOid ? `pg_namespace:${schemaOid}:defaults-${oid}` : `pg_default_acl:${oid}`,
      definition: {
        section: "post-data",
        kind: "grant",
        ...(schema ? { schema } : {}),
        name: `DEFAULT ${what} of ${role}`,
        sql: lines.map((line) => `${prefix}${line};`).join("\n"),
      },
    };
  });
}
