import { randomBytes } from "node:crypto";
import { codeOf, messageOf, OperationalError } from "../../base/errors.ts";
import type { Connection, ServerIdentity } from "../driver.ts";
import type { OpenScratchOptions, Scratch } from "../scratch.ts";
import { openPostgresClient, type PostgresClient } from "./postgres-client.ts";
import { readIdentity } from "./postgres-identity.ts";
import { quoteIdentifier, quoteLiteral, quoteName } from "./postgres-quote.ts";

/** Only a database with such a name and such a comment is ever taken for the leftover of a drill. */
const SCRATCH_NAME = /^rowkeep_drill_\d{8}t\d{6}_[0-9a-f]{16}$/;
const COMMENT_START = "scratch database of a rowkeep drill, may be dropped: ";

const CREATE_MS = 120_000;
const DROP_MS = 120_000;
const APPLICATION = "rowkeep drill";

/** Where to connect when the database of the address is gone, which is when a drill is wanted most. */
const MAINTENANCE_DATABASE = "postgres";

/**
 * Makes a scratch database on the server that `server` leads to; the database of that connection is only used to be connected.
 * What killed drills of this login left there is dropped first. Fails with kind `database`: `denied` without CREATEDB,
 * `read-only` on a replica, `wrong-database` when the address of the new database leads to another one.
 */
export async function openPostgresScratch(server: Connection, options: OpenScratchOptions): Promise<Scratch> {
  const { reached, removed, notes } = await prepareServer(server, options);
  options.signal.throwIfAborted();
  const stamp = options.now
    .toISOString()
    .replace(/[-:]|\..*/g, "")
    .toLowerCase();
  const name = `rowkeep_drill_${stamp}_${randomBytes(8).toString("hex")}`;
  const connection = { ...reached, database: name };
  // Not ended by an abort: who stops it in the middle does not know whether the database is there.
  const signal = AbortSignal.timeout(CREATE_MS);
  const opening = { applicationName: APPLICATION, stallTimeoutMs: options.stallTimeoutMs, signal };
  try {
    await using leader = await openPostgresClient(reached, opening);
    const left = await createLike(leader, name, options.like);
    // It stays open until the end: a database with a session is never taken for a leftover.
    const holder = await openPostgresClient(connection, { ...opening, signal: new AbortController().signal });
    const parts = { reached, connection, holder, removed, notes: [...notes, ...left], options };
    return await PostgresScratch.open(parts);
  } catch (error) {
    await dropScratch(reached, name, options);
    throw error;
  }
}

interface Parts {
  readonly reached: Connection;
  readonly connection: Connection;
  readonly holder: PostgresClient;
  readonly removed: readonly string[];
  readonly notes: readonly string[];
  readonly options: OpenScratchOptions;
}

class PostgresScratch implements Scratch {
  readonly name: string;
  readonly connection: Connection;
  readonly identity: ServerIdentity;
  readonly removed: readonly string[];
  readonly notes: readonly string[];
  readonly #parts: Parts;

  constructor(parts: Parts, identity: ServerIdentity) {
    this.name = parts.connection.database;
    this.connection = parts.connection;
    this.identity = identity;
    this.removed = parts.removed;
    this.notes = parts.notes;
    this.#parts = parts;
  }

  /** Marks the database as a drill's, once it is sure that it is the new one. */
  static async open(parts: Parts): Promise<PostgresScratch> {
    const { holder, connection, options } = parts;
    try {
      const identity = await readIdentity(holder);
      refuseOther(identity, connection, options.like);
      const comment = `${COMMENT_START}${options.snapshot}, ${options.now.toISOString()}`;
      await holder.query(`comment on database ${quoteIdentifier(connection.database)} is ${quoteLiteral(comment)}`);
      return new PostgresScratch(parts, identity);
    } catch (error) {
      holder.destroy();
      throw error;
    }
  }

