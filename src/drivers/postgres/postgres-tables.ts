import { formatPlural } from "../../base/counts.ts";
import { OperationalError } from "../../base/errors.ts";
import type { Column, ChosenTable, SourceTable, TableChoice } from "../driver.ts";
import { isLossy, type PostgresClient, type RawRow } from "./postgres-client.ts";
import { pagesOf } from "./postgres-rows.ts";

/** A table as the catalogs describe it: also the partitioned roots, which are locked but hold no rows. */
export interface CatalogTable extends SourceTable {
  readonly oid: string;
  readonly holdsRows: boolean;
  readonly isHeap: boolean;
  readonly isUnlogged: boolean;
  /** Pages of the main fork. */
  readonly pages: number;
  /** Why the rows cannot be read here, though nothing is wrong with the rights. */
  readonly unreadable?: string | undefined;
}

/**
 * Tables of users, and the configuration tables of extensions. Everything in one statement, so that it is one moment.
 * `{}`-arrays of an extension's configuration name table and condition at the same position.
 */
const TABLES = `
  select c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.reltuples::bigint,
         case when c.relkind = 'r' then pg_catalog.pg_table_size(c.oid) else 0 end,
         case when c.relkind = 'r' then pg_catalog.pg_relation_size(c.oid) else 0 end,
         pg_catalog.has_table_privilege(c.oid, 'select'), pg_catalog.row_security_active(c.oid),
         a.amname, rn.nspname, r.relname,
         (select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
                   t.attname, pg_catalog.format_type(t.atttypid, t.atttypmod), t.attnotnull, t.attgenerated, t.attidentity)
                 order by t.attnum)
            from pg_catalog.pg_attribute t where t.attrelid = c.oid and t.attnum > 0 and not t.attisdropped),
         (select pg_catalog.jsonb_agg(t.attname order by k.position)
            from pg_catalog.pg_index i
           cross join lateral pg_catalog.unnest(i.indkey::int2[]) with ordinality k(attnum, position)
            join pg_catalog.pg_attribute t on t.attrelid = c.oid and t.attnum = k.attnum
           where i.indrelid = c.oid and i.indisprimary and k.position <= i.indnkeyatts),
         e.extname, e.extcondition[pg_catalog.array_position(e.extconfig, c.oid)],
         c.oid = any (e.extconfig), r.oid
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    left join pg_catalog.pg_am a on a.oid = c.relam
    left join pg_catalog.pg_class r on c.relispartition and r.oid = pg_catalog.pg_partition_root(c.oid)
    left join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
    left join pg_catalog.pg_depend x on x.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and x.objid = c.oid
                                    and x.objsubid = 0 and x.deptype = 'e'
    left join pg_catalog.pg_extension e on e.oid = x.refobjid
   where c.relkind in ('r', 'p') and c.relpersistence <> 't'
     and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
   order by c.oid`;

/** Partitioned tables that keep rows on other servers: those are never read. */
const FOREIGN_PARTITION_ROOTS = `
  select distinct pg_catalog.pg_partition_root(c.oid)::pg_catalog.oid from pg_catalog.pg_class c where c.relispartition and c.relkind = 'f'`;

/**
 * Reads the tables that the job wants, in the order of their oids. Refuses what would be filtered in silence: a table
 * without the right to read it, or with row security that hides rows from this login.
 */
export async function readTables(
  client: PostgresClient,
  choose: (table: ChosenTable) => TableChoice,
): Promise<readonly CatalogTable[]> {
  const isReplica = (await client.query("select pg_catalog.pg_is_in_recovery()"))[0]?.[0] === "t";
  const rows = await client.queryLossy(TABLES);
  const partial = new Set((await client.query(FOREIGN_PARTITION_ROOTS)).map(([oid]) => oid));
  const wanted = rows.filter((row) => {
    const isMember = row[15] !== null;
    return (!isMember || row[17] === "t") && choose(namesOf(row)) === "rows";
  });
  refuseLossy(wanted, client);
  refuseUnreadable(wanted, client);
  const tables = wanted.map((row) => tableOf(row, isReplica));
  const read = new Set(tables.filter(({ unreadable }) => !unreadable).map(({ oid }) => oid));
  for (const row of rows) {
    if (row[3] === "r" && row[18] !== null && !read.has(row[0] ?? "")) partial.add(row[18] ?? null);
  }
  return tables.map((table, index) =>
    partial.has(wanted[index]?.[18] ?? null) ? { ...table, isRootPartial: true } : table,
  );
}

