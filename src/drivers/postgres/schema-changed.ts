import { OperationalError } from "../../base/errors.ts";

/** Makes the error for what a snapshot shows and the server does not have any more; a new snapshot does not show it. */
export function schemaChanged(action: string, what: string, cause?: unknown): OperationalError {
  return new OperationalError(`${action}: ${what} was dropped or renamed meanwhile`, {
    kind: "database",
    code: "schema-changed",
    hint: "Run it again when no schema migration is under way.",
    cause,
  });
}
