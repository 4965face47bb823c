import { type FileHandle, open } from "node:fs/promises";
import { basename } from "node:path";
import { codeOf } from "../base/errors.ts";
import {
  assertKey,
  type Destination,
  destinationError,
  type GetOptions,
  type ObjectInfo,
} from "../destinations/destination.ts";
import { localError } from "../destinations/local-errors.ts";
import { archiveError } from "./archive-error.ts";
import { parseTarHeader, TAR_BLOCK, TAR_END, tarPaddingOf } from "./tar-entry.ts";

export interface TarFileOptions {
  /** The file that an export wrote. */
  readonly path: string;
  /** Put before the names of the entries to make keys of them. */
  readonly prefix: string;
  readonly signal: AbortSignal;
}

interface Entry {
  readonly offset: number;
  readonly size: number;
  readonly modifiedAt: Date;
}

const MAX_ENTRIES = 1_000_000;
const READ_BYTES = 1024 * 1024;

/**
 * Opens an exported file as a destination that can only be read. Reads all tar headers now and refuses, with kind
 * `archive`, a file that is not a plain tar of plain entries to its last byte.
 */
export async function openTarFileDestination(options: TarFileOptions): Promise<Destination> {
  let file: FileHandle;
  try {
    file = await open(options.path, "r");
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw localError(error, `open ${options.path}`);
    throw destinationError(`cannot open ${options.path}: it does not exist`, "not-found", {
      hint: "Check the path; it is that of a file that rowkeep export wrote.",
      cause: error,
    });
  }
  try {
    return new TarFileDestination(options, file, await readEntries(file, options));
  } catch (error) {
    await file.close();
    throw localError(error, `read ${options.path}`);
  }
}

class TarFileDestination implements Destination {
  readonly name: string;
  readonly #file: FileHandle;
  readonly #entries: ReadonlyMap<string, Entry>;

  constructor({ path }: TarFileOptions, file: FileHandle, entries: ReadonlyMap<string, Entry>) {
    this.name = basename(path);
    this.#file = file;
    this.#entries = entries;
  }

  async *get(key: string, { range, signal }: GetOptions): AsyncIterable<Uint8Array> {
    const entry = this.#find(key);
    if (entry === undefined) throw destinationError(`cannot read ${this.name}/${key}: it is missing`, "not-found");
    const { start, end } = range ?? { start: 0, end: entry.size };
    if (start < 0 || end < start || end > entry.size) {
      throw destinationError(`cannot read ${this.name}/${key}: it has only ${entry.size} bytes`, "failed");
    }
    for (let at = start; at < end; ) {
      signal.throwIfAborted();
      const buffer = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, end - at));
      const { bytesRead } = await this.#file.read({ buffer, position: entry.offset + at });
      if (bytesRead === 0) throw destinationError(`cannot read ${this.name}/${key}: the file became shorter`, "failed");
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }

  async stat(key: string, { signal }: { readonly signal: AbortSignal }): Promise<ObjectInfo | undefined> {
    signal.throwIfAborted();
    const entry = this.#find(key);
    return entry && { key, size: entry.size, modifiedAt: entry.modifiedAt };
  }

  async *list(prefix: string, { signal }: { readonly signal: AbortSignal }): AsyncIterable<ObjectInfo> {
    for (const [key, { size, modifiedAt }] of this.#entries) {
      signal.throwIfAborted();
      if (key.startsWith(prefix)) yield { key, size, modifiedAt };
    }
  }

  put(key: string): Promise<void> {
    return Promise.reject(this.#readOnly("write", key));
  }

  remove(key: string): Promise<void> {
    return Promise.reject(this.#readOnly("remove", key));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }

  #find(key: string): Entry | undefined {
    assertKey(key);
    return this.#entries.get(key);
  }

  #readOnly(verb: string, key: string): Error {
    return destinationError(`cannot ${verb} ${this.name}/${key}: an exported file is only read`, "unsupported");
  }
}

async function readEntries(file: FileHandle, { path, prefix, signal }: TarFileOptions): Promise<Map<string, Entry>> {
  const refuse = (problem: string, cause?: unknown) =>
    archiveError(`cannot read ${path}: ${problem}`, "bad-entry", {
      hint: "Use a file that rowkeep export wrote.",
      cause,
    });
  const cutShort = () =>
    archiveError(`cannot read ${path}: it is cut short, or no file that rowkeep export wrote`, "truncated", {
      hint: "Copy it again from where it came, and compare the sizes.",
    });
  const { size: total } = await file.stat();
  const entries = new Map<string, Entry>();
  const block = Buffer.alloc(TAR_BLOCK);
  for (let position = 0; ; ) {
    signal.throwIfAborted();
    const { bytesRead } = await file.read({ buffer: block, position });
    if (bytesRead < TAR_BLOCK) throw cutShort();
    const entry = headerIn(block, (cause) => refuse("it is no file that rowkeep export wrote, or damaged", cause));
    if (entry === undefined) {
      if (total !== position + TAR_END.length) throw refuse("it does not end where its entries end");
      return entries;
    }
    const offset = position + TAR_BLOCK;
    position = offset + entry.size + tarPaddingOf(entry.size);
    const key = `${prefix}/${entry.name}`;
    if (position > total) throw cutShort();
    if (entries.has(key) || entries.size === MAX_ENTRIES) throw refuse("an entry stands twice in it, or too many do");
    entries.set(key, { offset, size: entry.size, modifiedAt: entry.modifiedAt });
  }
}

function headerIn(block: Buffer, refuse: (cause: unknown) => Error): ReturnType<typeof parseTarHeader> {
  try {
    return parseTarHeader(block);
  } catch (error) {
    throw refuse(error);
  }
}
