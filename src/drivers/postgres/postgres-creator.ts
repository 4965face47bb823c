import { codeOf, reasonIn } from "../../base/errors.ts";
import { freeBytes } from "../../base/free-bytes.ts";
import type { Connection, Definition, SequenceState, ServerIdentity, TableName } from "../driver.ts";
import type { Creator, CreateRows, Finished, OpenCreatorOptions, OwnerRole, Ownership } from "../creator.ts";
import { openPostgresClient, type PostgresClient } from "./postgres-client.ts";
import { readIdentity } from "./postgres-identity.ts";
import {
  dropContent,
  findContent,
  hasMarker,
  lockDatabase,
  RESTORE_MARKER as MARKER,
  setMarker,
} from "./created-content.ts";
import { createBehindRows } from "./create-behind-rows.ts";
import { createDefinitions } from "./create-definitions.ts";
import { isOfStatement, isRaised, UNKNOWN_NAME, violatedOf } from "./postgres-errors.ts";
import { findMiscomputed } from "./postgres-generated.ts";
import { loadLargeObjects } from "./postgres-large-objects.ts";
import { assignOwners, readOwnerRoles, setOwnersRights } from "./postgres-owners.ts";
import { quoteIdentifier, quoteName } from "./postgres-quote.ts";
import { copyOptions } from "./postgres-rows.ts";
import { resetSequence } from "./postgres-sequence-reset.ts";
import { findCallingChecks, takeOffCheck } from "./take-off-check.ts";

/** What a row gets that is not for this partition, or for none: the hash of an enum is another one in each database. */
const CHECK_VIOLATION = "23514";

/** An index is sorted in memory of this size where the server's own setting is smaller. */
const MAINTENANCE_MEMORY_KB = 256 * 1024;
/** Of nobody else in a database that is being filled. */
const TAKE_OFF_LOCK = 7_091_633_507;
/** How long the server may take to notice that the session with the lock was closed. */
const HANDOVER_MS = 10_000;

/** Opens a database that is to be filled. Fails with kind `database`. */
export async function openPostgresCreator(connection: Connection, options: OpenCreatorOptions): Promise<Creator> {
  const leader = await openPostgresClient(connection, { ...options, applicationName: "rowkeep restore" });
  try {
    return new PostgresCreator(leader, await readIdentity(leader), options);
  } catch (error) {
    leader.destroy();
    throw error;
  }
}

class PostgresCreator implements Creator {
  readonly identity: ServerIdentity;
  readonly #leader: PostgresClient;
  readonly #options: OpenCreatorOptions;
  readonly #idle: PostgresClient[] = [];
  readonly #all = new Set<PostgresClient>();
  readonly #analysed = new Set<string>();
  #hasBegun = false;

  constructor(leader: PostgresClient, identity: ServerIdentity, options: OpenCreatorOptions) {
    this.#leader = leader;
    this.identity = identity;
    this.#options = options;
  }

