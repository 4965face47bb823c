import { type FileHandle, open } from "node:fs/promises";
import { codeOf } from "../base/errors.ts";
import { type Destination, destinationError } from "../destinations/destination.ts";
import { localError } from "../destinations/local-errors.ts";

const READ_BYTES = 1024 * 1024;

/** A file that nobody writes to any more, read in any order, wherever it lies. */
export interface StoredBytes extends AsyncDisposable {
  /** The file as people name it. */
  readonly place: string;
  readonly size: number;
  /** Gives the bytes from `start` to `end`, both within the file; a short answer is an error. */
  read(start: number, end: number, signal: AbortSignal): AsyncIterable<Uint8Array>;
}

/** Opens a file of this machine. Fails with `not-found`. */
export async function openLocalBytes(path: string): Promise<StoredBytes> {
  let file: FileHandle;
  try {
    file = await open(path, "r");
  } catch (error) {
    throw codeOf(error) === "ENOENT" ? missing(path, error) : localError(error, `open ${path}`);
  }
  try {
    const info = await file.stat();
    // A folder can be opened and has a size, whatever its file system says; reading it is what fails.
    if (info.isDirectory()) await file.read(Buffer.alloc(1));
    return new LocalBytes(path, file, info.size);
  } catch (error) {
    await file.close();
    throw localError(error, `read ${path}`);
  }
}

class LocalBytes implements StoredBytes {
  readonly place: string;
  readonly size: number;
  readonly #file: FileHandle;

  constructor(path: string, file: FileHandle, size: number) {
    this.place = path;
    this.size = size;
    this.#file = file;
  }

  async *read(start: number, end: number, signal: AbortSignal): AsyncIterable<Uint8Array> {
    for (let position = start; position < end; ) {
      signal.throwIfAborted();
      const buffer = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, end - position));
      const { bytesRead } = await this.#file.read({ buffer, position });
      if (bytesRead === 0) throw destinationError(`cannot read ${this.place}: the file became shorter`, "failed");
      position += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#file.close();
  }
}

export interface ObjectPlace {
  readonly destination: Destination;
  readonly key: string;
  /** The object as people name it. */
  readonly place: string;
  readonly signal: AbortSignal;
}

/** Opens an object of a destination, which stays the caller's. Fails with `not-found`. */
export async function openObjectBytes({ destination, key, place, signal }: ObjectPlace): Promise<StoredBytes> {
  const info = await destination.stat(key, { signal });
  if (info === undefined) throw missing(place);
  const { size } = info;
  return {
    place,
    size,
    read: (start, end, reading) => destination.get(key, { range: { start, end }, size, signal: reading }),
    [Symbol.asyncDispose]: async () => undefined,
  };
}

function missing(place: string, cause?: unknown): Error {
  return destinationError(`cannot open ${place}: it does not exist`, "not-found", {
    hint: "Check the path; it is that of a file that rowkeep export wrote.",
    cause,
  });
}
