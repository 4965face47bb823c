import { codeOf, OperationalError, reasonIn } from "../../base/errors.ts";
import type { TableName } from "../driver.ts";
import type { ReplacementRows } from "../replacer.ts";
import type { MarkRequest, MergeCounts, MergeMode, RowMerge } from "../row-merge.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { isOfConstraint } from "./postgres-errors.ts";
import { quoteIdentifier, quoteName } from "./postgres-quote.ts";
import { copyOptions } from "./postgres-rows.ts";

export interface MergeTable extends TableName {
  readonly oid: string;
  /** `only` and the quoted name, or the name alone for a partitioned table. */
  readonly relation: string;
  /** The columns that are stored, all of them columns of the table. */
  readonly columns: readonly string[];
}

interface KeyColumn {
  readonly name: string;
  /** The operator by which the key's index tells values apart: `operator(pg_catalog.=)`. */
  readonly equals: string;
}

const ROWS = "pg_temp.rowkeep_rows";
const MARKS = "pg_temp.rowkeep_marks";
const UPDATED = "pg_temp.rowkeep_updated";
/** A unique value or an excluded range that another row has. */
const TAKEN: ReadonlySet<unknown> = new Set(["23505", "23P01"]);
/** Rows that one round trip looks at. */
const ROWS_AT_ONCE = 1000;
const SAME_PLACE = "t.tableoid operator(pg_catalog.=) m.part and t.ctid operator(pg_catalog.=) m.place";

/** Makes the temporary tables of a merge; they end with the transaction. */
export async function openPostgresRowMerge(client: PostgresClient, table: MergeTable): Promise<RowMerge> {
  const key = await findKey(client, table);
  const problems = await findProblems(client, table);
  // The columns of a query have the types and collations of the table, and none of its defaults and constraints.
  const columns = table.columns.map(quoteIdentifier).join(", ");
  await client.query(
    `create temporary table ${ROWS} on commit drop as select ${columns} from ${table.relation} with no data;
     create temporary table ${MARKS} (part pg_catalog.oid, place pg_catalog.tid) on commit drop`,
  );
  return new PostgresRowMerge(client, table, { key, problems });
}

class PostgresRowMerge implements RowMerge {
  readonly problems: readonly string[];
  readonly #client: PostgresClient;
  readonly #table: MergeTable;
  readonly #key: readonly KeyColumn[];

  constructor(
    client: PostgresClient,
    table: MergeTable,
    found: { readonly key: readonly KeyColumn[]; readonly problems: readonly string[] },
  ) {
    this.#client = client;
    this.#table = table;
    this.#key = found.key;
    this.problems = found.problems;
  }

  get primaryKey(): readonly string[] {
    return this.#key.map(({ name }) => name);
  }

