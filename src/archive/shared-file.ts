import { type FileHandle, open } from "node:fs/promises";

const BLOCK_BYTES = 1024 * 1024;
/** What was read last is kept for readers a few megabytes behind the first one. */
const KEPT_BLOCKS = 8;

/**
 * A file that nobody writes to any more, for several readers at about the same time: each block is read from the disk once and given
 * to all of them. Nobody may change what is given. Reading fails with the system's error.
 */
export class SharedFile implements AsyncDisposable {
  readonly #path: string;
  readonly #blocks = new Map<number, Promise<Uint8Array>>();
  /** Every block that was read, until the garbage collector takes it: its memory is lost till then anyway. */
  readonly #passed = new Map<number, WeakRef<Uint8Array>>();
  #file: Promise<FileHandle> | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /** The whole file from its start; opened when the first bytes are pulled. */
  async *read(): AsyncIterable<Uint8Array> {
    for (let place = 0; ; place += 1) {
      const block = await this.#block(place);
      if (block.length > 0) yield block;
      if (block.length < BLOCK_BYTES) return;
    }
  }

  #block(place: number): Promise<Uint8Array> | Uint8Array {
    const known = this.#blocks.get(place) ?? this.#passed.get(place)?.deref();
    if (known) return known;
    const reading = this.#readBlock(place);
    this.#blocks.set(place, reading);
    const [oldest = place] = this.#blocks.keys();
    if (this.#blocks.size > KEPT_BLOCKS) this.#blocks.delete(oldest);
    // Who reads again after a failure tries again.
    reading.catch(() => this.#blocks.delete(place));
    return reading;
  }

  async #readBlock(place: number): Promise<Uint8Array> {
    const file = await this.#open();
    const buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES);
    let length = 0;
    while (length < BLOCK_BYTES) {
      const { bytesRead } = await file.read(buffer, length, BLOCK_BYTES - length, place * BLOCK_BYTES + length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    const block = buffer.subarray(0, length);
    this.#passed.set(place, new WeakRef(block));
    return block;
  }

  #open(): Promise<FileHandle> {
    this.#file ??= open(this.#path, "r").catch((error: unknown) => {
      // Who reads later tries again: too many files may have been open.
      this.#file = undefined;
      throw error;
    });
    return this.#file;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#blocks.clear();
    this.#passed.clear();
    // One that could not be opened was told to its readers.
    const file = await this.#file?.catch(() => undefined);
    await file?.close();
  }
}
