import { quoteIdentifier, quoteLiteral } from "../postgres-quote.ts";
import { IS_MADE_BY_PEOPLE } from "../postgres-triggers.ts";
import {
  type CapturedObject,
  type CatalogQuery,
  isNoMember,
  keyOf,
  parseJson,
  USER_SCHEMAS,
} from "./captured-object.ts";
import { rootKeyOf } from "./capture-inherited.ts";
import { IS_LOST_CHECK } from "./lost-checks.ts";
import { OBJECT_ADDRESSES } from "./object-addresses.ts";

/** Schemas; `public` is there already in a new database. */
export async function captureSchemas(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select n.oid, n.nspname from pg_catalog.pg_namespace n where ${USER_SCHEMAS} and ${isNoMember("pg_namespace", "n.oid")} order by n.nspname`,
  );
  return rows.map(([oid, name]) => ({
    key: keyOf("pg_namespace", oid),
    definition: {
      section: "pre-data",
      kind: "schema",
      name: name ?? "",
      sql: `CREATE SCHEMA ${name === "public" ? "IF NOT EXISTS " : ""}${quoteIdentifier(name ?? "")};`,
    },
  }));
}

/** Extensions with their schemas; their own objects come with them. */
export async function captureExtensions(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select e.oid, e.extname, n.nspname from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace
      where e.extname <> 'plpgsql' order by e.extname`,
  );
  return rows.map(([oid, name, schema]) => ({
    key: keyOf("pg_extension", oid),
    definition: {
      section: "pre-data",
      kind: "extension",
      name: name ?? "",
      sql: `CREATE EXTENSION IF NOT EXISTS ${quoteIdentifier(name ?? "")} WITH SCHEMA ${quoteIdentifier(schema ?? "")};`,
    },
  }));
}