  async stage({ columns, encoding, streams }: Omit<ReplacementRows, "format">): Promise<number> {
    const list = columns.map(quoteIdentifier).join(", ");
    const sql = `copy ${ROWS} (${list}) from stdin${copyOptions({ format: "text", encoding })}`;
    let rows = 0;
    for (const bytes of streams) {
      rows += await this.#client.copyIn(sql, bytes).catch((error: unknown) => {
        throw isOfConstraint(error) ? this.#refusedByDomain(error) : error;
      });
    }
    await this.#client.query(`analyze ${ROWS}`);
    return rows;
  }

  async mark({ columns, matches }: MarkRequest): Promise<void> {
    const client = this.#client;
    const list = ["tableoid", "ctid", ...columns.map(quoteIdentifier)].map((name) => `t.${name}`).join(", ");
    await client.query(`declare rowkeep_scan no scroll cursor for select ${list} from ${this.#table.relation} t`);
    for (;;) {
      const rows = await client.query(`fetch forward ${ROWS_AT_ONCE} from rowkeep_scan`);
      if (rows.length === 0) break;
      const found = rows.filter(([, , ...values]) => matches(values));
      if (found.length > 0) {
        await client.query(
          `insert into ${MARKS} select * from rows from (pg_catalog.unnest($1::pg_catalog.oid[]), pg_catalog.unnest($2::pg_catalog.tid[]))`,
          [found.map(([part]) => part), found.map(([, place]) => place)],
        );
      }
    }
    // An open cursor would keep the table from being altered.
    await client.query("close rowkeep_scan");
    if (this.#key.length > 0) {
      await client.query(
        `insert into ${MARKS} select t.tableoid, t.ctid from ${this.#table.relation} t
          where exists (select from ${ROWS} s where ${this.#sameKey}) and not exists (select from ${MARKS} m where ${SAME_PLACE})`,
      );
    }
    await client.query(`analyze ${MARKS}`);
  }

  async count(mode: MergeMode): Promise<MergeCounts> {
    const staged = await this.#number(`select pg_catalog.count(*) from ${ROWS}`);
    if (mode === "replace") {
      const deleted = await this.#number(`select pg_catalog.count(*) from ${MARKS}`);
      return { deleted, inserted: staged, updated: 0 };
    }
    const known = await this.#number(`select pg_catalog.count(*) from ${ROWS} s where ${this.#isThere}`);
    return { deleted: 0, inserted: staged - known, updated: mode === "upsert" ? known : 0 };
  }

  async apply(mode: MergeMode): Promise<MergeCounts> {
    const { relation } = this.#table;
    const planned = await this.count(mode);
    await this.#client.query("savepoint rowkeep_load");
    let [deleted, updated] = [0, 0];
    if (mode === "replace") {
      deleted = await this.#client.execute(`delete from ${relation} t using ${MARKS} m where ${SAME_PLACE}`);
    } else if (mode === "upsert") {
      updated = await this.#updateAny(planned.updated);
    }
    const inserted = await this.#insert(mode);
    // Deferred checks of unique keys run now: no table can be altered while one waits.
    await this.#client.query("set constraints all immediate");
    const isAsPlanned = deleted === planned.deleted && inserted === planned.inserted && updated === planned.updated;
    if (!isAsPlanned || (await this.#countWrong(mode)) > 0) throw this.#wrongRows();
    await this.#client.query("release savepoint rowkeep_load");
    return { deleted, inserted, updated };
  }

  async #updateAny(rows: number): Promise<number> {
    await this.#client.query("savepoint rowkeep_update");
    try {
      return await this.#update(rows);
    } catch (error) {
      if (!TAKEN.has(codeOf(error))) throw error;
      await this.#client.query("rollback to savepoint rowkeep_update");
      return await this.#updateAtOnce();
    }
  }

  /** A unique value may go from one row to another: all of them leave before the first comes. */
  async #updateAtOnce(): Promise<number> {
    const { relation, oid, schema, name, columns } = this.#table;
    const stored = new Set(columns);
    const found = await this.#client.query(
      "select attname from pg_catalog.pg_attribute where attrelid = $1 and attnum > 0 and not attisdropped and attgenerated = ''",
      [oid],
    );
    const all = found.map(([column]) => column ?? "");
    const list = all.map(quoteIdentifier).join(", ");
    const values = all.map((column) => `${stored.has(column) ? "s" : "t"}.${quoteIdentifier(column)}`).join(", ");
    await this.#client.query(
      `create temporary table ${UPDATED} on commit drop as select ${values} from ${relation} t, ${ROWS} s where ${this.#sameKey}`,
    );
    await this.#client.execute(`delete from ${relation} t using ${ROWS} s where ${this.#sameKey}`);
    return this.#client.execute(
      `insert into ${quoteName(schema, name)} (${list}) overriding system value select ${list} from ${UPDATED}`,
    );
  }

  async #update(rows: number): Promise<number> {
    const { relation, columns } = this.#table;
    const name = quoteName(this.#table.schema, this.#table.name);
    const always = await this.#alwaysIdentity();
    const keys = new Set(this.primaryKey);
    // An identity is a whole number: one that is equal is the same, and as a key it is.
    const set = columns.filter((column) => !(always.has(column) && keys.has(column)));
    if (set.length === 0) return rows;
    const locked = set.filter((column) => always.has(column)).map(quoteIdentifier);
    for (const column of locked) {
      await this.#client.query(`alter table ${name} alter column ${column} set generated by default`);
    }
    const list = set.map(quoteIdentifier).map((column) => `${column} = s.${column}`);
    const updated = await this.#client.execute(
      `update ${relation} t set ${list.join(", ")} from ${ROWS} s where ${this.#sameKey}`,
    );
    for (const column of locked) {
      await this.#client.query(`alter table ${name} alter column ${column} set generated always`);
    }
    return updated;
  }

  async #insert(mode: MergeMode): Promise<number> {
    const { schema, name, columns } = this.#table;
    const list = columns.map(quoteIdentifier);
    const missing = mode === "replace" ? "" : ` where not (${this.#isThere})`;
    return this.#client.execute(
      `insert into ${quoteName(schema, name)} (${list.join(", ")}) overriding system value
       select ${list.map((column) => `s.${column}`).join(", ")} from ${ROWS} s${missing}`,
    );
  }

  /** Staged rows that the table does not hold as they are. Without a key only their number is known. */
  async #countWrong(mode: MergeMode): Promise<number> {
    if (this.#key.length === 0) return 0;
    const list = (of: string) =>
      `row(${this.#table.columns.map((column) => `${of}.${quoteIdentifier(column)}`).join(", ")})::pg_catalog.text`;
    const same = mode === "insert-missing" ? "" : ` and ${list("t")} operator(pg_catalog.=) ${list("s")}`;
    return this.#number(
      `select pg_catalog.count(*) from ${ROWS} s
        where not exists (select from ${this.#table.relation} t where ${this.#sameKey}${same})`,
    );
  }

  async #alwaysIdentity(): Promise<ReadonlySet<string>> {
    const rows = await this.#client.query(
      "select attname from pg_catalog.pg_attribute where attrelid = $1 and attnum > 0 and attidentity = 'a'",
      [this.#table.oid],
    );
    return new Set(rows.map(([name]) => name ?? ""));
  }

  get #sameKey(): string {
    return this.#key
      .map(({ name, equals }) => `t.${quoteIdentifier(name)} ${equals} s.${quoteIdentifier(name)}`)
      .join(" and ");
  }

  get #isThere(): string {
    return `exists (select from ${this.#table.relation} t where ${this.#sameKey})`;
  }

  async #number(sql: string): Promise<number> {
    const [row] = await this.#client.query(sql);
    return Number(row?.[0]);
  }

  /** The rows beside the table obey nothing else of it. */
  #refusedByDomain(error: OperationalError): OperationalError {
    const { kind, code, cause } = error;
    const { schema, name } = this.#table;
    return new OperationalError(`cannot restore rows of ${schema}.${name}: ${reasonIn(error)}`, {
      kind,
      code,
      hint: "A domain of its columns refuses them: drop that constraint for as long as they are restored, or restore the whole table without --where.",
      cause,
    });
  }

  #wrongRows(): OperationalError {
    const { schema, name } = this.#table;
    return new OperationalError(`cannot restore rows of ${schema}.${name}: the table does not hold them as they are`, {
      kind: "database",
      code: "rows-differ",
      hint: "Nothing was changed. Look for rules or event triggers that change what is written.",
    });
  }
}

