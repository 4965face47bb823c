import type { ObjectOwner } from "../../driver.ts";
import { type CatalogQuery, isNoMember, USER_SCHEMAS } from "./captured-object.ts";
import { OBJECT_ADDRESSES } from "./object-addresses.ts";

const quoted = (schema: string, object: string) =>
  `pg_catalog.quote_ident(${schema}) || '.' || pg_catalog.quote_ident(${object})`;

/**
 * Owners by the key of their object. Left out is what follows its table (indexes, sequences of columns) and the public
 * schema where its owner is the server's own.
 */
export async function readOwners(query: CatalogQuery): Promise<ReadonlyMap<string, ObjectOwner>> {
  const rows = await query(
    `with owned(key, place, owner) as (
       select 'pg_namespace:' || n.oid, 'SCHEMA ' || pg_catalog.quote_ident(n.nspname), n.nspowner from pg_catalog.pg_namespace n
        where ${USER_SCHEMAS} and (n.nspname <> 'public' or (n.nspowner <> 10 and pg_catalog.pg_get_userbyid(n.nspowner) <> 'pg_database_owner'))
       union all
       select 'pg_class:' || c.oid,
              case c.relkind when 'v' then 'VIEW ' when 'm' then 'MATERIALIZED VIEW ' when 'S' then 'SEQUENCE ' else 'TABLE ' end || ${quoted("n.nspname", "c.relname")}, c.relowner
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p', 'v', 'm', 'S') and c.relpersistence <> 't' and ${USER_SCHEMAS} and ${isNoMember("pg_class", "c.oid")}
          and not (c.relkind = 'S' and exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                                                  and d.objid = c.oid and d.refobjsubid > 0 and d.deptype in ('a', 'i')))
       union all
       select 'pg_type:' || t.oid, case t.typtype when 'd' then 'DOMAIN ' else 'TYPE ' end || ${quoted("n.nspname", "t.typname")}, t.typowner
         from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace where t.typtype in ('e', 'd', 'r', 'c') and ${USER_SCHEMAS}
       union all
       select 'pg_proc:' || p.oid, 'ROUTINE ' || p.oid::pg_catalog.regprocedure::pg_catalog.text, p.proowner
         from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace where ${USER_SCHEMAS}
       union all
       select 'pg_statistic_ext:' || s.oid, 'STATISTICS ' || ${quoted("n.nspname", "s.stxname")}, s.stxowner
         from pg_catalog.pg_statistic_ext s join pg_catalog.pg_namespace n on n.oid = s.stxnamespace where ${USER_SCHEMAS}
       union all
       select o.catalog || ':' || o.objoid, o.place, o.owner from (${OBJECT_ADDRESSES}) o(catalog, objoid, place, schema, owner))
     select o.key, o.place, r.rolname from owned o join pg_catalog.pg_roles r on r.oid = o.owner`,
  );
  return new Map(rows.map(([key, place, role]) => [key ?? "", { role: role ?? "", object: place ?? "" }]));
}
