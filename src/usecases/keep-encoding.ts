import { codeOf, messageOf } from "../base/errors.ts";
import type { Report } from "./progress.ts";

/**
 * Reads a database with its text as UTF-8, and where some of it has no equivalent there, again with all of it in the database's own
 * encoding (`ownEncoding`). Rows in UTF-8 can be read by more programs, and restored into more databases.
 */
export async function convertingWherePossible<T>(
  attempt: (ownEncoding: boolean) => Promise<T>,
  {
    ownEncoding,
    signal,
    report,
  }: { readonly ownEncoding: boolean; readonly signal: AbortSignal; readonly report: Report },
): Promise<T> {
  if (ownEncoding) return await attempt(true);
  try {
    return await attempt(false);
  } catch (error) {
    signal.throwIfAborted();
    if (codeOf(error) !== "unconvertible") throw error;
    report({ type: "phase", text: `beginning again in the encoding of the database: ${messageOf(error)}` });
    return await attempt(true);
  }
}
