import type { TableName } from "../driver.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { quoteName } from "./postgres-quote.ts";

/**
 * Locks, on a connection that shares the leader's snapshot, a table that the leader has locked. Somebody's queued ALTER TABLE
 * waits for the leader: waiting behind it would be a deadlock.
 */
export async function lockLikeLeader(worker: PostgresClient, { schema, name }: TableName): Promise<void> {
  await worker.query(`lock table only ${quoteName(schema, name)} in access share mode nowait`);
}
