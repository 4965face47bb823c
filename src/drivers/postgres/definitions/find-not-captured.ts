import { formatPlural } from "../../../base/counts.ts";
import { type CatalogQuery, isNoMember, USER_SCHEMAS } from "./captured-object.ts";
import { findTablespaces } from "./find-tablespaces.ts";
import { findLostChecks, IS_UNTRUSTED } from "./lost-checks.ts";

export interface NotCaptured {
  readonly key: string | undefined;
  /** Empty where that of another object says it. */
  readonly sentence: string;
}

/** In any order, with those that an object has when nobody changed them. */
const rightsOf = (acl: string) =>
  `array(select i::pg_catalog.text from pg_catalog.unnest(coalesce(${acl}, m.usual)) i order by 1)`;

/** One row for each extension of which an object, or a column of one, has other rights than CREATE EXTENSION gives it. */
const CHANGED_RIGHTS = `
  with members(classid, objid, objsubid, acl, usual) as (
    select 'pg_catalog.pg_proc'::pg_catalog.regclass, oid, 0, proacl, pg_catalog.acldefault('f', proowner) from pg_catalog.pg_proc
    union all select 'pg_catalog.pg_class'::pg_catalog.regclass, oid, 0, relacl, pg_catalog.acldefault(case relkind when 'S' then 's' else 'r' end::"char", relowner) from pg_catalog.pg_class
    union all select 'pg_catalog.pg_class'::pg_catalog.regclass, attrelid, attnum, attacl, '{}' from pg_catalog.pg_attribute where not attisdropped
    union all select 'pg_catalog.pg_type'::pg_catalog.regclass, oid, 0, typacl, pg_catalog.acldefault('T', typowner) from pg_catalog.pg_type
    union all select 'pg_catalog.pg_namespace'::pg_catalog.regclass, oid, 0, nspacl, pg_catalog.acldefault('n', nspowner) from pg_catalog.pg_namespace
    union all select 'pg_catalog.pg_language'::pg_catalog.regclass, oid, 0, lanacl, pg_catalog.acldefault('l', lanowner) from pg_catalog.pg_language
    union all select 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass, oid, 0, fdwacl, pg_catalog.acldefault('F', fdwowner) from pg_catalog.pg_foreign_data_wrapper
    union all select 'pg_catalog.pg_foreign_server'::pg_catalog.regclass, oid, 0, srvacl, pg_catalog.acldefault('S', srvowner) from pg_catalog.pg_foreign_server)
  select pg_catalog.min(pg_catalog.pg_describe_object(m.classid, m.objid, m.objsubid))
         || case pg_catalog.count(*) when 1 then '' else ' and ' || pg_catalog.count(*) - 1 || ' more' end
         || ' of extension ' || pg_catalog.quote_ident(e.extname) as name
    from members m join pg_catalog.pg_depend d on d.classid = m.classid and d.objid = m.objid and d.deptype = 'e' and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
    join pg_catalog.pg_extension e on e.oid = d.refobjid
    left join pg_catalog.pg_init_privs i on i.classoid = m.classid and i.objoid = m.objid and i.objsubid = m.objsubid
   where m.acl is distinct from i.initprivs and ${rightsOf("m.acl")} <> ${rightsOf("i.initprivs")}
   group by e.extname`;

/**
 * One row for each object that is there and that no reader captures: its key, what it is and how it is called. The view `pg_seclabels` would
 * lock pg_subscription until the backup ends, and who drops a subscription had to wait for it.
 */
