import { createHash } from "node:crypto";
import { type FileHandle, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { renderTarHeader, TAR_BLOCK, TAR_END, tarPaddingOf } from "./tar-entry.ts";

/** A volume that is complete in the spool. */
export interface SealedVolume {
  readonly name: string;
  readonly path: string;
  readonly size: number;
  readonly sha256: string;
}

export interface SpoolVolumeOptions {
  readonly folder: string;
  readonly name: string;
  readonly modifiedAt: Date;
}

const ZEROS = Buffer.alloc(TAR_BLOCK);

/** Creates an empty volume in the spool. Fails with the system's error. */
export async function openSpoolVolume(options: SpoolVolumeOptions): Promise<SpoolVolume> {
  const path = join(options.folder, options.name);
  return new SpoolVolume(options, path, await open(path, "wx", 0o600));
}

/** One tar file of the spool while it grows. Entries may be appended concurrently. */
export class SpoolVolume {
  readonly name: string;
  readonly path: string;
  readonly #modifiedAt: Date;
  readonly #file: FileHandle;
  readonly #hash = createHash("sha256");
  readonly #pending = new Set<Promise<void>>();
  #size = 0;

  constructor(options: SpoolVolumeOptions, path: string, file: FileHandle) {
    this.name = options.name;
    this.path = path;
    this.#modifiedAt = options.modifiedAt;
    this.#file = file;
  }

  /** Bytes so far, without the end mark. */
  get size(): number {
    return this.#size;
  }

  /**
   * Places an entry behind the others at once and writes it in the background.
   * `bytes` must not change before `written` settles; it rejects with the system's error.
   */
  append(name: string, bytes: Uint8Array): { readonly offset: number; readonly written: Promise<void> } {
    const position = this.#size;
    const parts = [renderTarHeader(name, bytes.length, this.#modifiedAt), bytes];
    const padding = tarPaddingOf(bytes.length);
    if (padding > 0) parts.push(ZEROS.subarray(0, padding));
    for (const part of parts) this.#hash.update(part);
    this.#size += TAR_BLOCK + bytes.length + padding;
    const written = writeFully(this.#file, parts, position);
    this.#pending.add(written);
    // The caller awaits `written` too: this branch only keeps the set small and must not report it a second time.
    written.then(
      () => this.#pending.delete(written),
      () => {},
    );
    return { offset: position + TAR_BLOCK, written };
  }

  /** Waits for all entries, ends the tar file and closes it. Fails when any entry could not be written. */
  async seal(): Promise<SealedVolume> {
    await Promise.all(this.#pending);
    await writeFully(this.#file, [TAR_END], this.#size);
    await this.#file.close();
    this.#hash.update(TAR_END);
    return { name: this.name, path: this.path, size: this.#size + TAR_END.length, sha256: this.#hash.digest("hex") };
  }

  /** Closes and deletes the file, whatever its state. */
  async discard(): Promise<void> {
    await Promise.allSettled(this.#pending);
    await this.#file.close();
    await rm(this.path, { force: true });
  }
}

async function writeFully(file: FileHandle, parts: readonly Uint8Array[], position: number): Promise<void> {
  const total = parts.reduce((sum, part) => sum + part.length, 0);
  const { bytesWritten } = await file.writev(parts, position);
  // A file system that is nearly full writes a part first and says ENOSPC only to the next attempt.
  let done = bytesWritten;
  if (done === total) return;
  const rest = Buffer.concat(parts);
  while (done < total) {
    const next = await file.write(rest, done, total - done, position + done);
    done += next.bytesWritten;
  }
}
