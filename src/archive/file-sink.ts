import { randomBytes } from "node:crypto";
import { type FileHandle, lstat, open, rm } from "node:fs/promises";
import { OperationalError } from "../base/errors.ts";
import { localError } from "../destinations/local-errors.ts";
import { publishFile } from "../destinations/local-files.ts";
import { openLocalBytes, type StoredBytes } from "./stored-bytes.ts";

/** Where the bytes of one file go, one after another. Disposal before `finish` has succeeded leaves nothing of them, where that can be. */
export interface FileSink extends AsyncDisposable {
  /** The file as people name it. */
  readonly place: string;
  /** The caller leaves the bytes as they are. Fails with kind `destination`. */
  append(bytes: Uint8Array, signal: AbortSignal): Promise<void>;
  /** Makes the file visible, whole. Gives what reads it, which the caller disposes; undefined where it cannot be read back. */
  finish(signal: AbortSignal): Promise<StoredBytes | undefined>;
  /** Removes the finished file. */
  remove(): Promise<void>;
}

/** Opens a file of this machine, written as `<path>.<random>.in-progress`. Fails with kind `refused`, `exists`, when it is there already. */
export async function openLocalFileSink(path: string): Promise<FileSink> {
  const unfinished = `${path}.${randomBytes(6).toString("hex")}.in-progress`;
  try {
    await assertMissing(path);
    return new LocalFileSink(path, unfinished, await open(unfinished, "wx", 0o600));
  } catch (error) {
    throw localError(error, `write ${path}`);
  }
}

class LocalFileSink implements FileSink {
  readonly place: string;
  readonly #unfinished: string;
  readonly #file: FileHandle;

  constructor(path: string, unfinished: string, file: FileHandle) {
    this.place = path;
    this.#unfinished = unfinished;
    this.#file = file;
  }

  append(bytes: Uint8Array): Promise<void> {
    return this.#file.appendFile(bytes);
  }

  async finish(signal: AbortSignal): Promise<StoredBytes> {
    await this.#file.sync();
    await this.#file.close();
    await publishFile(this.#unfinished, this.place, true, signal);
    return openLocalBytes(this.place);
  }

  remove(): Promise<void> {
    return rm(this.place, { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close().catch(() => {});
    await rm(this.#unfinished, { force: true });
  }
}

async function assertMissing(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found) throw fileIsThere(path);
}

/** No file is ever replaced by one that is to stand for itself. */
export function fileIsThere(place: string): Error {
  return new OperationalError(`cannot write ${place}: it exists already`, {
    kind: "refused",
    code: "exists",
    hint: "Choose another name, or remove that file.",
  });
}
