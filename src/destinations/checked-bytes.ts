import { destinationError } from "./destination.ts";

/**
 * Passes bytes on and fails with `failed` unless they are exactly `size`, where that is known: before the first byte too many is
 * passed on, or instead of ending early. Stops with the signal's reason.
 */
export async function* exactBytes(
  bytes: AsyncIterable<Uint8Array>,
  size: number | undefined,
  { object, verb, signal }: { readonly object: string; readonly verb: "write" | "read"; readonly signal: AbortSignal },
): AsyncIterable<Uint8Array> {
  if (size === undefined) return yield* untilAborted(bytes, signal);
  let seen = 0;
  let last: Uint8Array | undefined;
  for await (const part of untilAborted(bytes, signal)) {
    seen += part.length;
    if (seen > size) throw wrongSize(`more than the expected ${size}`);
    // A server that has all bytes may store them: the last ones wait until the source has ended well.
    if (seen === size && part.length > 0) last = part;
    else if (part.length > 0) yield part;
  }
  if (seen < size) throw wrongSize(`${seen} instead of ${size}`);
  if (last !== undefined) yield last;

  function wrongSize(count: string) {
    const reason = verb === "write" ? `its source gave ${count} bytes` : `the answer has ${count} bytes`;
    return destinationError(`cannot ${verb} ${object}: ${reason}`, "failed", {
      hint: verb === "read" ? "Check whether something else changes or cuts this object." : undefined,
    });
  }
}

/** Counts bytes while they pass. */
export class CountedBytes implements AsyncIterable<Uint8Array> {
  readonly #bytes: AsyncIterable<Uint8Array>;
  count = 0;

  constructor(bytes: AsyncIterable<Uint8Array>) {
    this.#bytes = bytes;
  }

  async *[Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    for await (const part of this.#bytes) {
      this.count += part.length;
      yield part;
    }
  }
}

/** Checks a wanted range against the object's size; without one it is the whole object. Fails with `failed`. */
export function rangeWithin(
  range: { readonly start: number; readonly end: number } | undefined,
  size: number,
  object: string,
): { readonly start: number; readonly end: number } {
  if (range === undefined) return { start: 0, end: size };
  if (range.start >= 0 && range.start <= range.end && range.end <= size) return range;
  throw destinationError(
    `cannot read ${object}: it has ${size} bytes and bytes ${range.start} to ${range.end} were asked for`,
    "failed",
    { hint: "Check whether something else changes or cuts this object." },
  );
}

/** Passes bytes on until the signal is aborted, even when their source never says anything again. */
export async function* untilAborted(bytes: AsyncIterable<Uint8Array>, signal: AbortSignal): AsyncIterable<Uint8Array> {
  signal.throwIfAborted();
  const iterator = bytes[Symbol.asyncIterator]();
  let cut: (reason: unknown) => void = () => {};
  const onAbort = () => cut(signal.reason);
  signal.addEventListener("abort", onAbort);
  let ended = false;
  try {
    while (true) {
      const next = await new Promise<IteratorResult<Uint8Array>>((resolve, reject) => {
        cut = reject;
        iterator.next().then(resolve, reject);
      });
      signal.throwIfAborted();
      if (next.done) {
        ended = true;
        return;
      }
      yield next.value;
    }
  } finally {
    signal.removeEventListener("abort", onAbort);
    // A source that is stuck would keep us waiting here: it is told to stop, not waited for.
    const stopped = ended ? undefined : iterator.return?.().then(undefined, () => undefined);
    if (!signal.aborted) await stopped;
  }
}
