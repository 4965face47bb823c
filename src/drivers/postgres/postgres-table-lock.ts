import type { TableName } from "../driver.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { quoteName } from "./postgres-quote.ts";
import { asSchemaLocked } from "./schema-changed.ts";

/** A lock stays until the transaction ends, and with it the connection. */
const locked = new WeakMap<PostgresClient, Set<string>>();

/**
 * Locks, on a connection that shares the leader's snapshot, a table that the leader has locked. Somebody's queued ALTER TABLE
 * waits for the leader: waiting behind it would be a deadlock. Then it fails with code `schema-locked`.
 */
export async function lockLikeLeader(worker: PostgresClient, { schema, name }: TableName): Promise<void> {
  const table = quoteName(schema, name);
  const tables = locked.get(worker) ?? new Set();
  if (tables.has(table)) return;
  await worker.query(`lock table only ${table} in access share mode nowait`).catch((error: unknown) => {
    throw asSchemaLocked(`cannot read ${table}`, error);
  });
  locked.set(worker, tables.add(table));
}
