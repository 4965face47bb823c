import type { OutputStream } from "./output.ts";

/**
 * Writes data to stdout as it is, at the pace at which it is read: a piece may be reused once the next one is asked for. Ends
 * early, without an error, when the reader closes stdout. What `Output` writes is for people and has secrets hidden; data is
 * exact.
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
    // An error that is no closed pipe was told by main.ts, which ends with its exit code.
    const error = await written.promise;
    signal.removeEventListener("abort", onAbort);
    signal.throwIfAborted();
    if (error) return;
  }
}
