import { OperationalError } from "../../base/errors.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { quoteIdentifier, quoteName } from "./postgres-quote.ts";
import { WITH_PARTITIONS } from "./postgres-replace-catalog.ts";

/** A stored generated column of a table that holds rows itself. */
export interface GeneratedColumn {
  /** The table whose rows are replaced: itself, or the partitioned one above it. */
  readonly root: string;
  /** Quoted. */
  readonly table: string;
  readonly label: string;
  readonly name: string;
  /** Its value as it would be computed now, of its own type. */
  readonly value: string;
}

/** Finds them, those of partitions too, which may compute in another way. Needs an empty search path: then names in expressions are whole. */
export async function findGenerated(
  client: PostgresClient,
  oids: readonly string[],
): Promise<readonly GeneratedColumn[]> {
  const rows = await client.query(
    `with wanted as (
       ${WITH_PARTITIONS})
     select w.root, n.nspname, c.relname, a.attname, pg_catalog.pg_get_expr(d.adbin, d.adrelid),
            pg_catalog.format_type(a.atttypid, a.atttypmod)
       from wanted w join pg_catalog.pg_class c on c.oid = w.oid and c.relkind = 'r'
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attgenerated = 's' and not a.attisdropped
       join pg_catalog.pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
      order by w.root, c.oid, a.attnum`,
    [`{${oids.join(",")}}`],
  );
  return rows.map((row) => ({
    root: row[0] ?? "",
    table: quoteName(row[1] ?? "", row[2] ?? ""),
    label: `${row[1]}.${row[2]}.${row[3]}`,
    name: row[3] ?? "",
    // The deparsed expression leaves out the conversion to the column's type.
    value: `(${row[4]})::${row[5]}`,
  }));
}

/** How the two things are told that can be said of a generated column. */
interface Wording {
  readonly changed: string;
  readonly unchecked: string;
}

const REPLACED: Wording = {
  changed: "rows that are restored get the new value, and undo does not bring the old one back",
  unchecked: "whether a restore gives it other values",
};

const LOADED: Wording = {
  changed:
    "it was computed before the rows of all tables were there, and an UPDATE of the columns that it is computed from does it again",
  unchecked: "whether it would be what it is now that the rows of all tables are there",
};

/**
 * Says which columns of rows that were just loaded would be computed otherwise now: their functions read what came later, whatever they
 * promise. Those that call nothing but the server's own do not.
 */
export async function findMiscomputed(client: PostgresClient): Promise<readonly string[]> {
  await client.begin("isolation level read committed", { search_path: "" });
  const calling = (await client.query(CALLING)).map(([oid, name]) => ({ oid: oid ?? "", name: name ?? "" }));
  const columns = await findGenerated(
    client,
    calling.map(({ oid }) => oid),
  );
  await client.query("set local search_path to default");
  const asked = columns.filter((column) =>
    calling.some(({ oid, name }) => oid === column.root && name === column.name),
  );
  const warnings = await findRecomputed(client, asked, LOADED);
  await client.query("commit");
  return warnings;
}

/** What the server brings is no dependency. */
const CALLING = `
  select a.attrelid, a.attname
    from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid and c.relkind = 'r'
    join pg_catalog.pg_attrdef f on f.adrelid = a.attrelid and f.adnum = a.attnum
   where a.attgenerated = 's' and not a.attisdropped
     and exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and d.objid = f.oid
                    and d.refclassid in ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass))`;

/**
 * Says of which columns the rows that are there hold other values than they would get now: their functions changed since, and a
 * restore computes all of them again, those of rows that nobody damaged too. Snapshots do not hold these values. Needs the search
 * path under which rows are loaded.
 */
export async function findRecomputed(
  client: PostgresClient,
  columns: readonly GeneratedColumn[],
  wording = REPLACED,
): Promise<readonly string[]> {
  const warnings: string[] = [];
  for (const { table, label, name, value } of columns) {
    await client.query("savepoint rowkeep_generated");
    try {
      // Compared as they are stored: not every type has an equality, and some call equal what is not the same.
      const [row] = await client.query(
        `select pg_catalog.count(*) from only ${table} where pg_catalog.record_image_ne(row(${quoteIdentifier(name)}), row(${value}))`,
      );
      const changed = Number(row?.[0]);
      if (changed > 0) {
        warnings.push(
          `${label} is generated, and in ${changed} of its rows it is not what it would be now: ${wording.changed}`,
        );
      }
    } catch (error) {
      if (!(error instanceof OperationalError)) throw error;
      await client.query("rollback to savepoint rowkeep_generated");
      warnings.push(`${label} is generated, and ${wording.unchecked} cannot be checked (${error.code})`);
    }
    await client.query("release savepoint rowkeep_generated");
  }
  return warnings;
}
