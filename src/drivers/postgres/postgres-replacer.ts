import { messageOf, OperationalError } from "../../base/errors.ts";
import { freeBytes } from "../../base/free-bytes.ts";
import type { Connection, Definition, SequenceState, ServerIdentity, TableName } from "../driver.ts";
import type { InspectOptions, OpenReplacerOptions, ReplacementRows, Replacer, TargetTable } from "../replacer.ts";
import type { RowMerge } from "../row-merge.ts";
import { captureTypes } from "./definitions/capture-schemas.ts";
import { openPostgresClient, type PostgresClient } from "./postgres-client.ts";
import { wasCommitted } from "./postgres-commit.ts";
import { createBehindRows } from "./create-behind-rows.ts";
import { refuseUnfinished } from "./created-content.ts";
import { findGenerated, findRecomputed, type GeneratedColumn } from "./postgres-generated.ts";
import { readIdentity } from "./postgres-identity.ts";
import { loadLargeObjects } from "./postgres-large-objects.ts";
import { findForeignKeys, type ForeignKey, putForeignKeyBack } from "./postgres-foreign-keys.ts";
import { quoteIdentifier, quoteName } from "./postgres-quote.ts";
import { copyOptions } from "./postgres-rows.ts";
import { findUnproven, putUnprovenBack, takeUnprovenOff, type UnprovenConstraint } from "./postgres-unproven.ts";
import {
  countWritten,
  type FoundTable,
  findDeleteRules,
  findMatviews,
  findOwnedSequences,
  findTables,
  findTriggers,
  findUsedSequences,
  renderRuleState,
  renderTriggerState,
  type RuleState,
  type TriggerState,
  type UsedSequence,
} from "./postgres-replace-catalog.ts";
import { resetSequence } from "./postgres-sequence-reset.ts";
import { isRefusal, takeOffStored } from "./take-off-stored.ts";

const LOCK_TIMEOUT = "30s";

/** Opens the transaction in which rows are replaced. Fails with kind `database`. */
export async function openPostgresReplacer(connection: Connection, options: OpenReplacerOptions): Promise<Replacer> {
  const client = await openPostgresClient(connection, { ...options, applicationName: "rowkeep restore" });
  try {
    const identity = await readIdentity(client);
    await client.begin("isolation level read committed");
    return new PostgresReplacer(client, identity, options);
  } catch (error) {
    client.destroy();
    throw error;
  }
}

/** What tables have that is found for all of them at once. */
interface UsedBy {
  readonly sequences: readonly UsedSequence[];
  readonly generated: readonly GeneratedColumn[];
}

/**
 * Catalogs are read with an empty search path, so that every name in their texts is whole and no operator of people is nearer than the
 * server's own (CVE-2018-1058); rows are loaded with the login's own, since checks and index expressions of users may call their functions
 * by short names.
 */
class PostgresReplacer implements Replacer {
  readonly identity: ServerIdentity;
  readonly #client: PostgresClient;
  readonly #options: OpenReplacerOptions;
  #tables: readonly FoundTable[] = [];
  #foreignKeys: readonly ForeignKey[] = [];
  #triggers: readonly TriggerState[] = [];
  #rules: readonly RuleState[] = [];
  #unproven: readonly UnprovenConstraint[] = [];
  readonly #takenOff: Definition[] = [];
  #committed = false;

  constructor(client: PostgresClient, identity: ServerIdentity, options: OpenReplacerOptions) {
    this.#client = client;
    this.identity = identity;
    this.#options = options;
  }

