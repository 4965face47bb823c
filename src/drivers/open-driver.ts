import type { Connection, OpenSourceOptions, Source } from "./driver.ts";

/** Opens a database for reading, at one instant. Loads the engine's client only now. Fails with kind `database`. */
export async function openSource(connection: Connection, options: OpenSourceOptions): Promise<Source> {
  switch (connection.engine) {
    case "postgres": {
      const { openPostgresSource } = await import("./postgres/postgres-source.ts");
      return openPostgresSource(connection, options);
    }
  }
}

/** Lists the databases of the server that this login may connect to, templates left out. Fails with kind `database`. */
export async function listDatabases(
  connection: Connection,
  options: { readonly signal: AbortSignal },
): Promise<readonly string[]> {
  const { probePostgres } = await import("./postgres/postgres-probe.ts");
  return (await probePostgres(connection, options)).databases;
}
