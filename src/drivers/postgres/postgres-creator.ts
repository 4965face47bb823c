import type { Connection, Definition, ObjectOwner, SequenceState, ServerIdentity } from "../driver.ts";
import type { Creator, CreateRows, Finished, OpenCreatorOptions, OwnerRole } from "../creator.ts";
import { openPostgresClient, type PostgresClient } from "./postgres-client.ts";
import { readIdentity } from "./postgres-identity.ts";
import { loadLargeObjects } from "./postgres-large-objects.ts";
import { assignOwners, readOwnerRoles } from "./postgres-owners.ts";
import { quoteIdentifier, quoteLiteral, quoteName } from "./postgres-quote.ts";
import { resetSequence } from "./postgres-sequence-reset.ts";

const MARKER = "rowkeep_restore";
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
    return (await this.#leader.query(CONTENT)).map((row) => `${row[0]} ${row[1]}`);
  }

  async clearInterrupted(): Promise<boolean> {
    const [row] = await this.#leader.query("select pg_catalog.to_regnamespace($1)", [MARKER]);
    if (!row?.[0]) return false;
    await dropContent(this.#leader);
    return true;
  }

  async begin(snapshot: string, definitions: readonly Definition[]): Promise<void> {
    const client = this.#leader;
    await client.query(`create schema ${MARKER}`);
    await client.query(`comment on schema ${MARKER} is ${quoteLiteral(`restore of ${snapshot}, not finished`)}`);
    await client.begin("isolation level read committed", { search_path: "" });
    await client.query("set local check_function_bodies = off; set local client_min_messages = error");
    for (const { sql } of definitions) await client.query(sql);
    await client.query("commit");
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
    await dropContent(client);
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

/** What a user made: schemas but for public, and in it relations, types and functions that no extension brought. */
const NO_MEMBER = (catalog: string, oid: string) =>
  `not exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.${catalog}'::pg_catalog.regclass and d.objid = ${oid} and d.deptype = 'e')`;
const CONTENT = `
  select 'schema', n.nspname from pg_catalog.pg_namespace n
   where n.nspname not in ('public', 'information_schema', '${MARKER}') and n.nspname !~ '^pg_' and ${NO_MEMBER("pg_namespace", "n.oid")}
  union all select case c.relkind when 'v' then 'view' when 'S' then 'sequence' when 'm' then 'materialized view' else 'table' end, c.relname
    from pg_catalog.pg_class c where c.relnamespace = 'public'::pg_catalog.regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f', 'c') and ${NO_MEMBER("pg_class", "c.oid")}
  union all select 'function', p.proname from pg_catalog.pg_proc p where p.pronamespace = 'public'::pg_catalog.regnamespace and ${NO_MEMBER("pg_proc", "p.oid")}
  union all select 'type', t.typname from pg_catalog.pg_type t
    where t.typnamespace = 'public'::pg_catalog.regnamespace and t.typtype in ('e', 'd', 'r') and ${NO_MEMBER("pg_type", "t.oid")}`;

/** Drops what users made. Called only where a marker proves that the database was empty before. */
async function dropContent(client: PostgresClient): Promise<void> {
  await client.begin("isolation level read committed", { search_path: "" });
  await client.query("set local client_min_messages = error");
  const extensions = await client.query(
    "select pg_catalog.quote_ident(extname) from pg_catalog.pg_extension e where pg_catalog.pg_get_userbyid(e.extowner) = current_user and extname <> 'plpgsql'",
  );
  for (const [name] of extensions) await client.query(`drop extension if exists ${name} cascade`);
  const schemas = await client.query(
    `select pg_catalog.quote_ident(nspname) from pg_catalog.pg_namespace where nspname not in ('public', 'information_schema') and nspname !~ '^pg_'`,
  );
  for (const [name] of schemas) await client.query(`drop schema if exists ${name} cascade`);
  const drops = await client.query(DROPS);
  for (const [sql] of drops) await client.query(sql ?? "");
  await client.query(
    "select pg_catalog.count(pg_catalog.lo_unlink(oid)) from pg_catalog.pg_largeobject_metadata where lomowner = (select oid from pg_catalog.pg_roles where rolname = current_user)",
  );
  await client.query("commit");
}

const DROPS = `
  select 'drop ' || case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence' when 'c' then 'type' when 'f' then 'foreign table' else 'table' end
         || ' if exists public.' || pg_catalog.quote_ident(c.relname) || ' cascade'
    from pg_catalog.pg_class c where c.relnamespace = 'public'::pg_catalog.regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f', 'c') and ${NO_MEMBER("pg_class", "c.oid")}
  union all select 'drop routine if exists ' || p.oid::pg_catalog.regprocedure::text || ' cascade' from pg_catalog.pg_proc p
   where p.pronamespace = 'public'::pg_catalog.regnamespace and ${NO_MEMBER("pg_proc", "p.oid")}
  union all select 'drop type if exists public.' || pg_catalog.quote_ident(t.typname) || ' cascade' from pg_catalog.pg_type t
   where t.typnamespace = 'public'::pg_catalog.regnamespace and t.typtype in ('e', 'd', 'r') and ${NO_MEMBER("pg_type", "t.oid")}`;
