import { openPostgresClient, type PostgresClient } from "../../src/drivers/postgres/postgres-client.ts";
import { connectionOfUrl } from "./connection.ts";

/** Begins a transaction as a backup does. */
export async function openLeader(url: string): Promise<PostgresClient> {
  const client = await openPostgresClient(connectionOfUrl(url), {
    applicationName: "test",
    stallTimeoutMs: 60_000,
    signal: new AbortController().signal,
  });
  await client.begin("isolation level repeatable read read only", { search_path: "" });
  return client;
}
