import { isNoMember, USER_SCHEMAS } from "./captured-object.ts";

const quoted = (schema: string, object: string) =>
  `pg_catalog.quote_ident(${schema}) || '.' || pg_catalog.quote_ident(${object})`;

/**
 * SELECT of `catalog, objoid, place, schema, owner` for objects whose comments and owners are set the same way: operators
 * and what stands on them, collations, text search, publications. A cast has no owner.
 */
export const OBJECT_ADDRESSES = `
  select 'pg_operator', o.oid, 'OPERATOR ' || o.oid::pg_catalog.regoperator::pg_catalog.text, n.nspname, o.oprowner
    from pg_catalog.pg_operator o join pg_catalog.pg_namespace n on n.oid = o.oprnamespace where ${USER_SCHEMAS} and ${isNoMember("pg_operator", "o.oid")}
  union all
  select 'pg_opfamily', f.oid, 'OPERATOR FAMILY ' || ${quoted("n.nspname", "f.opfname")} || ' USING ' || pg_catalog.quote_ident(m.amname), n.nspname, f.opfowner
    from pg_catalog.pg_opfamily f join pg_catalog.pg_namespace n on n.oid = f.opfnamespace join pg_catalog.pg_am m on m.oid = f.opfmethod
   where ${USER_SCHEMAS} and ${isNoMember("pg_opfamily", "f.oid")}
  union all
  select 'pg_opclass', c.oid, 'OPERATOR CLASS ' || ${quoted("n.nspname", "c.opcname")} || ' USING ' || pg_catalog.quote_ident(m.amname), n.nspname, c.opcowner
    from pg_catalog.pg_opclass c join pg_catalog.pg_namespace n on n.oid = c.opcnamespace join pg_catalog.pg_am m on m.oid = c.opcmethod
   where ${USER_SCHEMAS} and ${isNoMember("pg_opclass", "c.oid")}
  union all
  select 'pg_cast', c.oid, 'CAST (' || pg_catalog.format_type(c.castsource, null) || ' AS ' || pg_catalog.format_type(c.casttarget, null) || ')', null, 0
    from pg_catalog.pg_cast c where c.oid >= 16384 and ${isNoMember("pg_cast", "c.oid")}
  union all
  select 'pg_collation', c.oid, 'COLLATION ' || ${quoted("n.nspname", "c.collname")}, n.nspname, c.collowner
    from pg_catalog.pg_collation c join pg_catalog.pg_namespace n on n.oid = c.collnamespace where ${USER_SCHEMAS} and ${isNoMember("pg_collation", "c.oid")}
  union all
  select 'pg_ts_dict', d.oid, 'TEXT SEARCH DICTIONARY ' || ${quoted("n.nspname", "d.dictname")}, n.nspname, d.dictowner
    from pg_catalog.pg_ts_dict d join pg_catalog.pg_namespace n on n.oid = d.dictnamespace where ${USER_SCHEMAS} and ${isNoMember("pg_ts_dict", "d.oid")}
  union all
  select 'pg_ts_config', c.oid, 'TEXT SEARCH CONFIGURATION ' || ${quoted("n.nspname", "c.cfgname")}, n.nspname, c.cfgowner
    from pg_catalog.pg_ts_config c join pg_catalog.pg_namespace n on n.oid = c.cfgnamespace where ${USER_SCHEMAS} and ${isNoMember("pg_ts_config", "c.oid")}
  union all
  select 'pg_publication', p.oid, 'PUBLICATION ' || pg_catalog.quote_ident(p.pubname), null, p.pubowner from pg_catalog.pg_publication p where ${isNoMember("pg_publication", "p.oid")}`;