/** What stands in an archive is UTF-8, and a name that is not would come back as another one. */
function refuseLossy(rows: readonly RawRow[], { clientEncoding, connection }: PostgresClient): void {
  if (clientEncoding === "UTF8") return;
  const lossy = rows.filter((row) => row.some(isLossy)).map(nameOf);
  if (lossy.length === 0) return;
  throw new OperationalError(
    `cannot read ${listOf(lossy)} of ${connection.database}: the name of a table, column or type is not UTF-8`,
    { kind: "database", code: "not-utf8", hint: "Rename it, or exclude the table in the job's tables." },
  );
}

function refuseUnreadable(rows: readonly RawRow[], client: PostgresClient): void {
  const { user, database } = client.connection;
  const denied = rows.filter((row) => row[8] !== "t").map(nameOf);
  if (denied.length > 0) {
    throw new OperationalError(`cannot read ${listOf(denied)} of ${database}: ${user} lacks SELECT`, {
      kind: "database",
      code: "denied",
      hint: `Grant SELECT on ${denied.length === 1 ? "it" : "them"} to ${user}, or exclude ${denied.length === 1 ? "it" : "them"} in the job's tables.`,
    });
  }
  const filtered = rows.filter((row) => row[3] === "r" && row[9] === "t").map(nameOf);
  if (filtered.length > 0) {
    throw new OperationalError(`cannot read ${listOf(filtered)} of ${database}: row security hides rows from ${user}`, {
      kind: "database",
      code: "row-security",
      hint: "Use a login with BYPASSRLS, or ALTER TABLE … NO FORCE ROW LEVEL SECURITY for the owner.",
    });
  }
}

function namesOf(row: RawRow): ChosenTable {
  const root = row[12] === null ? {} : { partitionRoot: { schema: row[11] ?? "", name: row[12] ?? "" } };
  return { schema: row[1] ?? "", name: row[2] ?? "", ...root };
}

function nameOf(row: RawRow): string {
  return `${row[1]}.${row[2]}`;
}

function listOf(names: readonly string[]): string {
  const shown = names.slice(0, 5).join(", ");
  return names.length > 5 ? `${shown} and ${formatPlural(names.length - 5, "more table")}` : shown;
}

function tableOf(row: RawRow, isReplica: boolean): CatalogTable {
  const bytes = Number(row[6]);
  const pages = pagesOf(Number(row[7]));
  return {
    oid: row[0] ?? "",
    ...namesOf(row),
    holdsRows: row[3] === "r",
    isHeap: row[10] === "heap",
    isUnlogged: row[4] === "u",
    columns: columnsOf(row[13]),
    primaryKey: JSON.parse(row[14] ?? "[]") as string[],
    estimatedRows: Math.max(0, Number(row[5])),
    bytes,
    pages,
    ...(row[16] ? { condition: conditionOf(row[16]) } : {}),
    ...(row[4] === "u" && isReplica ? { unreadable: "it is unlogged and this server is a replica" } : {}),
  };
}

function columnsOf(json: string | null | undefined): readonly Column[] {
  const entries = JSON.parse(json ?? "[]") as [string, string, boolean, string, string][];
  return entries.map(([name, type, notNull, generated, identity]) => ({
    name,
    type,
    notNull,
    ...(generated === "s" ? { generated: "stored" as const } : {}),
    ...(generated === "v" ? { generated: "virtual" as const } : {}),
    ...(identity === "a" ? { identity: "always" as const } : {}),
    ...(identity === "d" ? { identity: "by-default" as const } : {}),
  }));
}

/** An extension writes the condition of its configuration table with the word WHERE. */
export function conditionOf(extensionCondition: string): string {
  return extensionCondition.replace(/^\s*where\s+/i, "");
}
