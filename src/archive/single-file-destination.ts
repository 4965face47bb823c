import { basename } from "node:path";
import { exactBytes } from "../destinations/checked-bytes.ts";
import {
  assertKey,
  type Destination,
  destinationError,
  type GetOptions,
  type ObjectInfo,
  type OpenBytes,
  type PutOptions,
} from "../destinations/destination.ts";
import { localError } from "../destinations/local-errors.ts";
import type { FileSink } from "./file-sink.ts";
import { renderTarHeader, TAR_END, tarPaddingOf } from "./tar-entry.ts";
import { readTarFile } from "./tar-file-destination.ts";

export interface SingleFileOptions {
  /** The file to write; it appears when its last object is stored. It is disposed with the destination. */
  readonly sink: FileSink;
  /** Keys begin with this and a slash; it is not kept in the file. */
  readonly prefix: string;
  /** Name of the object that completes the file. */
  readonly lastName: string;
  readonly modifiedAt: Date;
}

/**
 * Makes a destination that makes one tar file of the objects that are put into it, in their order and uncompressed. Storing
 * `<anything>/<lastName>` completes it. Before that nothing can be read back, and disposal deletes what there is. Of a file that cannot be
 * read back the last object is given as it was put.
 */
export class SingleFileDestination implements Destination {
  readonly name: string;
  readonly #options: SingleFileOptions;
  readonly #sizes = new Map<string, number>();
  #failed: unknown;
  #isComplete = false;
  #complete: Destination | undefined;
  #last: { readonly key: string; readonly bytes: Buffer } | undefined;
  #tail: Promise<unknown> = Promise.resolve();

  constructor(options: SingleFileOptions) {
    this.name = basename(options.sink.place);
    this.#options = options;
  }

  put(key: string, open: OpenBytes, options: PutOptions): Promise<void> {
    const stored = this.#tail.then(() => this.#put(key, open, options));
    this.#tail = stored.catch(() => {});
    return stored;
  }

  async #put(key: string, open: OpenBytes, { size, signal }: PutOptions): Promise<void> {
    const object = `${this.name}/${key}`;
    const action = `write ${this.#options.sink.place}`;
    const name = this.#entryName(key);
    signal.throwIfAborted();
    if (this.#isComplete) throw destinationError(`cannot write ${object}: the file is complete`, "unsupported");
    // The size stands before the bytes in a tar file.
    if (size === undefined) throw destinationError(`cannot write ${object}: its size is not known`, "unsupported");
    if (this.#failed !== undefined) throw localError(this.#failed, action);
    try {
      const isLast = name.endsWith(`/${this.#options.lastName}`);
      const bytes = exactBytes(open(), size, { object, verb: "write", signal });
      const kept = isLast ? Buffer.concat(await Array.fromAsync(bytes), size) : undefined; // a manifest, in memory anyway
      await this.#append(name, kept ? [kept] : bytes, { size, signal });
      this.#sizes.set(key, size);
      if (kept) await this.#finish({ key, bytes: kept }, signal);
    } catch (error) {
      // A part of an entry cannot be taken back: nothing more can be put behind it.
      this.#failed ??= error;
      throw localError(error, action);
    }
  }

  /** Not by archiver: its `abort` while an entry is open is an uncaught TypeError, which would end the process. */
  async #append(
    name: string,
    bytes: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    { size, signal }: { readonly size: number; readonly signal: AbortSignal },
  ): Promise<void> {
    const { sink, modifiedAt } = this.#options;
    await sink.append(renderTarHeader(name, size, modifiedAt), signal);
    for await (const part of bytes) await sink.append(part, signal);
    await sink.append(TAR_END.subarray(0, tarPaddingOf(size)), signal);
  }

  async #finish(last: { readonly key: string; readonly bytes: Buffer }, signal: AbortSignal): Promise<void> {
    const { sink, prefix } = this.#options;
    await sink.append(TAR_END, signal);
    const stored = await sink.finish(signal);
    this.#isComplete = true;
    if (!stored) {
      this.#last = last;
      return;
    }
    try {
      this.#complete = await readTarFile(stored, { prefix, signal });
    } catch (error) {
      await sink.remove();
      throw error;
    }
  }

  get(key: string, options: GetOptions): AsyncIterable<Uint8Array> {
    if (this.#complete) return this.#complete.get(key, options);
    if (this.#last?.key === key) return rangeOf(this.#last.bytes, options.range);
    throw destinationError(`cannot read ${this.name}/${key}: the file is not complete yet`, "not-found");
  }

  async stat(key: string, options: { readonly signal: AbortSignal }): Promise<ObjectInfo | undefined> {
    if (this.#complete) return this.#complete.stat(key, options);
    options.signal.throwIfAborted();
    const size = this.#sizes.get(key);
    return size === undefined ? undefined : { key, size, modifiedAt: this.#options.modifiedAt };
  }

  async *list(prefix: string, options: { readonly signal: AbortSignal }): AsyncIterable<ObjectInfo> {
    if (this.#complete) yield* this.#complete.list(prefix, options);
  }

  /** Objects are not removed one by one: without its last one there is no file at all. */
  async remove(key: string, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    signal.throwIfAborted();
    if (!this.#isComplete || !this.#entryName(key).endsWith(`/${this.#options.lastName}`)) return;
    await this.#complete?.[Symbol.asyncDispose]();
    this.#complete = undefined;
    await this.#options.sink.remove();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#complete?.[Symbol.asyncDispose]();
    // First: what is stuck in it ends with it.
    await this.#options.sink[Symbol.asyncDispose]();
    await this.#tail;
  }

  #entryName(key: string): string {
    assertKey(key);
    const { prefix } = this.#options;
    if (!key.startsWith(`${prefix}/`))
      throw destinationError(`cannot use the key ${key}: it is not of this file`, "invalid-key");
    return key.slice(prefix.length + 1);
  }
}

async function* rangeOf(bytes: Buffer, range: GetOptions["range"]): AsyncIterable<Uint8Array> {
  yield range ? bytes.subarray(range.start, range.end) : bytes;
}
