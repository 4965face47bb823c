import type { Connection, Probe } from "../driver.ts";
import { openPostgresClient } from "./postgres-client.ts";
import { readIdentity } from "./postgres-identity.ts";

const STALL_TIMEOUT_MS = 30_000;

/** Connects, looks and leaves. Fails with kind `database`. */
export async function probePostgres(
  connection: Connection,
  { signal }: { readonly signal: AbortSignal },
): Promise<Probe> {
  const options = { applicationName: "rowkeep", stallTimeoutMs: STALL_TIMEOUT_MS, signal };
  await using client = await openPostgresClient(connection, options);
  const identity = await readIdentity(client);
  const databases = await client.query(
    `select datname from pg_catalog.pg_database
      where datallowconn and not datistemplate and pg_catalog.has_database_privilege(oid, 'connect') order by datname`,
  );
  const tables = await client.query(
    `select n.nspname, c.relname, greatest(c.reltuples, 0)::bigint, pg_catalog.pg_table_size(c.oid)
       from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where c.relkind = 'r' and c.relpersistence <> 't' and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
      order by 4 desc, 1, 2`,
  );
  const before = Date.now();
  const [clock] = await client.query("select extract(epoch from pg_catalog.clock_timestamp()) * 1000");
  return {
    identity,
    databases: databases.map((row) => row[0] ?? ""),
    tables: tables.map((row) => ({
      schema: row[0] ?? "",
      name: row[1] ?? "",
      estimatedRows: Number(row[2]),
      bytes: Number(row[3]),
    })),
    clockSkewMs: Math.round(Number(clock?.[0]) - (before + Date.now()) / 2),
  };
}
