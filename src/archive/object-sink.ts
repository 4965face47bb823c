import { orAborted } from "../base/or-aborted.ts";
import { type Destination, destinationError } from "../destinations/destination.ts";
import { type FileSink, fileIsThere } from "./file-sink.ts";
import { type ObjectPlace, openObjectBytes, type StoredBytes } from "./stored-bytes.ts";

const CLEAN_UP_MS = 30_000;

/**
 * Opens an object of a destination for bytes whose number nobody knows. They are sent as they come and none is kept, so what fails is not
 * tried again. Disposal ends the transfer; the destination goes with it. Fails with kind `refused`, `exists`, when the object is
 * there already.
 */
export async function openObjectSink(to: ObjectPlace): Promise<FileSink> {
  const { destination, key, place, signal } = to;
  try {
    if (await destination.stat(key, { signal })) throw fileIsThere(place);
    return new ObjectSink(to);
  } catch (error) {
    await destination[Symbol.asyncDispose]();
    throw error;
  }
}

class ObjectSink implements FileSink {
  readonly place: string;
  readonly #destination: Destination;
  readonly #key: string;
  readonly #stop = new AbortController();
  readonly #bytes = new Handover();
  readonly #stored: Promise<void>;
  #size = 0;

  constructor({ destination, key, place, signal }: ObjectPlace) {
    this.place = place;
    this.#destination = destination;
    this.#key = key;
    const both = AbortSignal.any([signal, this.#stop.signal]);
    this.#stored = destination.put(key, () => this.#bytes.take(), { exclusive: true, signal: both });
    this.#stored.then(
      () => this.#bytes.close(new Error("the object was stored before its end")),
      (error: unknown) => this.#bytes.close(error),
    );
  }

  async append(bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    this.#size += bytes.length;
    if (bytes.length > 0) await orAborted(this.#bytes.give(bytes), signal);
  }

  async finish(signal: AbortSignal): Promise<StoredBytes> {
    this.#bytes.end();
    await this.#stored;
    const { place } = this;
    try {
      const stored = await openObjectBytes({ destination: this.#destination, key: this.#key, place, signal });
      if (stored.size === this.#size) return stored;
      throw destinationError(`cannot write ${place}: the server has ${stored.size} of ${this.#size} bytes`, "failed", {
        hint: "Check whether something else changes or cuts this object.",
      });
    } catch (error) {
      await this.remove().catch(() => undefined);
      throw error;
    }
  }

  remove(): Promise<void> {
    // The signal of the export may be aborted by now.
    return this.#destination.remove(this.#key, { signal: AbortSignal.timeout(CLEAN_UP_MS) });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#stored.catch(() => undefined);
    await this.#destination[Symbol.asyncDispose]();
  }
}

/** Hands pieces from one who writes them to one who reads them, one at a time. */
class Handover {
  #given = Promise.withResolvers<Uint8Array | undefined>();
  #taken = Promise.withResolvers<void>();
  #failure: { readonly error: unknown } | undefined;

  /** Resolves once the reader asks for the next piece. */
  async give(piece: Uint8Array): Promise<void> {
    if (this.#failure) throw this.#failure.error;
    const taken = this.#taken.promise;
    this.#given.resolve(piece);
    await taken;
  }

  end(): void {
    this.#given.resolve(undefined);
  }

  /** The reader is gone: whoever writes is told why. */
  close(error: unknown): void {
    this.#failure = { error };
    // Perhaps nobody waits.
    this.#taken.promise.catch(() => undefined);
    this.#taken.reject(error);
    this.#given.resolve(undefined);
  }

  async *take(): AsyncIterable<Uint8Array> {
    while (true) {
      const piece = await this.#given.promise;
      if (piece === undefined) return;
      yield piece;
      const taken = this.#taken;
      this.#given = Promise.withResolvers();
      this.#taken = Promise.withResolvers();
      if (this.#failure) return;
      taken.resolve();
    }
  }
}