/** The primary key with the operators of its index, so that no operator of the search path can stand for them. */
async function findKey(client: PostgresClient, { oid }: MergeTable): Promise<readonly KeyColumn[]> {
  const rows = await client.query(
    `select a.attname, n.nspname, o.oprname
       from pg_catalog.pg_index i
      cross join lateral pg_catalog.generate_series(0, i.indnkeyatts - 1) k(place)
       join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[k.place]
       left join (pg_catalog.pg_opclass c join pg_catalog.pg_am m on m.oid = c.opcmethod and m.amname = 'btree'
                  join pg_catalog.pg_amop p on p.amopfamily = c.opcfamily and p.amopstrategy = 3
                                           and p.amoplefttype = c.opcintype and p.amoprighttype = c.opcintype
                  join pg_catalog.pg_operator o on o.oid = p.amopopr
                  join pg_catalog.pg_namespace n on n.oid = o.oprnamespace) on c.oid = i.indclass[k.place]
      where i.indrelid = $1 and i.indisprimary order by k.place`,
    [oid],
  );
  // A key WITHOUT OVERLAPS tells rows apart by more than equality.
  if (rows.some(([, schema]) => schema === null)) return [];
  return rows.map(([name, schema, operator]) => ({
    name: name ?? "",
    equals: `operator(${quoteIdentifier(schema ?? "")}.${operator})`,
  }));
}

async function findProblems(client: PostgresClient, { oid, schema, name }: MergeTable): Promise<readonly string[]> {
  const rows = await client.query(
    `select rulename from pg_catalog.pg_rewrite
      where ev_class = $1 and ev_type in ('2', '3', '4') and ev_enabled <> 'D' order by rulename`,
    [oid],
  );
  return rows.map(([rule]) => `${schema}.${name} has the rule ${rule}, which would change what is written`);
}
