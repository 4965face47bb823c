import { OperationalError } from "../../base/errors.ts";
import type { Connection } from "../driver.ts";
import type { InspectOptions, Inspection } from "../inspection.ts";
import { renderGrants } from "./grant-script.ts";
import { openPostgresClient, type PostgresClient } from "./postgres-client.ts";
import { readIdentity } from "./postgres-identity.ts";

const STALL_TIMEOUT_MS = 30_000;
const OLDEST_VERSION = 130000;
const NEWEST_MAJOR = 18;
/** The login that the script names when this one is a superuser, which needs no grants. */
const ORDINARY_ROLE = "rowkeep_backup";

/** Looks at what this login may do in one database; changes nothing. Fails with kind `database`. */
export async function inspectPostgres(connection: Connection, options: InspectOptions): Promise<Inspection> {
  const opening = { applicationName: "rowkeep doctor", stallTimeoutMs: STALL_TIMEOUT_MS, signal: options.signal };
  await using client = await openPostgresClient(connection, opening);
  await client.begin("isolation level repeatable read read only");
  const identity = await readIdentity(client);
  const session = await readSession(client);
  const all = await readTableRights(client);
  const tables = all.filter((table) => options.choose(table) === "rows");
  const sequences = (await readSequenceRights(client)).filter(
    ({ ownedBy }) => !ownedBy || options.choose(ownedBy) !== "excluded",
  );
  const dataFolder = await readDataFolder(client);
  const largeObjects = await readLargeObjects(client);
  const filteredTables = tables.filter((table) => table.isFiltered).map(labelOf);
  return {
    identity,
    ...session,
    tls: connection.tls,
    isPooled: client.isPooled,
    isSupported: client.serverVersion >= OLDEST_VERSION,
    isUntried: Math.floor(client.serverVersion / 10_000) > NEWEST_MAJOR,
    clockSkewMs: await readClockSkew(client),
    tables: tables.filter((table) => table.holdsRows).length,
    bytes: tables.reduce((sum, table) => sum + table.bytes, 0),
    deniedTables: tables.filter((table) => !table.isReadable).map(labelOf),
    filteredTables,
    deniedSequences: sequences.filter((sequence) => !sequence.isReadable).map(labelOf),
    largeObjects,
    dataFolder,
    grants: renderGrants({
      database: identity.database,
      role: session.isSuperuser ? ORDINARY_ROLE : identity.user,
      tables,
      sequences,
      isEverything: tables.length === all.length && options.choose(TABLE_TO_COME) === "rows",
      hidesRows: tables.some((table) => table.hasPolicies),
      hasLargeObjects: largeObjects !== "none",
    }),
  };
}

async function readSession(
  client: PostgresClient,
): Promise<Pick<Inspection, "tlsProtocol" | "isSuperuser" | "canCreateDatabases">> {
  const [row] = await client.query(
    `select r.rolsuper, r.rolsuper or r.rolcreatedb,
            (select s.version from pg_catalog.pg_stat_ssl s where s.pid = pg_catalog.pg_backend_pid() and s.ssl)
       from pg_catalog.pg_roles r where r.rolname = current_user`,
  );
  return { isSuperuser: row?.[0] === "t", canCreateDatabases: row?.[1] === "t", tlsProtocol: row?.[2] ?? undefined };
}

/** Half of the time that the answer took is counted as the way back. */
async function readClockSkew(client: PostgresClient): Promise<number> {
  const before = Date.now();
  const [clock] = await client.query("select extract(epoch from pg_catalog.clock_timestamp()) * 1000");
  return Math.round(Number(clock?.[0]) - (before + Date.now()) / 2);
}

/** A table that nobody has yet, to see whether the job wants every table. */
const TABLE_TO_COME = { schema: "public", name: "rowkeep table to come" };

interface TableRights {
  readonly schema: string;
  readonly name: string;
  readonly partitionRoot?: { readonly schema: string; readonly name: string } | undefined;
  readonly owner: string;
  readonly holdsRows: boolean;
  readonly isReadable: boolean;
  readonly isFiltered: boolean;
  readonly hasPolicies: boolean;
  readonly bytes: number;
}