const OTHERS = `
  select 'pg_event_trigger:' || e.oid, 'event trigger', pg_catalog.quote_ident(evtname) from pg_catalog.pg_event_trigger e where ${isNoMember("pg_event_trigger", "e.oid")}
  union all select 'pg_class:' || c.oid, 'foreign table', c.oid::pg_catalog.regclass::pg_catalog.text || ' (its rows are elsewhere)' from pg_catalog.pg_class c where c.relkind = 'f' and ${isNoMember("pg_class", "c.oid")}
  union all select 'pg_foreign_server:' || s.oid, 'foreign server', pg_catalog.quote_ident(srvname) from pg_catalog.pg_foreign_server s where ${isNoMember("pg_foreign_server", "s.oid")}
  union all select 'pg_foreign_data_wrapper:' || w.oid, 'foreign-data wrapper', pg_catalog.quote_ident(fdwname) from pg_catalog.pg_foreign_data_wrapper w where ${isNoMember("pg_foreign_data_wrapper", "w.oid")}
  union all select 'pg_language:' || l.oid, 'language', pg_catalog.quote_ident(lanname) from pg_catalog.pg_language l where l.oid >= 16384 and ${isNoMember("pg_language", "l.oid")}
  union all select 'pg_proc:' || p.oid, 'function', p.oid::pg_catalog.regprocedure::pg_catalog.text || ' (its language is not trusted)' from pg_catalog.pg_proc p
     join pg_catalog.pg_namespace n on n.oid = p.pronamespace join pg_catalog.pg_language l on l.oid = p.prolang
    where ${IS_UNTRUSTED}
  union all select 'pg_conversion:' || c.oid, 'conversion', pg_catalog.quote_ident(c.conname) from pg_catalog.pg_conversion c join pg_catalog.pg_namespace n on n.oid = c.connamespace where ${USER_SCHEMAS} and ${isNoMember("pg_conversion", "c.oid")}
  union all select 'pg_ts_template:' || t.oid, 'text search template', pg_catalog.quote_ident(t.tmplname) from pg_catalog.pg_ts_template t join pg_catalog.pg_namespace n on n.oid = t.tmplnamespace where ${USER_SCHEMAS} and ${isNoMember("pg_ts_template", "t.oid")}
  union all select 'pg_ts_parser:' || p.oid, 'text search parser', pg_catalog.quote_ident(p.prsname) from pg_catalog.pg_ts_parser p join pg_catalog.pg_namespace n on n.oid = p.prsnamespace where ${USER_SCHEMAS} and ${isNoMember("pg_ts_parser", "p.oid")}
  union all select 'pg_type:' || t.oid, 'type', t.oid::pg_catalog.regtype::pg_catalog.text from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace
    where t.typtype = 'b' and t.typcategory <> 'A' and ${USER_SCHEMAS} and ${isNoMember("pg_type", "t.oid")}
  union all select 'pg_transform:' || t.oid, 'transform', pg_catalog.format_type(t.trftype, null) from pg_catalog.pg_transform t where ${isNoMember("pg_transform", "t.oid")}
  union all select 'pg_am:' || a.oid, 'access method', pg_catalog.quote_ident(amname) from pg_catalog.pg_am a where a.oid >= 16384 and ${isNoMember("pg_am", "a.oid")}
  union all select null, 'security label on', pg_catalog.pg_describe_object(classoid, objoid, objsubid) from pg_catalog.pg_seclabel
  union all select null, 'access list of', r.name from (${CHANGED_RIGHTS}) r
  union all select 'pg_class:' || x.oid, 'index', x.oid::pg_catalog.regclass::pg_catalog.text || ' (it is invalid)' from pg_catalog.pg_index i join pg_catalog.pg_class x on x.oid = i.indexrelid
     join pg_catalog.pg_class c on c.oid = i.indrelid where not i.indisvalid and c.relkind <> 'p'
  union all select null, 'setting of ' || coalesce('role ' || pg_catalog.quote_ident(r.rolname) || ' in ', '') || 'the database',
                  case when s.name ~ '^[^=]*[.]' then pg_catalog.split_part(s.name, '=', 1) else s.name end
             from (select setrole, pg_catalog.unnest(setconfig) as name from pg_catalog.pg_db_role_setting
                    where setdatabase = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())) s
             left join pg_catalog.pg_roles r on r.oid = s.setrole`;

/**
 * Gives the objects that are in the database and not in the backup: a sentence by key, where they have one. Nothing is said of parts of the
 * tables that the job leaves out.
 */
export async function findNotCaptured(
  query: CatalogQuery,
  excluded: ReadonlySet<string>,
): Promise<readonly NotCaptured[]> {
  const rows = await query(OTHERS);
  const others = rows.map(([key, what, name]) => ({
    key: key ?? undefined,
    sentence: `${what} ${name} is not captured`,
  }));
  const tablespaces = (await findTablespaces(query, excluded)).map((sentence) => ({ key: undefined, sentence }));
  const all = [...others, ...(await findLostChecks(query, excluded)), ...tablespaces];
  return all.sort((left, right) => (left.sentence < right.sentence ? -1 : 1));
}

/**
 * What is said of large objects besides their bytes. Rights of the reading role do not count, as it asks for them itself, nor do owners: an
 * application's role owns what it makes, and each of its backups would end with a warning.
 */
const OF_LARGE_OBJECTS = `
  select pg_catalog.count(*),
         pg_catalog.count(*) filter (where m.lomacl is not null and (
           exists (select from pg_catalog.aclexplode(m.lomacl) a where a.grantee <> m.lomowner and a.grantee <> (select r.oid from pg_catalog.pg_roles r where r.rolname = current_user))
           or (select pg_catalog.count(distinct a.privilege_type) from pg_catalog.aclexplode(m.lomacl) a where a.grantee = m.lomowner) < 2)),
         (select pg_catalog.count(*) from pg_catalog.pg_description where classoid = 'pg_catalog.pg_largeobject'::pg_catalog.regclass)
    from pg_catalog.pg_largeobject_metadata m`;

/** Counts the large objects, with a sentence for each of rights and comments that some of them have and that is not in the backup. */
export async function lookAtLargeObjects(
  query: CatalogQuery,
): Promise<{ readonly count: number; readonly notCaptured: readonly string[] }> {
  const [row] = await query(OF_LARGE_OBJECTS);
  const [count = 0, withRights = 0, withComment = 0] = (row ?? []).map(Number);
  const sentence = (what: string, some: number) =>
    some > 0 ? [`${what} ${formatPlural(some, "large object")} is not captured`] : [];
  return { count, notCaptured: [...sentence("access list of", withRights), ...sentence("comment on", withComment)] };
}
