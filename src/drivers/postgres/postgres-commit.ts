import { setTimeout as delay } from "node:timers/promises";
import { codeOf, OperationalError } from "../../base/errors.ts";
import type { Connection } from "../driver.ts";
import type { OpenReplacerOptions, Outcome, PastReplacement } from "../replacer.ts";
import { isSameDatabase } from "../same-database.ts";
import { openPostgresClient, type PostgresClient } from "./postgres-client.ts";
import { readIdentity } from "./postgres-identity.ts";

/** Codes of errors after which nobody knows what the server did last. */
const LOST: readonly string[] = ["connection-lost", "stalled", "server-stopped"];

/** invalid_parameter_value: "transaction ID … is in the future". */
const IN_THE_FUTURE = "22023";
const ASK_AGAIN_MS = 100;
/** A server notices only at the end of a statement that its client was killed. */
const END_TIMEOUT_MS = 30_000;

/** Asks what became of a transaction of a process that is gone, once the server is done with it, or after half a minute. */
export async function findPostgresOutcome(
  connection: Connection,
  { transaction, target }: PastReplacement,
  options: OpenReplacerOptions,
): Promise<Outcome> {
  await using client = await openPostgresClient(connection, { ...options, applicationName: "rowkeep restore" });
  if (!isSameDatabase(target, await readIdentity(client))) return "unknown";
  const end = performance.now() + END_TIMEOUT_MS;
  for (;;) {
    const outcome = await outcomeOf(client, transaction);
    if (outcome !== "in progress" || performance.now() > end) return outcome;
    await delay(ASK_AGAIN_MS, undefined, options);
  }
}

/** The server forgets old ones; one that is still to come is of a history from before the server was set back. */
async function outcomeOf(client: PostgresClient, transaction: string): Promise<Outcome> {
  try {
    const [row] = await client.query("select pg_catalog.pg_xact_status($1::pg_catalog.xid8)", [transaction]);
    return (row?.[0] as Outcome | null | undefined) ?? "unknown";
  } catch (error) {
    if (codeOf(error) === IN_THE_FUTURE) return "unknown";
    throw error;
  }
}

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
      const outcome = await outcomeOf(client, transaction);
      if (outcome !== "in progress") return outcome === "committed";
      await delay(ASK_AGAIN_MS, undefined, { signal });
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