  async admitOwner(): Promise<void> {
    const { connection, options } = this.#parts;
    await using client = await openPostgresClient(connection, { ...options, applicationName: APPLICATION });
    const tables = await client.query(
      `select n.nspname, c.relname from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where c.relforcerowsecurity`,
    );
    for (const [schema, name] of tables) {
      await client.query(`alter table only ${quoteName(schema ?? "", name ?? "")} no force row level security`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { holder, reached, options } = this.#parts;
    holder.destroy();
    await dropScratch(reached, this.name, options);
  }
}

/** A pooler may lead every name to one database: nothing may be written there. */
function refuseOther(found: ServerIdentity, { database, host, port }: Connection, source: ServerIdentity): void {
  const isSource =
    found.databaseOid === source.databaseOid &&
    found.systemIdentifier === source.systemIdentifier &&
    found.systemIdentifier !== undefined;
  if (found.database === database && !isSource) return;
  throw new OperationalError(
    `cannot use the scratch database ${database} at ${host}:${port}: the connection leads to ${found.database}`,
    {
      kind: "database",
      code: "wrong-database",
      hint: "Name the server itself by --drill-url, not a pooler that maps names of databases.",
    },
  );
}

interface Prepared {
  /** How the server was reached. */
  readonly reached: Connection;
  readonly removed: readonly string[];
  readonly notes: readonly string[];
}

async function prepareServer(server: Connection, options: OpenScratchOptions): Promise<Prepared> {
  await using client = await openMaintenance(server, options);
  const [row] = await client.query(
    `select r.rolcreatedb or r.rolsuper, pg_catalog.pg_is_in_recovery(), r.rolname
       from pg_catalog.pg_roles r where r.rolname = current_user`,
  );
  const place = `${server.host}:${server.port}`;
  if (row?.[1] === "t") {
    throw new OperationalError(`cannot create a scratch database at ${place}: it is a replica, which takes no writes`, {
      kind: "database",
      code: "read-only",
      hint: "Name a server where databases can be created by --drill-url.",
    });
  }
  if (row?.[0] !== "t") {
    throw new OperationalError(`cannot create a scratch database at ${place}: ${row?.[2]} lacks the right to`, {
      kind: "database",
      code: "denied",
      hint: `Let an administrator run ALTER ROLE ${quoteIdentifier(row?.[2] ?? "")} CREATEDB, or name another server by --drill-url.`,
    });
  }
  return { reached: client.connection, ...(await removeLeftovers(client)) };
}

async function openMaintenance(server: Connection, options: OpenScratchOptions): Promise<PostgresClient> {
  const opening = { ...options, applicationName: APPLICATION };
  try {
    return await openPostgresClient(server, opening);
  } catch (error) {
    if (codeOf(error) !== "missing-database" || server.database === MAINTENANCE_DATABASE) throw error;
    return await openPostgresClient({ ...server, database: MAINTENANCE_DATABASE }, opening);
  }
}

/** Drops what is a drill's by name, comment and owner, and that nobody is connected to. */
async function removeLeftovers(client: PostgresClient): Promise<Pick<Prepared, "removed" | "notes">> {
  const removed: string[] = [];
  const notes: string[] = [];
  const rows = await client.query(
    `select d.datname, pg_catalog.shobj_description(d.oid, 'pg_database'), pg_catalog.pg_has_role(d.datdba, 'usage'),
            exists (select from pg_catalog.pg_stat_activity a where a.datid = d.oid)
       from pg_catalog.pg_database d where d.datname like 'rowkeep\\_drill\\_%' order by d.datname`,
  );
  for (const [name, comment, isOwn, isInUse] of rows) {
    if (!name || !SCRATCH_NAME.test(name) || isOwn !== "t") continue;
    if (!comment?.startsWith(COMMENT_START)) {
      notes.push(`${name} looks like the leftover of a drill but has no comment that says so: drop it if it is one`);
      continue;
    }
    if (isInUse === "t") continue;
    try {
      // Without FORCE: the server itself refuses when a session came in the meantime.
      await client.query(`drop database ${quoteIdentifier(name)}`);
      removed.push(name);
    } catch (error) {
      if (!(error instanceof OperationalError)) throw error;
      notes.push(`${name}, the leftover of a drill, could not be dropped: ${error.message}`);
    }
  }
  return { removed, notes };
}

/** SQLSTATEs of a locale that this server does not have, or not for this encoding. */
const LOCALE_REFUSED = ["22023", "42809", "42704"];

/** Creates a database with the source's encoding and collation; where the server lacks the collation, with its own, or with C. */
async function createLike(
  leader: PostgresClient,
  name: string,
  { encoding, collation }: ServerIdentity,
): Promise<readonly string[]> {
  const base = `create database ${quoteIdentifier(name)} template template0 encoding ${quoteLiteral(encoding)}`;
  const withLocale = (locale: string) => ` lc_collate ${quoteLiteral(locale)} lc_ctype ${quoteLiteral(locale)}`;
  const tries = [...(collation === undefined ? [] : [withLocale(collation)]), "", withLocale("C")];
  for (const [index, locale] of tries.entries()) {
    try {
      await leader.query(`${base}${locale}`);
      if (index === 0) return [];
      return [
        `the server of the drill has no collation ${collation}: text is ordered otherwise in the scratch database`,
      ];
    } catch (error) {
      if (index === tries.length - 1 || !LOCALE_REFUSED.includes(codeOf(error) ?? "")) throw error;
    }
  }
  return [];
}

/** Drops the database whatever is connected to it. Its name was made here, so it can be nobody else's. */
async function dropScratch(reached: Connection, name: string, options: OpenScratchOptions): Promise<void> {
  const signal = AbortSignal.timeout(DROP_MS);
  try {
    const { stallTimeoutMs } = options;
    await using client = await openPostgresClient(reached, { applicationName: APPLICATION, stallTimeoutMs, signal });
    await client.query(`drop database if exists ${quoteIdentifier(name)} with (force)`);
  } catch (error) {
    options.onLeft(
      `the scratch database ${name} at ${reached.host}:${reached.port} was left behind, the next drill drops it: ${messageOf(error)}`,
    );
  }
}
