import { setTimeout as delay } from "node:timers/promises";
import { OperationalError } from "../../base/errors.ts";
import type { OpenReplacerOptions } from "../replacer.ts";
import { openPostgresClient, type PostgresClient } from "./postgres-client.ts";

/** Codes of errors after which nobody knows what the server did last. */
const LOST: readonly string[] = ["connection-lost", "stalled", "server-stopped"];

/**
 * Whether a COMMIT that ended in an error was done: its answer may have been lost, or not waited for after an abort. The
 * server remembers what became of the transaction. Fails with `outcome-unknown` when it cannot be asked.
 */
export async function wasCommitted(
  { connection }: PostgresClient,
  options: OpenReplacerOptions,
  { transaction, error }: { readonly transaction: string; readonly error: unknown },
): Promise<boolean> {
  const isLost = error instanceof OperationalError && LOST.includes(error.code);
  if (!isLost && !options.signal.aborted) return false;
  const signal = AbortSignal.timeout(30_000);
  try {
    await using client = await openPostgresClient(connection, {
      ...options,
      signal,
      applicationName: "rowkeep restore",
    });
    for (;;) {
      const [row] = await client.query("select pg_catalog.pg_xact_status($1::pg_catalog.xid8)", [transaction]);
      if (row?.[0] !== "in progress") return row?.[0] === "committed";
      await delay(100, undefined, { signal });
    }
  } catch (cause) {
    const { database, host, port } = connection;
    throw new OperationalError(
      `cannot tell whether the rows of ${database} at ${host}:${port} were replaced: the connection ended during COMMIT`,
      {
        kind: "database",
        code: "outcome-unknown",
        hint: "Look at the rows: all of them were replaced, or none. Restoring again does no harm.",
        cause,
      },
    );
  }
}
