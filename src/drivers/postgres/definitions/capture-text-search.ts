import { quoteName } from "../postgres-quote.ts";
import {
  type CapturedObject,
  type CatalogQuery,
  isNoMember,
  keyOf,
  parseJson,
  USER_SCHEMAS,
} from "./captured-object.ts";

/** Collations. Their versions are the target's own: its indexes are built there. */
export async function captureCollations(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  // The locale of ICU moved: collcollate before PostgreSQL 15, colliculocale before 17, colllocale since.
  const rows = await query(
    `select c.oid, n.nspname, c.collname,
            'PROVIDER = ' || case c.collprovider when 'i' then 'icu' when 'b' then 'builtin' else 'libc' end ||
            case when c.collisdeterministic then '' else ', DETERMINISTIC = false' end ||
            case when c.collprovider in ('i', 'b')
                 then ', LOCALE = ' || pg_catalog.quote_literal(coalesce(j.c->>'colllocale', j.c->>'colliculocale', c.collcollate))
                 else ', LC_COLLATE = ' || pg_catalog.quote_literal(c.collcollate) || ', LC_CTYPE = ' || pg_catalog.quote_literal(c.collctype) end ||
            coalesce(', RULES = ' || pg_catalog.quote_literal(j.c->>'collicurules'), '')
       from pg_catalog.pg_collation c join pg_catalog.pg_namespace n on n.oid = c.collnamespace, lateral (select pg_catalog.to_jsonb(c) as c) j
      where ${USER_SCHEMAS} and ${isNoMember("pg_collation", "c.oid")} order by n.nspname, c.collname`,
  );
  return rows.map(([oid, schema, name, options]) =>
    object("collation", keyOf("pg_collation", oid), [
      schema,
      name,
      `CREATE COLLATION ${full(schema, name)} (${options});`,
    ]),
  );
}

/** Text search dictionaries. The files that some of them read belong to the server. */
export async function captureDictionaries(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select d.oid, n.nspname, d.dictname, pg_catalog.quote_ident(tn.nspname) || '.' || pg_catalog.quote_ident(t.tmplname) || coalesce(', ' || d.dictinitoption, '')
       from pg_catalog.pg_ts_dict d join pg_catalog.pg_namespace n on n.oid = d.dictnamespace
       join pg_catalog.pg_ts_template t on t.oid = d.dicttemplate join pg_catalog.pg_namespace tn on tn.oid = t.tmplnamespace
      where ${USER_SCHEMAS} and ${isNoMember("pg_ts_dict", "d.oid")} order by n.nspname, d.dictname`,
  );
  return rows.map(([oid, schema, name, options]) => {
    const sql = `CREATE TEXT SEARCH DICTIONARY ${full(schema, name)} (TEMPLATE = ${options});`;
    return object("text-search-dictionary", keyOf("pg_ts_dict", oid), [schema, name, sql]);
  });
}

/** Text search configurations: for each kind of word the dictionaries that are asked, in their order. */
export async function captureConfigurations(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select c.oid, n.nspname, c.cfgname, pg_catalog.quote_ident(pn.nspname) || '.' || pg_catalog.quote_ident(p.prsname),
            (select pg_catalog.jsonb_agg(pg_catalog.quote_ident(m.alias) || ' WITH ' || m.dictionaries order by m.maptokentype) from (
               select m.maptokentype, k.alias,
                      pg_catalog.string_agg(pg_catalog.quote_ident(dn.nspname) || '.' || pg_catalog.quote_ident(d.dictname), ', ' order by m.mapseqno) as dictionaries
                 from pg_catalog.pg_ts_config_map m join pg_catalog.ts_token_type(c.cfgparser) k on k.tokid = m.maptokentype
                 join pg_catalog.pg_ts_dict d on d.oid = m.mapdict join pg_catalog.pg_namespace dn on dn.oid = d.dictnamespace
                where m.mapcfg = c.oid group by m.maptokentype, k.alias) m)
       from pg_catalog.pg_ts_config c join pg_catalog.pg_namespace n on n.oid = c.cfgnamespace
       join pg_catalog.pg_ts_parser p on p.oid = c.cfgparser join pg_catalog.pg_namespace pn on pn.oid = p.prsnamespace
      where ${USER_SCHEMAS} and ${isNoMember("pg_ts_config", "c.oid")} order by n.nspname, c.cfgname`,
  );
  return rows.map(([oid, schema, name, parser, mappings]) => {
    const place = `TEXT SEARCH CONFIGURATION ${full(schema, name)}`;
    const alterations = parseJson<readonly string[]>(mappings, []).map(
      (line) => `ALTER ${place} ADD MAPPING FOR ${line};`,
    );
    const sql = [`CREATE ${place} (PARSER = ${parser});`, ...alterations].join("\n");
    return object("text-search-configuration", keyOf("pg_ts_config", oid), [schema, name, sql]);
  });
}

type Text = string | null | undefined;

function full(schema: Text, name: Text): string {
  return quoteName(schema ?? "", name ?? "");
}

function object(kind: string, key: string, [schema, name, sql]: readonly [Text, Text, string]): CapturedObject {
  return { key, definition: { section: "pre-data", kind, schema: schema ?? "", name: name ?? "", sql } };
}
