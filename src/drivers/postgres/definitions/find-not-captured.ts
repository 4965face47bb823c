import { type CatalogQuery, isNoMember, USER_SCHEMAS } from "./captured-object.ts";

/** One row for each object that is there and that no reader captures: what it is and how it is called. */
const OTHERS = `
  select 'publication', pg_catalog.quote_ident(pubname) from pg_catalog.pg_publication
  union all select 'event trigger', pg_catalog.quote_ident(evtname) from pg_catalog.pg_event_trigger e where ${isNoMember("pg_event_trigger", "e.oid")}
  union all select 'foreign table', c.oid::pg_catalog.regclass::pg_catalog.text || ' (its rows are elsewhere)' from pg_catalog.pg_class c where c.relkind = 'f' and ${isNoMember("pg_class", "c.oid")}
  union all select 'foreign server', pg_catalog.quote_ident(srvname) from pg_catalog.pg_foreign_server s where ${isNoMember("pg_foreign_server", "s.oid")}
  union all select 'foreign-data wrapper', pg_catalog.quote_ident(fdwname) from pg_catalog.pg_foreign_data_wrapper w where ${isNoMember("pg_foreign_data_wrapper", "w.oid")}
  union all select 'language', pg_catalog.quote_ident(lanname) from pg_catalog.pg_language l where l.oid >= 16384 and ${isNoMember("pg_language", "l.oid")}
  union all select 'function', p.oid::pg_catalog.regprocedure::pg_catalog.text || ' (its language is not trusted)' from pg_catalog.pg_proc p
     join pg_catalog.pg_namespace n on n.oid = p.pronamespace join pg_catalog.pg_language l on l.oid = p.prolang
    where not l.lanpltrusted and p.prokind <> 'a' and ${USER_SCHEMAS} and ${isNoMember("pg_proc", "p.oid")}
      and not exists (select from pg_catalog.pg_depend i where i.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and i.objid = p.oid and i.deptype = 'i')
  union all select 'aggregate', p.oid::pg_catalog.regprocedure::pg_catalog.text from pg_catalog.pg_aggregate a join pg_catalog.pg_proc p on p.oid = a.aggfnoid
     join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where (a.aggkind <> 'n' or a.aggmtransfn::pg_catalog.oid <> 0 or a.aggsortop <> 0) and ${USER_SCHEMAS} and ${isNoMember("pg_proc", "p.oid")}
  union all select 'operator', o.oid::pg_catalog.regoperator::pg_catalog.text from pg_catalog.pg_operator o join pg_catalog.pg_namespace n on n.oid = o.oprnamespace where ${USER_SCHEMAS} and ${isNoMember("pg_operator", "o.oid")}
  union all select 'operator class', pg_catalog.quote_ident(o.opcname) from pg_catalog.pg_opclass o join pg_catalog.pg_namespace n on n.oid = o.opcnamespace where ${USER_SCHEMAS} and ${isNoMember("pg_opclass", "o.oid")}
  union all select 'operator family', pg_catalog.quote_ident(o.opfname) from pg_catalog.pg_opfamily o join pg_catalog.pg_namespace n on n.oid = o.opfnamespace where ${USER_SCHEMAS} and ${isNoMember("pg_opfamily", "o.oid")}
  union all select 'cast', pg_catalog.format_type(c.castsource, null) || ' to ' || pg_catalog.format_type(c.casttarget, null) from pg_catalog.pg_cast c where c.oid >= 16384 and ${isNoMember("pg_cast", "c.oid")}
      and not exists (select from pg_catalog.pg_depend i where i.classid = 'pg_catalog.pg_cast'::pg_catalog.regclass and i.objid = c.oid and i.deptype = 'i')
  union all select 'collation', c.oid::pg_catalog.regcollation::pg_catalog.text from pg_catalog.pg_collation c join pg_catalog.pg_namespace n on n.oid = c.collnamespace where ${USER_SCHEMAS} and ${isNoMember("pg_collation", "c.oid")}
  union all select 'conversion', pg_catalog.quote_ident(c.conname) from pg_catalog.pg_conversion c join pg_catalog.pg_namespace n on n.oid = c.connamespace where ${USER_SCHEMAS} and ${isNoMember("pg_conversion", "c.oid")}
  union all select 'text search configuration', pg_catalog.quote_ident(c.cfgname) from pg_catalog.pg_ts_config c join pg_catalog.pg_namespace n on n.oid = c.cfgnamespace where ${USER_SCHEMAS} and ${isNoMember("pg_ts_config", "c.oid")}
  union all select 'text search dictionary', pg_catalog.quote_ident(c.dictname) from pg_catalog.pg_ts_dict c join pg_catalog.pg_namespace n on n.oid = c.dictnamespace where ${USER_SCHEMAS} and ${isNoMember("pg_ts_dict", "c.oid")}
  union all select 'type', t.oid::pg_catalog.regtype::pg_catalog.text from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace
    where t.typtype = 'b' and t.typcategory <> 'A' and ${USER_SCHEMAS} and ${isNoMember("pg_type", "t.oid")}
  union all select 'transform', pg_catalog.format_type(t.trftype, null) from pg_catalog.pg_transform t where ${isNoMember("pg_transform", "t.oid")}
  union all select 'access method', pg_catalog.quote_ident(amname) from pg_catalog.pg_am a where a.oid >= 16384 and ${isNoMember("pg_am", "a.oid")}
  union all select 'security label on', objtype || ' ' || objname from pg_catalog.pg_seclabels where objtype not in ('database', 'role', 'tablespace')
  union all select 'index', x.oid::pg_catalog.regclass::pg_catalog.text || ' (it is invalid)' from pg_catalog.pg_index i join pg_catalog.pg_class x on x.oid = i.indexrelid
     join pg_catalog.pg_class c on c.oid = i.indrelid where not i.indisvalid and c.relkind <> 'p'
  union all select 'setting of the database', s.name from (select pg_catalog.unnest(setconfig) as name from pg_catalog.pg_db_role_setting where setrole = 0
    and setdatabase = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())) s`;

/** Gives one sentence for each object that is in the database and not in the backup. */
export async function findNotCaptured(query: CatalogQuery): Promise<readonly string[]> {
  const rows = await query(OTHERS);
  return rows.map(([what, name]) => `${what} ${name} is not captured`).sort();
}
