import type { ServerIdentity } from "../driver.ts";
import type { PostgresClient } from "./postgres-client.ts";

/** Reads which server and database a connection has really reached. Needs no right beyond CONNECT. */
export async function readIdentity(client: PostgresClient): Promise<ServerIdentity> {
  const [row] = await client.query(
    `select pg_catalog.current_setting('server_version'), d.datname, pg_catalog.pg_encoding_to_char(d.encoding),
            d.datcollate, d.oid, pg_catalog.host(pg_catalog.inet_server_addr()), pg_catalog.inet_server_port(),
            pg_catalog.pg_is_in_recovery(), current_user,
            pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'execute')
       from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()`,
  );
  const [control] =
    row?.[9] === "t" ? await client.query("select system_identifier from pg_catalog.pg_control_system()") : [];
  return {
    engine: "postgres",
    version: (row?.[0] ?? "").replace(/ .*/, ""),
    database: row?.[1] ?? "",
    encoding: row?.[2] ?? "",
    collation: row?.[3] ?? undefined,
    databaseOid: row?.[4] ?? undefined,
    systemIdentifier: control?.[0] ?? undefined,
    host: row?.[5] ?? client.connection.host,
    port: row?.[6] ? Number(row[6]) : client.connection.port,
    isReplica: row?.[7] === "t",
    user: row?.[8] ?? "",
  };
}
