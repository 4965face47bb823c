import { type CatalogQuery, isNoMember, USER_SCHEMAS } from "./captured-object.ts";

const RELATIONS = `
  select pg_catalog.quote_ident(s.spcname), case when c.relkind in ('i', 'I') then 'index ' when c.relkind = 'm' then 'materialized view ' else 'table ' end || c.oid::pg_catalog.regclass::pg_catalog.text,
         n.nspname, t.relname
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace join pg_catalog.pg_tablespace s on s.oid = c.reltablespace
    left join pg_catalog.pg_index i on i.indexrelid = c.oid join pg_catalog.pg_class t on t.oid = coalesce(i.indrelid, c.oid)
   where c.relkind in ('r', 'p', 'm', 'i', 'I') and c.relpersistence <> 't' and ${USER_SCHEMAS} and ${isNoMember("pg_class", "t.oid")}
   order by s.spcname, n.nspname, c.relname`;

/** Gives one sentence for each tablespace but the database's own: a restore makes all in that of its target. */
export async function findTablespaces(query: CatalogQuery, excluded: ReadonlySet<string>): Promise<readonly string[]> {
  const rows = await query(RELATIONS);
  const relations = new Map<string, string[]>();
  for (const [tablespace, relation, schema, table] of rows) {
    if (excluded.has(JSON.stringify([schema, table]))) continue;
    const own = relations.get(tablespace ?? "");
    if (own) own.push(relation ?? "");
    else relations.set(tablespace ?? "", [relation ?? ""]);
  }
  return [...relations].map(([tablespace, [first, ...others]]) => {
    const more = others.length > 0 ? ` and ${others.length} more` : "";
    return `tablespace ${tablespace} of ${first}${more} is not captured`;
  });
}
