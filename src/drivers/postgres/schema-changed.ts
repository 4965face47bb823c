import { codeOf, OperationalError } from "../../base/errors.ts";

/** Makes the error for what a snapshot shows and the server does not have any more; a new snapshot does not show it. */
export function schemaChanged(action: string, what: string, cause?: unknown): OperationalError {
  return new OperationalError(`${action}: ${what} was dropped or renamed meanwhile`, {
    kind: "database",
    code: "schema-changed",
    hint: "Run it again when no schema migration is under way.",
    cause,
  });
}

/**
 * For the leader of a snapshot when it reads definitions and sequences. Views, functions and sequences are locked one by one, behind the
 * tables: a migration that holds one of them and waits for a table waits for us, and the server ends one of both after a
 * second (deadlock_timeout). We give way long before, so that it is not the migration.
 */
export const GIVE_WAY = "set local lock_timeout = '200ms'";
export const WAIT = "set local lock_timeout = 0";

/** Gives the error of a read that gave way to somebody's lock; any other error as it is. */
export function asSchemaLocked(action: string, error: unknown): unknown {
  if (!LOCKED.has(codeOf(error))) return error;
  return new OperationalError(`${action}: another session is changing what is to be read`, {
    kind: "database",
    code: "schema-locked",
    hint: "Run it again when no schema migration is under way.",
    cause: error,
  });
}

const LOCKED: ReadonlySet<unknown> = new Set(["lock-timeout", "deadlock"]);
