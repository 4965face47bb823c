import { basename } from "node:path";
import {
  assertKey,
  type Destination,
  destinationError,
  type GetOptions,
  type ObjectInfo,
} from "../destinations/destination.ts";
import { localError } from "../destinations/local-errors.ts";
import { archiveError } from "./archive-error.ts";
import { openLocalBytes, type StoredBytes } from "./stored-bytes.ts";
import { parseTarHeader, TAR_BLOCK, TAR_END, tarPaddingOf } from "./tar-entry.ts";

export interface TarOptions {
  /** Put before the names of the entries to make keys of them. */
  readonly prefix: string;
  readonly signal: AbortSignal;
}

export interface TarFileOptions extends TarOptions {
  /** The file that an export wrote. */
  readonly path: string;
}

interface Entry {
  readonly offset: number;
  readonly size: number;
  readonly modifiedAt: Date;
}

const MAX_ENTRIES = 1_000_000;

/**
 * Opens an exported file as a destination that can only be read. Reads all tar headers now and refuses, with kind
 * `archive`, a file that is not a plain tar of plain entries to its last byte.
 */
export async function openTarFileDestination({ path, ...options }: TarFileOptions): Promise<Destination> {
  return readTarFile(await openLocalBytes(path), options);
}

/** The same of a file that is open, wherever it lies; it is disposed with the destination, or when this fails. */
export async function readTarFile(file: StoredBytes, options: TarOptions): Promise<Destination> {
  try {
    return new TarFileDestination(file, await readEntries(file, options));
  } catch (error) {
    await file[Symbol.asyncDispose]();
    throw localError(error, `read ${file.place}`);
  }
}

class TarFileDestination implements Destination {
  readonly name: string;
  readonly #file: StoredBytes;
  readonly #entries: ReadonlyMap<string, Entry>;

  constructor(file: StoredBytes, entries: ReadonlyMap<string, Entry>) {
    this.name = basename(file.place);
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
    signal.throwIfAborted();
    if (start < end) yield* this.#file.read(entry.offset + start, entry.offset + end, signal);
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
    await this.#file[Symbol.asyncDispose]();
  }

  #find(key: string): Entry | undefined {
    assertKey(key);
    return this.#entries.get(key);
  }

  #readOnly(verb: string, key: string): Error {
    return destinationError(`cannot ${verb} ${this.name}/${key}: an exported file is only read`, "unsupported");
  }
}

async function readEntries(file: StoredBytes, { prefix, signal }: TarOptions): Promise<Map<string, Entry>> {
  const { place: path, size: total } = file;
  const refuse = (problem: string, cause?: unknown) =>
    archiveError(`cannot read ${path}: ${problem}`, "bad-entry", {
      hint: "Use a file that rowkeep export wrote.",
      cause,
    });
  const cutShort = () =>
    archiveError(`cannot read ${path}: it is cut short, or no file that rowkeep export wrote`, "truncated", {
      hint: "Copy it again from where it came, and compare the sizes.",
    });
  const entries = new Map<string, Entry>();
  for (let position = 0; ; ) {
    signal.throwIfAborted();
    if (position + TAR_BLOCK > total) throw cutShort();
    const block = Buffer.concat(await Array.fromAsync(file.read(position, position + TAR_BLOCK, signal)));
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
