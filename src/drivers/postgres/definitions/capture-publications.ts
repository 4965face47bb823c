import { quoteIdentifier } from "../postgres-quote.ts";
import { type CapturedObject, type CatalogQuery, isNoMember, keyOf, parseJson } from "./captured-object.ts";

/** Publications, their tables and schemas. Nobody subscribes to them at the target: that is for people to do. */
export async function capturePublications(
  query: CatalogQuery,
  serverVersion: number,
): Promise<readonly CapturedObject[]> {
  // PostgreSQL 15 brought schemas, conditions and lists of columns.
  const hasSchemas = serverVersion >= 150000;
  return [...(await captureHeads(query, hasSchemas)), ...(await captureTables(query, hasSchemas))];
}

async function captureHeads(query: CatalogQuery, hasSchemas: boolean): Promise<readonly CapturedObject[]> {
  const schemas = hasSchemas
    ? `(select pg_catalog.jsonb_agg(n.nspname order by n.nspname) from pg_catalog.pg_publication_namespace s join pg_catalog.pg_namespace n on n.oid = s.pnnspid where s.pnpubid = p.oid)`
    : "null";
  const rows = await query(
    `select p.oid, p.pubname, p.puballtables,
            'publish = ' || pg_catalog.quote_literal(pg_catalog.concat_ws(', ', case when p.pubinsert then 'insert' end, case when p.pubupdate then 'update' end,
                                                          case when p.pubdelete then 'delete' end, case when p.pubtruncate then 'truncate' end)) ||
            case when p.pubviaroot then ', publish_via_partition_root = true' else '' end ||
            case pg_catalog.to_jsonb(p)->>'pubgencols' when 's' then ', publish_generated_columns = stored' else '' end, ${schemas}
       from pg_catalog.pg_publication p where ${isNoMember("pg_publication", "p.oid")} order by p.pubname`,
  );
  return rows.flatMap(([oid, pubname, all, options, inSchemas]) => {
    const name = quoteIdentifier(pubname ?? "");
    const object = (sql: string, part = ""): CapturedObject => ({
      key: keyOf("pg_publication", oid, part),
      definition: { section: "post-data", kind: "publication", name: pubname ?? "", sql },
    });
    const added = parseJson<readonly string[]>(inSchemas, []).map((schema) =>
      object(`ALTER PUBLICATION ${name} ADD TABLES IN SCHEMA ${quoteIdentifier(schema)};`, `:schema-${schema}`),
    );
    return [object(`CREATE PUBLICATION ${name}${all === "t" ? " FOR ALL TABLES" : ""} WITH (${options});`), ...added];
  });
}

async function captureTables(query: CatalogQuery, hasConditions: boolean): Promise<readonly CapturedObject[]> {
  const details = hasConditions
    ? `coalesce((select ' (' || pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' order by a.attnum) || ')'
                   from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum = any (r.prattrs)), '') ||
       coalesce(' WHERE (' || pg_catalog.pg_get_expr(r.prqual, c.oid) || ')', '')`
    : "''";
  const rows = await query(
    `select p.oid, r.oid, n.nspname, c.relname, p.pubname,
            'ALTER PUBLICATION ' || pg_catalog.quote_ident(p.pubname) || ' ADD TABLE ONLY ' || pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) ||
            ${details} || ';'
       from pg_catalog.pg_publication_rel r join pg_catalog.pg_publication p on p.oid = r.prpubid
       join pg_catalog.pg_class c on c.oid = r.prrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where ${isNoMember("pg_publication", "p.oid")} order by p.pubname, n.nspname, c.relname`,
  );
  return rows.map(([oid, relation, schema, table, name, sql]) => ({
    key: keyOf("pg_publication", oid, `:table-${relation}`),
    definition: {
      section: "post-data",
      kind: "publication",
      name: name ?? "",
      table: { schema: schema ?? "", name: table ?? "" },
      sql: sql ?? "",
    },
  }));
}
