import { OperationalError } from "../base/errors.ts";
import type { OutputStream } from "./output.ts";
import { isClosed, reasonOf, UNWRITABLE_HINT } from "./stdout.ts";

/**
 * Writes data to stdout as it is, at the pace at which it is read: a piece may be reused once the next one is asked for. Ends
 * early, without an error, when the reader closes stdout; fails with kind `usage` when it cannot be written otherwise. What
 * `Output` writes is for people and has secrets hidden; data is exact.
 */
export async function writeData(
  stdout: OutputStream,
  pieces: AsyncIterable<Uint8Array>,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  for await (const piece of pieces) {
    const written = Promise.withResolvers<unknown>();
    const onAbort = () => written.resolve(undefined);
    signal.addEventListener("abort", onAbort);
    stdout.write(piece, (error) => written.resolve(error));
    const error = await written.promise;
    signal.removeEventListener("abort", onAbort);
    signal.throwIfAborted();
    if (isClosed(error)) return;
    if (error) throw unwritable(error);
  }
}

function unwritable(cause: unknown): Error {
  const message = `cannot write the output: ${reasonOf(cause)}`;
  return new OperationalError(message, { kind: "usage", code: "unwritable", hint: UNWRITABLE_HINT, cause });
}