/** Enums, composites, domains and ranges. */
export async function captureTypes(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select t.oid, n.nspname, t.typname, t.typtype,
            case t.typtype
              when 'e' then (select pg_catalog.string_agg(pg_catalog.quote_literal(e.enumlabel), ', ' order by e.enumsortorder)
                               from pg_catalog.pg_enum e where e.enumtypid = t.oid)
              when 'c' then (select pg_catalog.string_agg(
                                      pg_catalog.quote_ident(a.attname) || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod) ||
                                      case when a.attcollation <> y.typcollation and a.attcollation <> 0
                                           then ' COLLATE ' || a.attcollation::pg_catalog.regcollation::pg_catalog.text else '' end,
                                      ', ' order by a.attnum)
                               from pg_catalog.pg_attribute a join pg_catalog.pg_type y on y.oid = a.atttypid
                              where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped)
              when 'd' then pg_catalog.format_type(t.typbasetype, t.typtypmod) ||
                            case when t.typcollation <> b.typcollation and t.typcollation <> 0
                                 then ' COLLATE ' || t.typcollation::pg_catalog.regcollation::pg_catalog.text else '' end ||
                            case when t.typdefault is not null
                                 then ' DEFAULT ' || coalesce(pg_catalog.pg_get_expr(t.typdefaultbin, 'pg_catalog.pg_type'::pg_catalog.regclass), pg_catalog.quote_literal(t.typdefault))
                                 else '' end
              when 'r' then (select 'SUBTYPE = ' || pg_catalog.format_type(r.rngsubtype, null) ||
                                    ', SUBTYPE_OPCLASS = ' || pg_catalog.quote_ident(on_.nspname) || '.' || pg_catalog.quote_ident(o.opcname) ||
                                    case when r.rngcollation <> 0 then ', COLLATION = ' || r.rngcollation::pg_catalog.regcollation::pg_catalog.text else '' end ||
                                    case when r.rngcanonical::pg_catalog.oid <> 0 then ', CANONICAL = ' || r.rngcanonical::pg_catalog.text else '' end ||
                                    case when r.rngsubdiff::pg_catalog.oid <> 0 then ', SUBTYPE_DIFF = ' || r.rngsubdiff::pg_catalog.text else '' end
                               from pg_catalog.pg_range r join pg_catalog.pg_opclass o on o.oid = r.rngsubopc
                               join pg_catalog.pg_namespace on_ on on_.oid = o.opcnamespace where r.rngtypid = t.oid)
            end,
            case when t.typnotnull then coalesce((select ' CONSTRAINT ' || pg_catalog.quote_ident(k.conname) from pg_catalog.pg_constraint k where k.contypid = t.oid and k.contype = 'n'), '') || ' NOT NULL' end,
            (select pg_catalog.string_agg(' CONSTRAINT ' || pg_catalog.quote_ident(k.conname) || ' ' || pg_catalog.pg_get_constraintdef(k.oid), '' order by k.conname)
               from pg_catalog.pg_constraint k where k.contypid = t.oid and k.contype = 'c' and k.convalidated and not ${IS_LOST_CHECK}),
            (select pg_catalog.string_agg('ALTER DOMAIN ' || pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(t.typname) || ' ADD CONSTRAINT ' || pg_catalog.quote_ident(k.conname) || ' ' || pg_catalog.pg_get_constraintdef(k.oid) || ';', E'\\n' order by k.conname)
               from pg_catalog.pg_constraint k where k.contypid = t.oid and k.contype = 'c' and not k.convalidated and not ${IS_LOST_CHECK}),
            (select pg_catalog.quote_ident(m.typname) from pg_catalog.pg_range r join pg_catalog.pg_type m on m.oid = (pg_catalog.to_jsonb(r)->>'rngmultitypid')::pg_catalog.oid where r.rngtypid = t.oid)
       from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace
       left join pg_catalog.pg_type b on b.oid = t.typbasetype
      where ${USER_SCHEMAS} and ${isNoMember("pg_type", "t.oid")}
        and (t.typtype in ('e', 'd', 'r') or (t.typtype = 'c' and exists (select from pg_catalog.pg_class c where c.oid = t.typrelid and c.relkind = 'c')))
      order by n.nspname, t.typname`,
  );
  return rows.flatMap((row) => {
    const [oid, schema, name, type, body] = row;
    const full = `${quoteIdentifier(schema ?? "")}.${quoteIdentifier(name ?? "")}`;
    const statements: Readonly<Record<string, string>> = {
      e: `CREATE TYPE ${full} AS ENUM (${body ?? ""});`,
      c: `CREATE TYPE ${full} AS (${body ?? ""});`,
      d: `CREATE DOMAIN ${full} AS ${body}${row[5] ?? ""}${row[6] ?? ""};`,
      r: `CREATE TYPE ${full} AS RANGE (${body}${row[8] ? `, MULTIRANGE_TYPE_NAME = ${quoteIdentifier(schema ?? "")}.${row[8]}` : ""});`,
    };
    const object = (section: "pre-data" | "post-data", sql: string, part = "") => ({
      key: keyOf("pg_type", oid, part),
      definition: { section, kind: type === "d" ? "domain" : "type", schema: schema ?? "", name: name ?? "", sql },
    });
    const created = object("pre-data", statements[type ?? ""] ?? "");
    // Values that are there already may break it: it is added when they are back.
    return row[7] ? [created, object("post-data", row[7], ":not-valid")] : [created];
  });
}

/** Keys of the objects that may bring the constraint `k` on their own: it is NOT VALID at its table or domain, or at a parent, or a check of theirs. */
const NOT_VALID_KEYS = `case when k.contypid <> 0 then pg_catalog.jsonb_build_array('pg_type:' || k.contypid || ':not-valid') else (
              with recursive above(oid) as (select k.conrelid union select i.inhparent from above a join pg_catalog.pg_inherits i on i.inhrelid = a.oid)
              select pg_catalog.jsonb_agg(distinct case when v.convalidated then 'pg_constraint:' || v.oid else 'pg_class:' || a.oid || ':late' end)
                from above a join pg_catalog.pg_constraint v on v.conrelid = a.oid and v.contype = k.contype and (v.conname = k.conname or not v.convalidated)) end`;

/** Comments on everything that has one; `COMMENT ON` with the object's own address. */
export async function captureComments(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const name = (schema: string, object: string) =>
    `pg_catalog.quote_ident(${schema}) || '.' || pg_catalog.quote_ident(${object})`;
  const rows = await query(
    `with named(catalog, objoid, objsubid, place, schema, tablename, owner) as (
       select 'pg_namespace', n.oid, 0, 'SCHEMA ' || pg_catalog.quote_ident(n.nspname), null, null, 'pg_namespace:' || n.oid
         from pg_catalog.pg_namespace n where ${USER_SCHEMAS} and ${isNoMember("pg_namespace", "n.oid")}
       union all
       select 'pg_class', c.oid, 0,
              case c.relkind when 'v' then 'VIEW ' when 'm' then 'MATERIALIZED VIEW ' when 'S' then 'SEQUENCE ' when 'i' then 'INDEX ' when 'I' then 'INDEX '
                             when 'c' then 'TYPE ' else 'TABLE ' end || ${name("n.nspname", "c.relname")},
              n.nspname, case when c.relkind in ('r', 'p') then c.relname end,
              case when c.relkind = 'c' then 'pg_type:' || c.reltype when k.oid is not null then 'pg_constraint:' || k.oid else 'pg_class:' || c.oid end
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
         left join pg_catalog.pg_constraint k on k.conindid = c.oid and k.contype in ('p', 'u', 'x') and c.relkind in ('i', 'I')
        where ${USER_SCHEMAS} and c.relkind in ('r', 'p', 'v', 'm', 'S', 'i', 'I', 'c') and c.relpersistence <> 't' and ${isNoMember("pg_class", "c.oid")}
       union all
       select 'pg_class', c.oid, a.attnum, 'COLUMN ' || ${name("n.nspname", "c.relname")} || '.' || pg_catalog.quote_ident(a.attname),
              n.nspname, case when c.relkind in ('r', 'p') then c.relname end, case when c.relkind = 'c' then 'pg_type:' || c.reltype else 'pg_class:' || c.oid end
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace join pg_catalog.pg_attribute a on a.attrelid = c.oid
        where ${USER_SCHEMAS} and c.relkind in ('r', 'p', 'v', 'm', 'c') and a.attnum > 0 and not a.attisdropped and ${isNoMember("pg_class", "c.oid")}
       union all
       select 'pg_type', t.oid, 0, case t.typtype when 'd' then 'DOMAIN ' else 'TYPE ' end || ${name("n.nspname", "t.typname")}, n.nspname, null, 'pg_type:' || t.oid
         from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace
        where ${USER_SCHEMAS} and t.typtype in ('e', 'd', 'r', 'c') and ${isNoMember("pg_type", "t.oid")}
       union all
       select 'pg_proc', p.oid, 0, case p.prokind when 'p' then 'PROCEDURE ' when 'a' then 'AGGREGATE ' else 'FUNCTION ' end ||
              ${name("n.nspname", "p.proname")} || '(' || case when p.prokind = 'a' and p.pronargs = 0 then '*' else pg_catalog.pg_get_function_identity_arguments(p.oid) end || ')', n.nspname, null, 'pg_proc:' || p.oid
         from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where ${USER_SCHEMAS} and ${isNoMember("pg_proc", "p.oid")}
       union all
       select 'pg_constraint', k.oid, 0, 'CONSTRAINT ' || pg_catalog.quote_ident(k.conname) || ' ON ' || case when k.contypid <> 0 then 'DOMAIN ' || ${name("tn.nspname", "t.typname")} else ${name("n.nspname", "c.relname")} end,
              coalesce(n.nspname, tn.nspname), c.relname,
              case when ${IS_LOST_CHECK} then 'pg_constraint:' || k.oid when k.contypid <> 0 then 'pg_type:' || k.contypid when k.contype in ('c', 'n') then 'pg_class:' || k.conrelid
                   else 'pg_constraint:' || coalesce((select r.oid from ${rootKeyOf("k")} r where r.conname = k.conname and k.contype = 'f'), k.oid) end
         from pg_catalog.pg_constraint k
         left join pg_catalog.pg_class c on c.oid = k.conrelid left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
         left join pg_catalog.pg_type t on t.oid = k.contypid left join pg_catalog.pg_namespace tn on tn.oid = t.typnamespace
        where k.contype <> 't'
       union all
       select 'pg_trigger', g.oid, 0, 'TRIGGER ' || pg_catalog.quote_ident(g.tgname) || ' ON ' || ${name("n.nspname", "c.relname")}, n.nspname, c.relname,
              (with recursive above(oid, parent) as (select g.oid, g.tgparentid union all select a.oid, a.tgparentid from above join pg_catalog.pg_trigger a on a.oid = above.parent)
               select 'pg_trigger:' || oid from above where parent = 0)
         from pg_catalog.pg_trigger g join pg_catalog.pg_class c on c.oid = g.tgrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace where ${IS_MADE_BY_PEOPLE}
       union all
       select 'pg_rewrite', r.oid, 0, 'RULE ' || pg_catalog.quote_ident(r.rulename) || ' ON ' || ${name("n.nspname", "c.relname")}, n.nspname, c.relname, 'pg_rewrite:' || r.oid
         from pg_catalog.pg_rewrite r join pg_catalog.pg_class c on c.oid = r.ev_class join pg_catalog.pg_namespace n on n.oid = c.relnamespace where r.rulename <> '_RETURN'
       union all
       select 'pg_policy', p.oid, 0, 'POLICY ' || pg_catalog.quote_ident(p.polname) || ' ON ' || ${name("n.nspname", "c.relname")}, n.nspname, c.relname, 'pg_policy:' || p.oid
         from pg_catalog.pg_policy p join pg_catalog.pg_class c on c.oid = p.polrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       union all
       select 'pg_statistic_ext', s.oid, 0, 'STATISTICS ' || ${name("n.nspname", "s.stxname")}, n.nspname, null, 'pg_statistic_ext:' || s.oid
         from pg_catalog.pg_statistic_ext s join pg_catalog.pg_namespace n on n.oid = s.stxnamespace
       union all
       select o.catalog, o.objoid, 0, o.place, o.schema, null, o.catalog || ':' || o.objoid from (${OBJECT_ADDRESSES}) o(catalog, objoid, place, schema, owner))
     select m.place, m.schema, m.tablename, m.owner, d.description,
            case m.catalog when 'pg_constraint' then (select ${NOT_VALID_KEYS} from pg_catalog.pg_constraint k where k.oid = m.objoid) end
       from named m join pg_catalog.pg_description d
         on d.objoid = m.objoid and d.objsubid = m.objsubid and d.classoid = ('pg_catalog.' || m.catalog)::pg_catalog.regclass
      where m.place <> 'SCHEMA public' or d.description <> 'standard public schema'
      order by m.place`,
  );
  return rows.map(([place, schema, table, owner, text, after], index) => ({
    key: `${owner}:comment-${index}`,
    after: parseJson(after, []),
    definition: {
      section: "pre-data",
      kind: "comment",
      ...(schema ? { schema } : {}),
      name: place ?? "",
      ...(schema && table ? { table: { schema, name: table } } : {}),
      sql: `COMMENT ON ${place} IS ${quoteLiteral(text ?? "")};`,
    },
  }));
}
