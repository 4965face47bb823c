import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { exactBytes } from "./checked-bytes.ts";
import { assertKey, destinationError } from "./destination.ts";

export interface PlacedKey {
  /** The key as the object store knows it. */
  readonly place: string;
  /** As people read it. */
  readonly object: string;
}

/** Gives `a/b/` for the prefixes `a/b`, `/a/b/`; empty for none. */
export function folderOfPrefix(prefix: string | undefined): string {
  const parts = (prefix ?? "").split("/").filter((part) => part !== "");
  return parts.length === 0 ? "" : `${parts.join("/")}/`;
}

/** Checks a key and puts it below the destination's prefix. */
export function placeKey(name: string, folder: string, key: string): PlacedKey {
  assertKey(key);
  return { place: `${folder}${key}`, object: `${name}/${key}` };
}

/**
 * Gives the names of the folders right below `start` (`a/b/`), each one once, by the pages of a listing with a delimiter. `placesOf` gives
 * the folders and the objects of a page: a server that knows no delimiter gives the objects themselves.
 */
export async function foldersBelow<Page>(
  start: string,
  pages: AsyncIterable<Page>,
  placesOf: (page: Page) => readonly (string | undefined)[],
): Promise<readonly string[]> {
  const names = new Set<string>();
  for await (const page of pages) {
    for (const place of placesOf(page)) {
      const end = place?.indexOf("/", start.length) ?? -1;
      // What lies right in `start` is in no folder below it.
      if (place && end > start.length) names.add(place.slice(start.length, end));
    }
  }
  return [...names];
}

/**
 * Sends bytes as the body of one request. The body is cut, so that the server cannot store it, when its source fails or
 * gives another number of bytes; then that failure is what this rejects with. An abort rejects with the signal's reason.
 */
export async function sendBody<T>(
  bytes: AsyncIterable<Uint8Array>,
  { size, object, signal }: { readonly size: number; readonly object: string; readonly signal: AbortSignal },
  send: (body: Readable | Buffer, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const exact = exactBytes(bytes, size, { object, verb: "write", signal });
  if (size === 0) {
    for await (const part of exact) throw new Error(`${part.length} bytes where none were expected`);
    return send(Buffer.alloc(0), signal);
  }
  const broken = new AbortController();
  let failure: { readonly error: unknown } | undefined;
  const source = watched(exact, (error) => {
    failure = { error };
    broken.abort(error);
  });
  const body = Readable.from(source, { objectMode: false, highWaterMark: 1024 * 1024 });
  // An HTTP client also destroys the body with the error of its socket, which says nothing about the source.
  body.on("error", () => undefined);
  try {
    return await send(body, AbortSignal.any([signal, broken.signal]));
  } catch (error) {
    signal.throwIfAborted();
    throw failure ? failure.error : error;
  } finally {
    body.destroy();
  }
}

/** Passes bytes on and tells of a failure of the source itself; what a reader throws into it is not one. */
async function* watched(bytes: AsyncIterable<Uint8Array>, onFailure: (error: unknown) => void) {
  const source = bytes[Symbol.asyncIterator]();
  let isEnded = false;
  try {
    while (true) {
      let next: IteratorResult<Uint8Array>;
      try {
        next = await source.next();
      } catch (error) {
        isEnded = true;
        onFailure(error);
        throw error;
      }
      isEnded = next.done === true;
      if (next.done) return;
      yield next.value;
    }
  } finally {
    if (!isEnded) await source.return?.();
  }
}

/** Bytes of an object of unknown size that are in memory: what a request carries must be known when it begins. */
export interface FilledPart {
  readonly pieces: readonly Uint8Array[];
  readonly size: number;
}

/** Gives collected bytes to a request, and tells when it has taken some. */
export async function* bytesOfPart({ pieces }: FilledPart, onMoved?: () => void): AsyncIterable<Uint8Array> {
  for (const piece of pieces) {
    onMoved?.();
    yield piece;
  }
  onMoved?.();
}

/** Hashes collected bytes. */
export function hashPart({ pieces }: FilledPart, algorithm: "md5" | "sha256"): Buffer {
  const hash = createHash(algorithm);
  for (const piece of pieces) hash.update(piece);
  return hash.digest();
}

/** Cuts one stream of bytes into parts, without collecting any. */
export class PartSource {
  readonly #bytes: AsyncIterator<Uint8Array>;
  #rest: Uint8Array = new Uint8Array();

  constructor(bytes: AsyncIterable<Uint8Array>) {
    this.#bytes = bytes[Symbol.asyncIterator]();
  }

  async *take(length: number): AsyncIterable<Uint8Array> {
    for (let wanted = length; wanted > 0; ) {
      if (this.#rest.length === 0) {
        const next = await this.#bytes.next();
        if (next.done) return;
        this.#rest = next.value;
      }
      const part = this.#rest.subarray(0, wanted);
      this.#rest = this.#rest.subarray(part.length);
      wanted -= part.length;
      yield part;
    }
  }

  /** Collects the next bytes: `length` of them, fewer only at the end of the stream. */
  async fill(length: number): Promise<FilledPart> {
    const pieces: Uint8Array[] = [];
    let size = 0;
    for await (const piece of this.take(length)) {
      pieces.push(piece);
      size += piece.length;
    }
    return { pieces, size };
  }

  /** Whether no byte is left. Waits for the next one. */
  async isAtEnd(): Promise<boolean> {
    while (this.#rest.length === 0) {
      const next = await this.#bytes.next();
      if (next.done) return true;
      this.#rest = next.value;
    }
    return false;
  }

  /** Waits for the end of the stream, which must be here: an error of the source or a byte too many rejects. */
  async end(): Promise<void> {
    const next = this.#rest.length > 0 ? { done: false } : await this.#bytes.next();
    if (!next.done) throw new Error("bytes are left where none were expected");
  }
}

/** Fails with `failed` unless the server promises exactly the bytes that were asked for. */
export function assertLength(promised: number | undefined, wanted: number | undefined, object: string): number {
  if (promised !== undefined && (wanted === undefined || promised === wanted)) return promised;
  throw destinationError(
    `cannot read ${object}: the server gives ${promised ?? "an unknown number of"} bytes instead of ${wanted ?? "all"}`,
    "failed",
    { hint: "Check whether something else changes or cuts this object." },
  );
}

export function alreadyThere(object: string, cause: unknown): Error {
  return destinationError(`cannot write ${object}: it exists already`, "exists", {
    hint: "Check whether another run writes the same snapshot.",
    cause,
  });
}
