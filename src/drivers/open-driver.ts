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
