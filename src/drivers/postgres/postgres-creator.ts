import type { Connection, Definition, ObjectOwner, SequenceState, ServerIdentity } from "../driver.ts";
import type { Creator, CreateRows, Finished, OpenCreatorOptions, OwnerRole } from "../creator.ts";
import { openPostgresClient, type PostgresClient } from "./postgres-client.ts";
import { readIdentity } from "./postgres-identity.ts";
import { dropContent, findContent, RESTORE_MARKER as MARKER } from "./created-content.ts";
import { createDefinitions, refusalOf } from "./create-definitions.ts";
import { loadLargeObjects } from "./postgres-large-objects.ts";
import { assignOwners, readOwnerRoles } from "./postgres-owners.ts";
import { quoteIdentifier, quoteLiteral, quoteName } from "./postgres-quote.ts";
import { resetSequence } from "./postgres-sequence-reset.ts";

/** An index is sorted in memory of this size where the server's own setting is smaller. */
const MAINTENANCE_MEMORY_KB = 256 * 1024;

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

  constructor(leader: PostgresClient, identity: ServerIdentity, options: OpenCreatorOptions) {
    this.#leader = leader;
    this.identity = identity;
    this.#options = options;
  }

  async findContent(): Promise<readonly string[]> {
    return findContent(this.#leader);
  }

  async clearInterrupted(): Promise<boolean> {
    const [row] = await this.#leader.query("select pg_catalog.to_regnamespace($1)", [MARKER]);
    if (!row?.[0]) return false;
    await dropContent(this.#leader);
    return true;
  }

  async begin(snapshot: string, definitions: readonly Definition[]): Promise<readonly string[]> {
    const client = this.#leader;
    await client.query(`create schema ${MARKER}`);
    await client.query(`comment on schema ${MARKER} is ${quoteLiteral(`restore of ${snapshot}, not finished`)}`);
    await client.begin("isolation level read committed", { search_path: "" });
    await client.query("set local check_function_bodies = off; set local client_min_messages = error");
    const warnings = await createDefinitions(client, definitions);
    await client.query("commit");
    return warnings;
  }

  async load({ table, columns, format, streams, isWhole }: CreateRows): Promise<number> {
    return this.#onWorker(async (client) => {
      const name = quoteName(table.schema, table.name);
      await client.begin("isolation level read committed");
      // Emptied in the same transaction, rows can be written as visible to all: no hint bits, no later freezing.
      if (isWhole) await client.query(`truncate only ${name}`);
      const list = columns.length > 0 ? ` (${columns.map(quoteIdentifier).join(", ")})` : "";
      const options = [...(isWhole ? ["freeze"] : []), ...(format === "binary" ? ["format binary"] : [])];
      const clause = options.length > 0 ? ` (${options.join(", ")})` : "";
      let rows = 0;
      for (const bytes of streams) rows += await client.copyIn(`copy ${name}${list} from stdin${clause}`, bytes);
      await client.query("commit");
      return rows;
    });
  }

  async execute(sql: string): Promise<void> {
    await this.#onWorker(async (client) => {
      await client.begin("isolation level read committed", { search_path: "" });
      await client.query("set local check_function_bodies = off; set local client_min_messages = error");
      await client.query(sql);
      await client.query("commit");
    });
  }

  async tryDefinition(definition: Definition): Promise<string | undefined> {
    try {
      await this.execute(definition.sql);
      return undefined;
    } catch (error) {
      return refusalOf(definition, error);
    }
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

  async finish(sequences: readonly SequenceState[], owners: readonly ObjectOwner[]): Promise<Finished> {
    const warnings: string[] = [];
    for (const sequence of sequences) {
      const warning = await resetSequence(this.#leader, sequence);
      if (warning) warnings.push(warning);
    }
    await this.#leader.query("analyze");
    // The sessions that loaded did not wait for the disk: this commit does, and theirs lie before it.
    await this.#leader.begin("isolation level read committed", { search_path: "" });
    await this.#leader.query("set local synchronous_commit = on");
    const ownerFailures = await assignOwners(this.#leader, owners);
    await this.#leader.query(`drop schema ${MARKER}; commit`);
    return { warnings, ownerFailures };
  }

  async abandon(): Promise<void> {
    for (const client of this.#all) client.destroy();
    this.#leader.destroy();
    // The command may have been stopped: what it made must go all the same.
    const signal = AbortSignal.timeout(120_000);
    await using client = await openPostgresClient(this.#leader.connection, {
      ...this.#options,
      signal,
      applicationName: "rowkeep restore",
    });
    // Whatever this new connection leads to: only what carries the marker is unfinished, and ours.
    const [row] = await client.query("select pg_catalog.to_regnamespace($1)", [MARKER]);
    if (row?.[0]) await dropContent(client);
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
