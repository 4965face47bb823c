import { randomBytes } from "node:crypto";
import { type FileHandle, lstat, open, rm } from "node:fs/promises";
import { basename } from "node:path";
import { OperationalError } from "../base/errors.ts";
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
import { publishFile } from "../destinations/local-files.ts";
import { renderTarHeader, TAR_END, tarPaddingOf } from "./tar-entry.ts";
import { openTarFileDestination } from "./tar-file-destination.ts";

export interface SingleFileOptions {
  /** The file to write; it must not exist. It appears when its last object is stored. */
  readonly path: string;
  /** Keys begin with this and a slash; it is not kept in the file. */
  readonly prefix: string;
  /** Name of the object that completes the file. */
  readonly lastName: string;
  readonly modifiedAt: Date;
  readonly signal: AbortSignal;
}

/**
 * Opens a destination that makes one tar file of the objects that are put into it, in their order and uncompressed.
 * It is written as `<path>.<random>.in-progress`; storing `<anything>/<lastName>` completes it. Before that nothing can
 * be read back, and disposal deletes what there is. Fails with kind `refused`, `exists`, when the file is there already.
 */
export async function openSingleFileDestination(options: SingleFileOptions): Promise<Destination> {
  options.signal.throwIfAborted();
  const unfinished = `${options.path}.${randomBytes(6).toString("hex")}.in-progress`;
  try {
    await assertMissing(options.path);
    return new SingleFileDestination(options, unfinished, await open(unfinished, "wx", 0o600));
  } catch (error) {
    throw localError(error, `write ${options.path}`);
  }
}

class SingleFileDestination implements Destination {
  readonly name: string;
  readonly #options: SingleFileOptions;
  readonly #unfinished: string;
  readonly #file: FileHandle;
  readonly #sizes = new Map<string, number>();
  #failed: unknown;
  #complete: Destination | undefined;
  #tail: Promise<unknown> = Promise.resolve();

  constructor(options: SingleFileOptions, unfinished: string, file: FileHandle) {
    this.name = basename(options.path);
    this.#options = options;
    this.#unfinished = unfinished;
    this.#file = file;
  }

  put(key: string, open: OpenBytes, options: PutOptions): Promise<void> {
    const stored = this.#tail.then(() => this.#put(key, open, options));
    this.#tail = stored.catch(() => {});
    return stored;
  }

  async #put(key: string, open: OpenBytes, { size, signal }: PutOptions): Promise<void> {
    const object = `${this.name}/${key}`;
    const name = this.#entryName(key);
    signal.throwIfAborted();
    if (this.#complete) throw destinationError(`cannot write ${object}: the file is complete`, "unsupported");
    // The size stands before the bytes in a tar file.
    if (size === undefined) throw destinationError(`cannot write ${object}: its size is not known`, "unsupported");
    if (this.#failed !== undefined) throw localError(this.#failed, `write ${this.#options.path}`);
    try {
      await this.#append(name, exactBytes(open(), size, { object, verb: "write", signal }), size);
      this.#sizes.set(key, size);
      if (name.endsWith(`/${this.#options.lastName}`)) await this.#finish(signal);
    } catch (error) {
      // A part of an entry cannot be taken back: nothing more can be put behind it.
      this.#failed ??= error;
      throw localError(error, `write ${this.#options.path}`);
    }
  }

  /** Not by archiver: its `abort` while an entry is open is an uncaught TypeError, which would end the process. */
  async #append(name: string, bytes: AsyncIterable<Uint8Array>, size: number): Promise<void> {
    await this.#file.appendFile(renderTarHeader(name, size, this.#options.modifiedAt));
    for await (const part of bytes) await this.#file.appendFile(part);
    await this.#file.appendFile(TAR_END.subarray(0, tarPaddingOf(size)));
  }

  async #finish(signal: AbortSignal): Promise<void> {
    await this.#file.appendFile(TAR_END);
    await this.#file.sync();
    await this.#file.close();
    await publishFile(this.#unfinished, this.#options.path, true, signal);
    const { path, prefix } = this.#options;
    this.#complete = await openTarFileDestination({ path, prefix, signal });
  }

  get(key: string, options: GetOptions): AsyncIterable<Uint8Array> {
    if (this.#complete) return this.#complete.get(key, options);
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
    if (!this.#complete || !this.#entryName(key).endsWith(`/${this.#options.lastName}`)) return;
    await this.#complete[Symbol.asyncDispose]();
    this.#complete = undefined;
    await rm(this.#options.path, { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#complete?.[Symbol.asyncDispose]();
    if (this.#complete) return;
    await this.#tail;
    await this.#file.close().catch(() => {});
    await rm(this.#unfinished, { force: true });
  }

  #entryName(key: string): string {
    assertKey(key);
    const { prefix } = this.#options;
    if (!key.startsWith(`${prefix}/`))
      throw destinationError(`cannot use the key ${key}: it is not of this file`, "invalid-key");
    return key.slice(prefix.length + 1);
  }
}

async function assertMissing(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (!found) return;
  throw new OperationalError(`cannot write ${path}: it exists already`, {
    kind: "refused",
    code: "exists",
    hint: "Choose another name, or remove that file.",
  });
}
