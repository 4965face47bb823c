import { type CapturedObject, type CatalogQuery, isNoMember, keyOf, USER_SCHEMAS } from "./captured-object.ts";

const operator = (oid: string) =>
  `(select 'OPERATOR(' || pg_catalog.quote_ident(m.nspname) || '.' || p.oprname || ')' from pg_catalog.pg_operator p join pg_catalog.pg_namespace m on m.oid = p.oprnamespace where p.oid = ${oid})`;

/** Operators. Two that name each other come in any order: the server keeps a place for the one that is missing yet. */
export async function captureOperators(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select o.oid, n.nspname, o.oprname,
            'CREATE OPERATOR ' || pg_catalog.quote_ident(n.nspname) || '.' || o.oprname || ' (FUNCTION = ' || o.oprcode::pg_catalog.regproc::pg_catalog.text ||
            case when o.oprleft <> 0 then ', LEFTARG = ' || pg_catalog.format_type(o.oprleft, null) else '' end ||
            case when o.oprright <> 0 then ', RIGHTARG = ' || pg_catalog.format_type(o.oprright, null) else '' end ||
            coalesce(', COMMUTATOR = ' || ${operator("o.oprcom")}, '') || coalesce(', NEGATOR = ' || ${operator("o.oprnegate")}, '') ||
            case when o.oprrest::pg_catalog.oid <> 0 then ', RESTRICT = ' || o.oprrest::pg_catalog.text else '' end ||
            case when o.oprjoin::pg_catalog.oid <> 0 then ', JOIN = ' || o.oprjoin::pg_catalog.text else '' end ||
            case when o.oprcanhash then ', HASHES' else '' end || case when o.oprcanmerge then ', MERGES' else '' end || ');'
       from pg_catalog.pg_operator o join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
      where o.oprcode::pg_catalog.oid <> 0 and ${USER_SCHEMAS} and ${isNoMember("pg_operator", "o.oid")} order by n.nspname, o.oprname, o.oid::pg_catalog.regoperator::pg_catalog.text`,
  );
  return rows.map(([oid, schema, name, sql]) => object("operator", keyOf("pg_operator", oid), [schema, name, sql]));
}

/** Casts but for those that the server makes with a type. */
export async function captureCasts(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select c.oid, c.name,
            'CREATE CAST (' || c.name || ') ' ||
            case c.castmethod when 'i' then 'WITH INOUT' when 'b' then 'WITHOUT FUNCTION' else 'WITH FUNCTION ' || c.castfunc::pg_catalog.regprocedure::pg_catalog.text end ||
            case c.castcontext when 'a' then ' AS ASSIGNMENT' when 'i' then ' AS IMPLICIT' else '' end || ';'
       from (select *, pg_catalog.format_type(castsource, null) || ' AS ' || pg_catalog.format_type(casttarget, null) as name from pg_catalog.pg_cast) c
      where c.oid >= 16384 and ${isNoMember("pg_cast", "c.oid")}
        and not exists (select from pg_catalog.pg_depend i where i.classid = 'pg_catalog.pg_cast'::pg_catalog.regclass and i.objid = c.oid and i.deptype = 'i')
      order by c.name`,
  );
  return rows.map(([oid, name, sql]) => object("cast", keyOf("pg_cast", oid), [null, name, sql]));
}