  async inspect(names: readonly TableName[], { lock }: InspectOptions): Promise<readonly TargetTable[]> {
    const client = this.#client;
    await client.query("set local search_path = ''");
    await refuseUnfinished(client, "restore rows into");
    this.#tables = await findTables(client, names);
    refuseForeignPartitions(this.#tables);
    if (lock && this.#tables.length > 0) {
      // Readers go on with the old rows; writers wait, or their rows would stand among the restored ones.
      await client.query(`set local lock_timeout = '${LOCK_TIMEOUT}'`);
      const list = this.#tables.map(quoted).join(", ");
      await client.query(`lock table ${list} in share row exclusive mode`);
      this.#tables = await findTables(client, names);
      refuseForeignPartitions(this.#tables);
    }
    const oids = this.#tables.map(({ oid }) => oid);
    this.#foreignKeys = await findForeignKeys(client, oids);
    this.#triggers = await findTriggers(client, oids);
    this.#rules = await findDeleteRules(client, oids);
    this.#unproven = await findUnproven(client, oids);
    const sequences = await findUsedSequences(client, oids);
    const generated = await findGenerated(client, oids);
    await client.query("set local search_path to default");
    const result: TargetTable[] = [];
    for (const { schema, name } of names) {
      const found = this.#tables.find((table) => table.schema === schema && table.name === name);
      if (found) result.push(await this.#describe(found, { sequences, generated }));
    }
    return result;
  }

  async readTypes(): Promise<readonly Definition[]> {
    const client = this.#client;
    await client.query("set local search_path = ''");
    const types = await captureTypes((sql, values) => client.query(sql, values));
    await client.query("set local search_path to default");
    return types.map(({ definition }) => definition).filter(({ section }) => section === "pre-data");
  }

  async #describe(table: FoundTable, { sequences, generated }: UsedBy): Promise<TargetTable> {
    const { schema, name, columns, rowSecurity, partitionOf } = table;
    const computed = rowSecurity ? [] : generated.filter(({ root }) => root === table.oid);
    const warnings = [
      ...(await findRecomputed(this.#client, computed)),
      ...(table.hasRule ? [`rules on ${schema}.${name} are passed by: rows leave and enter the table itself`] : []),
      ...table.publications.map(
        (publication) => `${schema}.${name} is in the publication ${publication}: its subscribers get the change too`,
      ),
    ];
    return {
      schema,
      name,
      columns,
      rowSecurity,
      partitionOf,
      ...(table.condition === undefined ? {} : { condition: table.condition }),
      rows: rowSecurity ? 0 : await this.countRows(table),
      triggers: this.#triggers.filter(({ tableOid }) => tableOid === table.oid).map((trigger) => trigger.name),
      foreignKeys: this.#foreignKeys
        .filter(({ actsOn }) => actsOn.includes(table.oid))
        .map((key) => `${key.child}.${key.name}`),
      sequences: sequences.filter(({ tableOid }) => tableOid === table.oid),
      warnings,
    };
  }

  async open(): Promise<void> {
    // Event triggers look for what they call by the search_path of the role; each name below is a whole one.
    for (const { child, name } of this.#foreignKeys) {
      await this.#client.query(`alter table ${child} drop constraint ${quoteIdentifier(name)}`);
    }
    // One by one: on a partitioned table it would not reach those that a partition has of its own, and `user` not those of partitions before 15.
    for (const trigger of this.#triggers) {
      if (trigger.enabled !== "D") await this.#client.query(renderTriggerState({ ...trigger, enabled: "D" }));
    }
    for (const rule of this.#rules) await this.#client.query(renderRuleState(rule, "D"));
    for (const constraint of this.#unproven) await takeUnprovenOff(this.#client, constraint);
  }

  async openMerge({ schema, name }: TableName, columns: readonly string[]): Promise<RowMerge> {
    const found = this.#tables.find((table) => table.schema === schema && table.name === name);
    if (!found) throw new RangeError("only an inspected table can be merged into");
    const { openPostgresRowMerge } = await import("./postgres-row-merge.ts");
    const { oid } = found;
    return openPostgresRowMerge(this.#client, { schema, name, oid, relation: this.#relation(found), columns });
  }

  async clear(table: TableName): Promise<number> {
    const rows = `${this.#relation(table)}${this.#where(table)}`;
    const deleted = await this.#client.execute(`delete from ${rows}`);
    const [row] = await this.#client.query(`select exists (select from ${rows})`);
    if (row?.[0] === "t") {
      throw new OperationalError(`cannot empty ${table.schema}.${table.name}: rows are left after the DELETE`, {
        kind: "database",
        code: "rows-left",
        hint: "Look for triggers and rules ON DELETE on the table and its partitions.",
      });
    }
    return deleted;
  }

  async load(rows: ReplacementRows): Promise<number> {
    await this.#client.query("savepoint rowkeep_load");
    const count = await this.#copy(rows);
    await this.#client.query("release savepoint rowkeep_load");
    return count;
  }

  async takeOffCheck(error: unknown, table: TableName, stored: readonly Definition[]): Promise<void> {
    if (!isRefusal(error)) throw error;
    const client = this.#client;
    await client.query("rollback to savepoint rowkeep_load; set local search_path = ''");
    this.#takenOff.push(...(await takeOffStored(client, { error, table, stored })));
    await client.query("release savepoint rowkeep_load; set local search_path to default");
  }

  async #copy({ table, columns, format, encoding, streams }: ReplacementRows): Promise<number> {
    const list = columns.length > 0 ? ` (${columns.map(quoteIdentifier).join(", ")})` : "";
    const options = copyOptions({ format, encoding });
    let rows = 0;
    const found = this.#tables.find((one) => one.schema === table.schema && one.name === table.name);
    if (columns.length === 0 && format === "text" && found?.columns.some(({ generated }) => !generated)) {
      // COPY without a list would take each empty line for a value of a column that came later.
      for (const bytes of streams) rows += await this.#insertDefaults(table, bytes);
      return rows;
    }
    for (const bytes of streams) {
      rows += await this.#client.copyIn(
        `copy ${quoteName(table.schema, table.name)}${list} from stdin${options}`,
        bytes,
        freeBytes,
      );
    }
    return rows;
  }

  async #insertDefaults(table: TableName, lines: AsyncIterable<Uint8Array>): Promise<number> {
    let rows = 0;
    for await (const bytes of lines) rows += bytes.length;
    for (let row = 0; row < rows; row++) {
      await this.#client.query(`insert into ${quoteName(table.schema, table.name)} default values`);
    }
    return rows;
  }

  async loadLargeObjects(bytes: AsyncIterable<Uint8Array>): Promise<void> {
    await loadLargeObjects(this.#client, bytes);
  }

  async countRows(table: TableName): Promise<number> {
    const rows = `${this.#relation(table)}${this.#where(table)}`;
    const [row] = await this.#client.query(`select pg_catalog.count(*) from ${rows}`);
    return Number(row?.[0]);
  }

  #where({ schema, name }: TableName): string {
    const found = this.#tables.find((table) => table.schema === schema && table.name === name);
    return found?.condition === undefined ? "" : ` where (${found.condition})`;
  }

  async finish(sequences: readonly SequenceState[]): Promise<readonly string[]> {
    const client = this.#client;
    const before = await this.#countWritten();
    for (const key of this.#foreignKeys) await putForeignKeyBack(client, key);
    for (const trigger of this.#triggers) await client.query(renderTriggerState(trigger));
    for (const rule of this.#rules) await client.query(renderRuleState(rule, rule.enabled));
    if (this.#unproven.length > 0) {
      await client.query("set local search_path = ''");
      for (const constraint of this.#unproven) await putUnprovenBack(client, constraint);
      await client.query("set local search_path to default");
    }
    const warnings = [...(await this.#putChecksOn())];
    const after = await this.#countWritten();
    for (const { oid, schema, name } of this.#tables) {
      if (before.get(oid) === after.get(oid)) continue;
      warnings.push(`${schema}.${name} differs from the snapshot: an event trigger has written to it meanwhile`);
    }
    for (const sequence of [...sequences, ...(await this.#findOtherSequences(sequences))]) {
      const warning = await resetSequence(client, sequence);
      if (warning) warnings.push(warning);
    }
    return warnings;
  }

  async #countWritten(): Promise<ReadonlyMap<string, string>> {
    const oids = this.#tables.map(({ oid }) => oid);
    await this.#client.query("set local search_path = ''");
    const counts = await countWritten(this.#client, oids);
    await this.#client.query("set local search_path to default");
    return counts;
  }

  /** Those that came or got their names since the snapshot: the ids of its rows are not theirs to give. */
  async #findOtherSequences(known: readonly SequenceState[]) {
    const oids = this.#tables.map(({ oid }) => oid);
    await this.#client.query("set local search_path = ''");
    const owned = await findOwnedSequences(this.#client, oids);
    await this.#client.query("set local search_path to default");
    return owned.filter(({ schema, name }) => !known.some((one) => one.schema === schema && one.name === name));
  }

  async #putChecksOn(): Promise<readonly string[]> {
    const warnings: string[] = [];
    for (const definition of this.#takenOff) {
      const warning = await createBehindRows(definition, (sql) => this.#attempt(sql));
      if (warning) warnings.push(warning);
    }
    return warnings;
  }

  /** Executes a statement with an empty search path; a failure leaves the transaction as it was. */
  async #attempt(sql: string): Promise<void> {
    const client = this.#client;
    await client.query("savepoint rowkeep_attempt; set local search_path = ''");
    try {
      await client.query(sql);
    } catch (error) {
      await client.query("rollback to savepoint rowkeep_attempt");
      throw error;
    } finally {
      if (client.isOpen) await client.query("release savepoint rowkeep_attempt; set local search_path to default");
    }
  }

  async transaction(): Promise<string> {
    const [row] = await this.#client.query("select pg_catalog.pg_current_xact_id()");
    return row?.[0] ?? "";
  }

  async commit(): Promise<readonly string[]> {
    const transaction = await this.transaction();
    try {
      await this.#client.query("commit");
    } catch (error) {
      if (!(await wasCommitted(this.#client, this.#options, { transaction, error }))) throw error;
    }
    this.#committed = true;
    return this.#afterwards();
  }

  async #afterwards(): Promise<readonly string[]> {
    const warnings: string[] = [];
    // The rows are there for good: who stops now must still be told that they are.
    const warn = (what: string, error: unknown) => {
      warnings.push(`${what}: ${this.#options.signal.aborted ? "it was stopped" : messageOf(error)}`);
    };
    for (const table of this.#tables) {
      await this.#client
        .query(`analyze ${quoted(table)}`)
        .catch((error: unknown) => warn(`${table.schema}.${table.name} could not be analysed`, error));
    }
    const views = await this.#findMatviews().catch((error: unknown) => {
      warn("materialized views that read the restored tables, if there are any, were not refreshed", error);
      return [];
    });
    for (const view of views) {
      await this.#client
        .query(`refresh materialized view ${view}`)
        .catch((error: unknown) => warn(`${view} could not be refreshed`, error));
    }
    return warnings;
  }

  async #findMatviews(): Promise<readonly string[]> {
    const oids = this.#tables.map(({ oid }) => oid);
    await this.#client.begin("read only", { search_path: "" });
    const views = await findMatviews(this.#client, oids);
    await this.#client.query("commit");
    return views;
  }

  /** A partitioned table with its partitions, any other without its children: they are tables of their own. */
  #relation({ schema, name }: TableName): string {
    const found = this.#tables.find((table) => table.schema === schema && table.name === name);
    return `${found?.kind === "p" ? "" : "only "}${quoteName(schema, name)}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#committed) this.#client.destroy();
    else await this.#client[Symbol.asyncDispose]();
  }
}

/** Emptying the root would delete rows on another server, which no rollback and no safety snapshot brings back. */
function refuseForeignPartitions(tables: readonly FoundTable[]): void {
  const found = tables.find(({ foreignPartition }) => foreignPartition !== undefined);
  if (!found) return;
  throw new OperationalError(
    `cannot replace the rows of ${found.schema}.${found.name}: its partition ${found.foreignPartition} is a foreign table`,
    {
      kind: "refused",
      code: "foreign-partition",
      hint: "Detach that partition, or restore the other ones with --tables.",
    },
  );
}

function quoted({ schema, name }: TableName): string {
  return quoteName(schema, name);
}