  async findContent(): Promise<readonly string[]> {
    return findContent(this.#leader);
  }

  async isInterrupted(): Promise<boolean> {
    return hasMarker(this.#leader);
  }

  async clearInterrupted(): Promise<boolean> {
    await lockDatabase(this.#leader, 0);
    if (!(await hasMarker(this.#leader))) return false;
    await dropContent(this.#leader);
    return true;
  }

  async begin(snapshot: string, definitions: readonly Definition[]): Promise<readonly string[]> {
    const client = this.#leader;
    await setMarker(client, snapshot);
    this.#hasBegun = true;
    await client.begin("isolation level read committed", { search_path: "" });
    await client.query("set local check_function_bodies = off; set local client_min_messages = error");
    const warnings = await createDefinitions(client, definitions);
    await client.query("commit");
    return warnings;
  }

  async load({ table, columns, format, encoding, streams, isWhole }: CreateRows): Promise<number> {
    return this.#onWorker(async (client) => {
      const name = quoteName(table.schema, table.name);
      await client.begin("isolation level read committed");
      // Emptied in the same transaction, rows can be written as visible to all: no hint bits, no later freezing.
      if (isWhole) await client.query(`truncate only ${name}`);
      const list = columns.length > 0 ? ` (${columns.map(quoteIdentifier).join(", ")})` : "";
      const clause = copyOptions({ format, encoding, freeze: isWhole });
      let rows = 0;
      for (const bytes of streams) {
        rows += await client.copyIn(`copy ${name}${list} from stdin${clause}`, bytes, freeBytes);
      }
      await client.query("commit");
      return rows;
    });
  }

  async takeOffCheck(error: unknown, table: TableName): Promise<readonly Definition[] | undefined> {
    const violated = violatedOf(error);
    if (!violated && !isRaised(error)) return undefined;
    const taken = await this.#onWorker(async (client) => {
      await client.begin("isolation level read committed", { search_path: "" });
      // Two that take the checks of several parents off, whose children they share, would wait for each other.
      await client.query(`select pg_catalog.pg_advisory_xact_lock(${TAKE_OFF_LOCK})`);
      const definitions: Definition[] = [];
      for (const one of violated ? [violated] : await findCallingChecks(client, table)) {
        definitions.push(...(await takeOffCheck(client, one)));
      }
      await client.query("commit");
      return definitions;
    });
    return violated || taken.length > 0 ? taken : undefined;
  }

  whyLater(error: unknown): ReturnType<Creator["whyLater"]> {
    const code = codeOf(error) ?? "";
    if (UNKNOWN_NAME.has(code)) return "unknown-name";
    if (code === CHECK_VIOLATION) return "other-partition";
    return isRaised(error) ? "raised" : undefined;
  }

  async create(definition: Definition, idle = 0): Promise<string | undefined> {
    return createBehindRows(definition, (sql, path) => this.#execute(sql, { path, idle }));
  }

  async #execute(
    sql: string,
    { path, idle }: { readonly path?: "own" | undefined; readonly idle: number },
  ): Promise<void> {
    await this.#onWorker(async (client) => {
      await client.begin("isolation level read committed", path === "own" ? {} : { search_path: "" });
      await client.query("set local check_function_bodies = off; set local client_min_messages = error");
      // A parallel build costs a fifth more than one in a single process: it pays only where a core has nothing to do.
      await client.query(`set local max_parallel_maintenance_workers = ${idle}`);
      await client.query(sql);
      await client.query("commit");
    });
  }

  async analyse(table: TableName): Promise<string | undefined> {
    this.#analysed.add(quoteName(table.schema, table.name));
    return this.#onWorker((client) => analyse(client, table));
  }

  async loadLargeObjects(bytes: AsyncIterable<Uint8Array>): Promise<void> {
    await this.#onWorker(async (client) => {
      await client.begin("isolation level read committed");
      await loadLargeObjects(client, bytes);
      await client.query("commit");
    });
  }

  async readOwnerRoles(roles: readonly string[]): Promise<readonly OwnerRole[]> {
    return readOwnerRoles(this.#leader, roles);
  }

  async finish(sequences: readonly SequenceState[], { assign, rights }: Ownership): Promise<Finished> {
    const warnings: string[] = [];
    for (const sequence of sequences) {
      const warning = await resetSequence(this.#leader, sequence);
      if (warning) warnings.push(warning);
    }
    warnings.push(...(await this.#analyseRest()));
    warnings.push(...(await findMiscomputed(this.#leader)));
    // The sessions that loaded did not wait for the disk: this commit does, and theirs lie before it.
    await this.#leader.begin("isolation level read committed", { search_path: "" });
    await this.#leader.query("set local synchronous_commit = on");
    const ownerFailures = await assignOwners(this.#leader, assign);
    warnings.push(...(await setOwnersRights(this.#leader, rights)));
    await this.#leader.query(`drop schema ${MARKER}; commit`);
    return { warnings, ownerFailures };
  }

  /** A partitioned table has statistics of its own, and so has a table with children; materialized views were filled late. */
  async #analyseRest(): Promise<readonly string[]> {
    const warnings: string[] = [];
    for (const [schema = "", name = "", isParent] of await this.#leader.query(NEEDING_STATISTICS)) {
      if (isParent !== "t" && this.#analysed.has(quoteName(schema ?? "", name ?? ""))) continue;
      const warning = await analyse(this.#leader, { schema: schema ?? "", name: name ?? "" });
      if (warning) warnings.push(warning);
    }
    return warnings;
  }

  async abandon(): Promise<void> {
    for (const client of this.#all) client.destroy();
    this.#leader.destroy();
    // Before the marker nothing there is ours.
    if (!this.#hasBegun) return;
    // The command may have been stopped: what it made must go all the same.
    const signal = AbortSignal.timeout(120_000);
    await using client = await openPostgresClient(this.#leader.connection, {
      ...this.#options,
      signal,
      applicationName: "rowkeep restore",
    });
    await lockDatabase(client, HANDOVER_MS);
    // Whoever came in between has emptied it already and begun anew.
    if (await hasMarker(client)) await dropContent(client);
  }

  async #onWorker<T>(work: (client: PostgresClient) => Promise<T>): Promise<T> {
    const client = this.#idle.pop() ?? (await this.#openWorker());
    try {
      const result = await work(client);
      this.#idle.push(client);
      return result;
    } catch (error) {
      // Its transaction is broken; nobody may find it among the idle ones.
      client.destroy();
      this.#all.delete(client);
      throw error;
    }
  }

  async #openWorker(): Promise<PostgresClient> {
    const options = { ...this.#options, applicationName: "rowkeep restore" };
    const client = await openPostgresClient(this.#leader.connection, options);
    this.#all.add(client);
    // Behind a pooler they would stay with a connection of others, whose commits would no longer wait for the disk.
    if (client.isPooled) return client;
    await client.query("set synchronous_commit = off");
    await client.query(
      `select pg_catalog.set_config('maintenance_work_mem', greatest(setting::int, ${MAINTENANCE_MEMORY_KB})::text || 'kB', false)
         from pg_catalog.pg_settings where name = 'maintenance_work_mem'`,
    );
    return client;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#all, this.#leader].map((client) => client[Symbol.asyncDispose]()));
  }
}

/** Statistics call functions of the user, by indexes and extended statistics: what these refuse is no reason to lose rows. */
async function analyse(client: PostgresClient, { schema, name }: TableName): Promise<string | undefined> {
  try {
    await client.query(`analyze ${quoteName(schema, name)}`);
    return undefined;
  } catch (error) {
    if (!isOfStatement(error)) throw error;
    return `${schema}.${name} could not be analysed: ${reasonIn(error)}`;
  }
}

/** Tables and materialized views of the user, a partition only as part of its root. */
const NEEDING_STATISTICS = `
  select n.nspname, c.relname,
         c.relkind = 'p' or exists (select from pg_catalog.pg_inherits i where i.inhparent = c.oid)
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
   where c.relkind in ('r', 'p', 'm') and not c.relispartition and c.relpersistence <> 't'
     and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', '${MARKER}')`;
