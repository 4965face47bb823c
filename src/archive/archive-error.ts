import { OperationalError } from "../base/errors.ts";

/** Why stored bytes were refused. */
export type ArchiveReason =
  | "bad-entry"
  | "corrupt-chunk"
  | "damaged"
  | "future-version"
  | "hash-mismatch"
  | "invalid-manifest"
  | "key-needed"
  | "missing-reference"
  | "missing-volume"
  | "not-found"
  | "other-snapshot"
  | "removed"
  | "truncated"
  | "wrong-key"
  | "wrong-size";

/** Makes the error for stored bytes that are not what they should be: `cannot <verb> <object>: <reason in words>`. */
export function archiveError(
  message: string,
  code: ArchiveReason,
  details: { readonly hint?: string | undefined; readonly cause?: unknown } = {},
): OperationalError {
  return new OperationalError(message, { kind: "archive", code, hint: details.hint, cause: details.cause });
}