/** What a class or a family holds, by the object that pg_depend says it belongs to. */
const members = (catalog: "pg_opclass" | "pg_opfamily", oid: string) => `
  (select pg_catalog.string_agg(line, ', ' order by what, number, line) from (
     select 1 as what, a.amopstrategy as number, 'OPERATOR ' || a.amopstrategy || ' ' || ${operator("a.amopopr").replace("'OPERATOR('", "''").replace(" || ')'", "")} ||
            '(' || case when o.oprleft = 0 then 'NONE' else pg_catalog.format_type(o.oprleft, null) end || ', ' || pg_catalog.format_type(o.oprright, null) || ')' ||
            case when a.amopsortfamily <> 0 then (select ' FOR ORDER BY ' || pg_catalog.quote_ident(m.nspname) || '.' || pg_catalog.quote_ident(s.opfname)
                   from pg_catalog.pg_opfamily s join pg_catalog.pg_namespace m on m.oid = s.opfnamespace where s.oid = a.amopsortfamily) else '' end as line
       from pg_catalog.pg_amop a join pg_catalog.pg_operator o on o.oid = a.amopopr
       join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_amop'::pg_catalog.regclass and d.objid = a.oid
      where d.refclassid = 'pg_catalog.${catalog}'::pg_catalog.regclass and d.refobjid = ${oid}
     union all
     select 2, a.amprocnum, 'FUNCTION ' || a.amprocnum || ' (' || pg_catalog.format_type(a.amproclefttype, null) || ', ' || pg_catalog.format_type(a.amprocrighttype, null) || ') ' ||
            a.amproc::pg_catalog.oid::pg_catalog.regprocedure::pg_catalog.text
       from pg_catalog.pg_amproc a
       join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_amproc'::pg_catalog.regclass and d.objid = a.oid
      where d.refclassid = 'pg_catalog.${catalog}'::pg_catalog.regclass and d.refobjid = ${oid}) x)`;

/** Operator families; what belongs to no class of theirs is added when the classes are there. */
export async function captureOperatorFamilies(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select f.oid, n.nspname, f.opfname, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(f.opfname) || ' USING ' || pg_catalog.quote_ident(m.amname), ${members("pg_opfamily", "f.oid")}
       from pg_catalog.pg_opfamily f join pg_catalog.pg_namespace n on n.oid = f.opfnamespace join pg_catalog.pg_am m on m.oid = f.opfmethod
      where ${USER_SCHEMAS} and ${isNoMember("pg_opfamily", "f.oid")} order by n.nspname, f.opfname, m.amname`,
  );
  return rows.flatMap(([oid, schema, name, place, loose]) => {
    const key = keyOf("pg_opfamily", oid);
    const created = object("operator-family", key, [schema, name, `CREATE OPERATOR FAMILY ${place};`]);
    if (!loose) return [created];
    const sql = `ALTER OPERATOR FAMILY ${place} ADD ${loose};`;
    return [created, object("operator-family", `${key}:members`, [schema, name, sql])];
  });
}

export async function captureOperatorClasses(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select c.oid, n.nspname, c.opcname,
            'CREATE OPERATOR CLASS ' || pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.opcname) || case when c.opcdefault then ' DEFAULT' else '' end ||
            ' FOR TYPE ' || pg_catalog.format_type(c.opcintype, null) || ' USING ' || pg_catalog.quote_ident(m.amname) ||
            ' FAMILY ' || pg_catalog.quote_ident(fn.nspname) || '.' || pg_catalog.quote_ident(f.opfname) || ' AS ' ||
            coalesce(case when c.opckeytype <> 0 then 'STORAGE ' || pg_catalog.format_type(c.opckeytype, null) || coalesce(', ' || k.list, '') else k.list end,
                     'STORAGE ' || pg_catalog.format_type(c.opcintype, null)) || ';'
       from pg_catalog.pg_opclass c join pg_catalog.pg_namespace n on n.oid = c.opcnamespace join pg_catalog.pg_am m on m.oid = c.opcmethod
       join pg_catalog.pg_opfamily f on f.oid = c.opcfamily join pg_catalog.pg_namespace fn on fn.oid = f.opfnamespace, lateral (select ${members("pg_opclass", "c.oid")} as list) k
      where ${USER_SCHEMAS} and ${isNoMember("pg_opclass", "c.oid")} order by n.nspname, c.opcname, m.amname`,
  );
  return rows.map(([oid, schema, name, sql]) =>
    object("operator-class", keyOf("pg_opclass", oid), [schema, name, sql]),
  );
}

type Parts = readonly [
  schema: string | null | undefined,
  name: string | null | undefined,
  sql: string | null | undefined,
];

function object(kind: string, key: string, [schema, name, sql]: Parts): CapturedObject {
  const place = schema ? { schema } : {};
  return { key, definition: { section: "pre-data", kind, ...place, name: name ?? "", sql: sql ?? "" } };
}
