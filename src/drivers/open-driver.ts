import type { Connection, OpenSourceOptions, Probe, Source } from "./driver.ts";

/** Opens a database for reading, at one instant. Loads the engine's client only now. Fails with kind `database`. */
export async function openSource(connection: Connection, options: OpenSourceOptions): Promise<Source> {
  switch (connection.engine) {
    case "postgres": {
      const { openPostgresSource } = await import("./postgres/postgres-source.ts");
      return openPostgresSource(connection, options);
    }
  }
}

/** Looks at a server: who it is, its databases, the tables of the connected one. Fails with kind `database`. */
export async function probeDatabase(connection: Connection, options: { readonly signal: AbortSignal }): Promise<Probe> {
  const { probePostgres } = await import("./postgres/postgres-probe.ts");
  return probePostgres(connection, options);
}
