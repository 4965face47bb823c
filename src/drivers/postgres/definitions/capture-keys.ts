import { quoteIdentifier, quoteName } from "../postgres-quote.ts";
import {
  type CapturedObject,
  type CatalogQuery,
  isNoMember,
  keyOf,
  parseJson,
  USER_SCHEMAS,
  WITH_ABOVE,
} from "./captured-object.ts";

/** Primary keys, unique and exclusion constraints, foreign keys: what is checked when the rows are there. */
export async function captureConstraints(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select k.oid, n.nspname, c.relname, c.relkind, k.conname, k.contype, pg_catalog.pg_get_constraintdef(k.oid), i.indexrelid,
            pi.inhparent::pg_catalog.regclass::pg_catalog.text, x.relname, i.indisclustered,
            (${WITH_ABOVE}
             select pg_catalog.jsonb_agg('pg_constraint:' || a.oid order by a.oid) from above join pg_catalog.pg_constraint a on a.conrelid = above.oid
              where k.contype = 'f' and c.relispartition and a.contype = 'f' and a.conparentid = 0 and a.confrelid = k.confrelid)
       from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       left join pg_catalog.pg_index i on i.indexrelid = k.conindid and k.contype in ('p', 'u', 'x')
       left join pg_catalog.pg_class x on x.oid = i.indexrelid
       left join pg_catalog.pg_inherits pi on pi.inhrelid = i.indexrelid
      where k.contype in ('p', 'u', 'x', 'f') and (k.contype <> 'f' or k.conparentid = 0) and ${USER_SCHEMAS} and ${isNoMember("pg_class", "c.oid")}
      order by n.nspname, c.relname, k.conname`,
  );
  return rows.flatMap((row) => {
    const [oid, schema, table, kind, name, type, definition, indexOid, parentIndex, indexName, clustered, above] = row;
    const self = { schema: schema ?? "", name: table ?? "" };
    const full = quoteName(self.schema, self.name);
    const isForeign = type === "f";
    const only = isForeign && kind === "p" ? "" : "ONLY ";
    const object = (
      what: string,
      sql: string,
      { part = "", after = [] as readonly string[] } = {},
    ): CapturedObject => ({
      key: keyOf("pg_constraint", oid, part),
      after,
      definition: { section: "post-data", kind: what, schema: self.schema, name: name ?? "", table: self, sql },
    });
    const add = `ALTER TABLE ${only}${full} ADD CONSTRAINT ${quoteIdentifier(name ?? "")} ${definition};`;
    const cluster = clustered === "t" ? `\nALTER TABLE ${full} CLUSTER ON ${quoteIdentifier(indexName ?? "")};` : "";
    // A key from above that comes later would take one of its own for its part there.
    const after = parseJson<readonly string[]>(above, []);
    const objects = [object(isForeign ? "foreign-key" : "constraint", add + cluster, { after })];
    if (parentIndex && indexOid) {
      objects.push(
        object("attach", `ALTER INDEX ${parentIndex} ATTACH PARTITION ${quoteName(self.schema, indexName ?? "")};`, {
          part: ":attach",
        }),
      );
    }
    return objects;
  });
}

/** Indexes that no constraint owns. */
export async function captureIndexes(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select x.oid, n.nspname, c.relname, x.relname, pg_catalog.pg_get_indexdef(x.oid), p.inhparent::pg_catalog.regclass::pg_catalog.text, i.indisclustered, c.relkind,
            (select pg_catalog.string_agg('ALTER INDEX ' || pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(x.relname) || ' ALTER COLUMN ' || a.attnum || ' SET STATISTICS ' || a.attstattarget || ';', E'\\n' order by a.attnum)
               from pg_catalog.pg_attribute a where a.attrelid = x.oid and a.attstattarget >= 0)
       from pg_catalog.pg_index i join pg_catalog.pg_class x on x.oid = i.indexrelid join pg_catalog.pg_class c on c.oid = i.indrelid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace left join pg_catalog.pg_inherits p on p.inhrelid = x.oid
      where c.relkind in ('r', 'p', 'm') and c.relpersistence <> 't' and (i.indisvalid or c.relkind = 'p') and ${USER_SCHEMAS} and ${isNoMember("pg_class", "c.oid")}
        and not exists (select from pg_catalog.pg_constraint k where k.conindid = x.oid and k.contype in ('p', 'u', 'x'))
      order by n.nspname, c.relname, x.relname`,
  );
  return rows.flatMap(([oid, schema, table, name, definition, parentIndex, clustered, kind, statistics]) => {
    const self = { schema: schema ?? "", name: table ?? "" };
    const object = (what: string, sql: string, part = ""): CapturedObject => ({
      key: keyOf("pg_class", oid, part),
      definition: {
        section: "post-data",
        kind: what,
        schema: self.schema,
        name: name ?? "",
        ...(kind === "m" ? {} : { table: self }),
        sql,
      },
    });
    const relation = `ALTER ${kind === "m" ? "MATERIALIZED VIEW" : "TABLE"} ${quoteName(self.schema, self.name)}`;
    const statements = [
      `${definition};`,
      ...(clustered === "t" ? [`${relation} CLUSTER ON ${quoteIdentifier(name ?? "")};`] : []),
      ...(statistics ? [statistics] : []),
    ];
    const created = object("index", statements.join("\n"));
    if (!parentIndex) return [created];
    const attach = `ALTER INDEX ${parentIndex} ATTACH PARTITION ${quoteName(self.schema, name ?? "")};`;
    return [created, object("attach", attach, ":attach")];
  });
}

/** Extended statistics. */
export async function captureStatistics(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select s.oid, n.nspname, s.stxname, pg_catalog.pg_get_statisticsobjdef(s.oid), cn.nspname, c.relname, pg_catalog.to_jsonb(s)->>'stxstattarget'
       from pg_catalog.pg_statistic_ext s join pg_catalog.pg_namespace n on n.oid = s.stxnamespace
       join pg_catalog.pg_class c on c.oid = s.stxrelid join pg_catalog.pg_namespace cn on cn.oid = c.relnamespace
      where ${USER_SCHEMAS} and ${isNoMember("pg_statistic_ext", "s.oid")} order by n.nspname, s.stxname`,
  );
  return rows.map(([oid, schema, name, definition, tableSchema, table, target]) => {
    const statistics =
      target && target !== "-1"
        ? `\nALTER STATISTICS ${quoteName(schema ?? "", name ?? "")} SET STATISTICS ${target};`
        : "";
    return {
      key: keyOf("pg_statistic_ext", oid),
      definition: {
        section: "post-data",
        kind: "statistics",
        schema: schema ?? "",
        name: name ?? "",
        table: { schema: tableSchema ?? "", name: table ?? "" },
        sql: `${definition};${statistics}`,
      },
    };
  });
}
