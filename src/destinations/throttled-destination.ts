import type { Destination, GetOptions, ObjectInfo, OpenBytes, PutOptions } from "./destination.ts";
import { type RetryClock, SYSTEM_CLOCK } from "./retry-attempts.ts";

interface Waiting {
  readonly signal: AbortSignal;
}

type Clock = Pick<RetryClock, "now" | "wait">;

/**
 * Moves at most so many bytes per second, all its transfers of both directions together. A file that a put links instead
 * of copying moves none.
 */
export class ThrottledDestination implements Destination {
  readonly name: string;
  readonly removeUnfinished?: NonNullable<Destination["removeUnfinished"]>;
  readonly listFolders?: NonNullable<Destination["listFolders"]>;
  readonly thaw?: NonNullable<Destination["thaw"]>;
  readonly #inner: Destination;
  readonly #bandwidth: Bandwidth;

  constructor(inner: Destination, bytesPerSecond: number, clock: Clock = SYSTEM_CLOCK) {
    this.name = inner.name;
    this.#inner = inner;
    this.#bandwidth = new Bandwidth(bytesPerSecond, clock);
    if (inner.removeUnfinished) this.removeUnfinished = inner.removeUnfinished.bind(inner);
    if (inner.listFolders) this.listFolders = inner.listFolders.bind(inner);
    if (inner.thaw) this.thaw = inner.thaw.bind(inner);
  }

  put(key: string, open: OpenBytes, options: PutOptions): Promise<void> {
    return this.#inner.put(key, () => this.#bandwidth.slow(open(), options), options);
  }

  get(key: string, options: GetOptions): AsyncIterable<Uint8Array> {
    return this.#bandwidth.slow(this.#inner.get(key, options), options);
  }

  stat(key: string, options: Waiting): Promise<ObjectInfo | undefined> {
    return this.#inner.stat(key, options);
  }

  list(prefix: string, options: Waiting): AsyncIterable<ObjectInfo> {
    return this.#inner.list(prefix, options);
  }

  remove(key: string, options: Waiting): Promise<void> {
    return this.#inner.remove(key, options);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve(this.#inner[Symbol.asyncDispose]());
  }
}

const MOST_SLICE_BYTES = 1024 * 1024;
const LEAST_SLICE_BYTES = 1024;
const SLICES_PER_SECOND = 4;

/** How much passes at once: protocols that wait for each piece want large ones, a smooth line wants several per second. */
export function sliceBytesOf(bytesPerSecond: number): number {
  return Math.max(LEAST_SLICE_BYTES, Math.min(MOST_SLICE_BYTES, Math.floor(bytesPerSecond / SLICES_PER_SECOND)));
}

/** Timers are late: what was missed by no more than this is made up for. */
const CREDIT_MS = 100;
/** A shorter wait is put off until it is worth a timer. */
const LEAST_WAIT_MS = 4;

/** Hands out the time of a line to its users, in the order in which they ask. */
class Bandwidth {
  readonly #bytesPerSecond: number;
  readonly #clock: Clock;
  /** When everything that was handed out will have gone through. */
  #freeAt: number | undefined;

  constructor(bytesPerSecond: number, clock: Clock) {
    if (!(bytesPerSecond > 0)) throw new RangeError(`not a bandwidth: ${bytesPerSecond}`);
    this.#bytesPerSecond = bytesPerSecond;
    this.#clock = clock;
  }

  /** Passes bytes on as fast as the line allows. */
  async *slow(bytes: AsyncIterable<Uint8Array>, { signal }: Waiting): AsyncIterable<Uint8Array> {
    const sliceBytes = sliceBytesOf(this.#bytesPerSecond);
    for await (const part of bytes) {
      for (const slice of slicesOf(part, sliceBytes)) {
        await this.#take(slice.length, signal);
        yield slice;
      }
    }
  }

  /** Waits until these bytes, and all that were handed out before, would have gone through. */
  async #take(bytes: number, signal: AbortSignal): Promise<void> {
    const now = this.#clock.now();
    const start = Math.max(this.#freeAt ?? now, now - CREDIT_MS);
    const end = start + (bytes * 1000) / this.#bytesPerSecond;
    this.#freeAt = end;
    if (end - now >= LEAST_WAIT_MS) await this.#clock.wait(end - now, { signal });
  }
}

/** Cuts bytes into slices of at most `sliceBytes`, without copying them. */
export function* slicesOf(part: Uint8Array, sliceBytes: number): Generator<Uint8Array, void> {
  if (part.length <= sliceBytes) yield part;
  else {
    for (let start = 0; start < part.length; start += sliceBytes) yield part.subarray(start, start + sliceBytes);
  }
}
