import type { OutputStream } from "./output.ts";

/**
 * Writes data to stdout as it is, at the pace at which it is read. Ends early, without an error, when the reader closes it.
 * What `Output` writes is for people and has secrets hidden; data is exact.
 */
export async function writeData(
  stdout: OutputStream,
  pieces: AsyncIterable<Uint8Array>,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  let wake: (() => void) | undefined;
  let isClosed = false;
  const onClosed = () => {
    isClosed = true;
    wake?.();
  };
  const onDrained = () => wake?.();
  stdout.on("error", onClosed);
  stdout.on("close", onClosed);
  stdout.on("drain", onDrained);
  // The next piece is refused then.
  signal.addEventListener("abort", onDrained);
  try {
    for await (const piece of pieces) {
      const drained = new Promise<void>((resolve) => {
        wake = resolve;
      });
      if (!stdout.write(piece) && !isClosed) await drained;
      // A pipe that is written to at once tells only afterwards that nobody reads it any more.
      else await new Promise((resolve) => setImmediate(resolve));
      signal.throwIfAborted();
      if (isClosed) return;
    }
  } finally {
    stdout.off("error", onClosed);
    stdout.off("close", onClosed);
    stdout.off("drain", onDrained);
    signal.removeEventListener("abort", onDrained);
  }
}
