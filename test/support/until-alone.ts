import { setTimeout as sleep } from "node:timers/promises";
import type { TestDatabase } from "./postgres.ts";

/**
 * Waits until every transaction has ended that began before this call, for 5 seconds at most. Tests share servers: rows that were written
 * while another test had a transaction open look new to the next incremental.
 */
export async function untilAlone(database: Pick<TestDatabase, "query">): Promise<void> {
  const [row] = await database.query("select pg_current_xact_id()");
  for (let attempt = 0; attempt < 100; attempt++) {
    const sql = `select pg_snapshot_xmin(pg_current_snapshot()) > '${row?.[0]}'::xid8`;
    if ((await database.query(sql))[0]?.[0] === "t") return;
    await sleep(50);
  }
}