async function readTableRights(client: PostgresClient): Promise<readonly TableRights[]> {
  const rows = await client.query(
    `select n.nspname, c.relname, rn.nspname, r.relname, pg_catalog.pg_get_userbyid(c.relowner), c.relkind,
            pg_catalog.has_table_privilege(c.oid, 'select') and pg_catalog.has_schema_privilege(n.oid, 'usage'),
            c.relkind = 'r' and pg_catalog.row_security_active(c.oid), c.relrowsecurity,
            case when c.relkind = 'r' then pg_catalog.pg_table_size(c.oid) else 0 end
       from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       left join pg_catalog.pg_class r on c.relispartition and r.oid = pg_catalog.pg_partition_root(c.oid)
       left join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
      where c.relkind in ('r', 'p') and c.relpersistence <> 't' and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
        and not exists (select from pg_catalog.pg_depend x where x.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                           and x.objid = c.oid and x.objsubid = 0 and x.deptype = 'e')
      order by 1, 2`,
  );
  return rows.map((row) => ({
    schema: row[0] ?? "",
    name: row[1] ?? "",
    ...(row[3] === null ? {} : { partitionRoot: { schema: row[2] ?? "", name: row[3] ?? "" } }),
    owner: row[4] ?? "",
    holdsRows: row[5] === "r",
    isReadable: row[6] === "t",
    isFiltered: row[7] === "t",
    hasPolicies: row[8] === "t",
    bytes: Number(row[9]),
  }));
}

interface SequenceRights {
  readonly schema: string;
  readonly name: string;
  readonly isReadable: boolean;
  readonly ownedBy: { readonly schema: string; readonly name: string } | undefined;
}

async function readSequenceRights(client: PostgresClient): Promise<readonly SequenceRights[]> {
  const rows = await client.query(
    `select n.nspname, c.relname, tn.nspname, t.relname,
            pg_catalog.has_sequence_privilege(c.oid, 'select') and pg_catalog.has_schema_privilege(n.oid, 'usage')
       from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       left join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid
                                       and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjsubid > 0
                                       and d.deptype in ('a', 'i')
       left join pg_catalog.pg_class t on t.oid = d.refobjid
       left join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
      where c.relkind = 'S' and c.relpersistence <> 't' and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
        and not exists (select from pg_catalog.pg_depend x where x.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                           and x.objid = c.oid and x.deptype = 'e')
      order by 1, 2`,
  );
  return rows.map((row) => ({
    schema: row[0] ?? "",
    name: row[1] ?? "",
    isReadable: row[4] === "t",
    ownedBy: row[3] === null ? undefined : { schema: row[2] ?? "", name: row[3] ?? "" },
  }));
}

/** The setting is closed to ordinary logins. */
async function readDataFolder(client: PostgresClient): Promise<string | undefined> {
  const [row] = await client.query("select setting from pg_catalog.pg_settings where name = 'data_directory'");
  return row?.[0] ?? undefined;
}

const TRIED_LARGE_OBJECTS = 1000;

/** Who may read a large object is known only by trying. */
async function readLargeObjects(client: PostgresClient): Promise<Inspection["largeObjects"]> {
  await client.query("savepoint large_objects");
  try {
    const [row] = await client.query(
      `select pg_catalog.count(pg_catalog.lo_close(pg_catalog.lo_open(m.oid, 262144)))
         from (select oid from pg_catalog.pg_largeobject_metadata limit ${TRIED_LARGE_OBJECTS}) m`,
    );
    return row?.[0] === "0" ? "none" : "readable";
  } catch (error) {
    if (!(error instanceof OperationalError) || error.code !== "denied") throw error;
    await client.query("rollback to savepoint large_objects");
    return "denied";
  }
}

function labelOf({ schema, name }: { readonly schema: string; readonly name: string }): string {
  return `${schema}.${name}`;
}
