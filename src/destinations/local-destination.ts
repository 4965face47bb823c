import { randomBytes } from "node:crypto";
import { type FileHandle, lstat, opendir, readdir, statfs, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { codeOf } from "../base/errors.ts";
import { freeBytes } from "../base/free-bytes.ts";
import { makeFolders } from "../base/make-folders.ts";
import { mapAhead } from "../base/map-ahead.ts";
import { exactBytes, rangeWithin } from "./checked-bytes.ts";
import {
  assertKey,
  type Destination,
  destinationError,
  type GetOptions,
  type GetSmallOptions,
  type ObjectInfo,
  type OpenBytes,
  type OpenDestinationOptions,
  type PutOptions,
  type RemoveUnfinishedOptions,
} from "./destination.ts";
import type { LocalSettings } from "./destination-settings.ts";
import { noFolder } from "./folder-keys.ts";
import { FolderThread } from "./folder-thread.ts";
import { localError, localFolderError, localOpenError } from "./local-errors.ts";
import {
  appendFully,
  assertFolders,
  createFile,
  createFolders,
  openFile,
  openFileToSync,
  publishFile,
  removeEmptyFolders,
  removeFile,
  tryLink,
} from "./local-files.ts";
import { type FoundFile, UNFINISHED_SUFFIX, walkFiles } from "./local-walk.ts";

const SUFFIX = UNFINISHED_SUFFIX;
const WRITE_BYTES = 4 * 1024 * 1024;
const READ_BYTES = 1024 * 1024;
const TIDY_MS = 5000;
const LOOK_HOLDS_MS = 1000;
/** Files that are looked at ahead while listing. */
const LOOKS_AHEAD = 16;

/**
 * Opens a folder as a destination and creates it (0700) when it is missing, unless the destination is to be left as it is. The folder itself may be a symbolic link.
 */
export async function openLocalDestination(
  settings: LocalSettings,
  { asItIs, signal }: OpenDestinationOptions,
): Promise<LocalDestination> {
  signal.throwIfAborted();
  const name = settings.name ?? settings.path;
  try {
    if (!asItIs) await makeFolders(settings.path);
    // A dangling link or a file in its place shows itself here, not in the middle of a run.
    const folder = await opendir(settings.path);
    await folder.close();
  } catch (error) {
    if (asItIs && codeOf(error) === "ENOENT") throw noFolder(name);
    throw localOpenError(error, `open ${name}`);
  }
  return new LocalDestination(name, settings.path);
}

/**
 * A folder of a local disk or a mounted network drive. Files are written as `<name>.<random>.in-progress` beside their
 * final place, synced and renamed.
 */
export class LocalDestination implements Destination {
  readonly name: string;
  readonly #root: string;
  readonly #thread = new FolderThread();
  /** Folders that were real ones a moment ago. */
  #lookedAt: { readonly name: string; readonly at: number } | undefined;

  constructor(name: string, root: string) {
    this.name = name;
    this.#root = root;
  }

  async put(key: string, open: OpenBytes, options: PutOptions): Promise<void> {
    const { path, folders, object } = this.#place(key);
    const { signal, exclusive = false } = options;
    signal.throwIfAborted();
    try {
      if (exclusive && (await lstatOrGone(path)) !== undefined) throw alreadyThere(object);
      const unfinished = await this.#createUnfinished(path, folders, options);
      try {
        if (!unfinished.linked) {
          await writeObject(unfinished.file, exactBytes(open(), options.size, { object, verb: "write", signal }));
        }
        // Also the moment at which a network folder admits that it is full.
        await unfinished.file.sync();
        await unfinished.close();
        await publishFile(unfinished.path, path, exclusive, signal);
      } catch (error) {
        await unfinished.close().catch(() => undefined);
        // The signal may be aborted already: tidying up must go on all the same.
        await removeFile(unfinished.path, AbortSignal.timeout(TIDY_MS)).catch(() => undefined);
        await removeEmptyFolders(this.#root, folders);
        throw codeOf(error) === "EEXIST" ? alreadyThere(object) : error;
      }
    } catch (error) {
      throw localFolderError(error, `write ${object}`);
    }
  }

  async *get(key: string, { range, reuse, signal }: GetOptions): AsyncIterable<Uint8Array> {
    const { path, folders, object } = this.#place(key);
    signal.throwIfAborted();
    let buffer: Buffer | undefined;
    try {
      await this.#assertFoldersToRead(folders);
      await using file = await openFile(path);
      const info = await file.stat();
      if (!info.isFile()) throw destinationError(`cannot read ${object}: it is not a file`, "failed");
      const { start, end } = rangeWithin(range, info.size, object);
      for (let position = start; position < end; ) {
        signal.throwIfAborted();
        if (!reuse || !buffer) buffer = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, end - position));
        const { bytesRead } = await file.read({ buffer, position, length: Math.min(buffer.length, end - position) });
        if (bytesRead === 0) throw destinationError(`cannot read ${object}: it became shorter meanwhile`, "failed");
        position += bytesRead;
        yield bytesRead === buffer.length ? buffer : buffer.subarray(0, bytesRead);
      }
    } catch (error) {
      throw localError(error, `read ${object}`);
    } finally {
      if (reuse && buffer) freeBytes(buffer);
    }
  }

  async getSmall(keys: readonly string[], options: GetSmallOptions): Promise<readonly (Uint8Array | undefined)[]> {
    options.signal.throwIfAborted();
    for (const key of keys) assertUsableKey(key);
    return this.#thread.read({ root: this.#root, keys, maxBytes: options.maxBytes }, options);
  }

  async stat(key: string, { signal }: { readonly signal: AbortSignal }): Promise<ObjectInfo | undefined> {
    const { path, folders, object } = this.#place(key);
    signal.throwIfAborted();
    try {
      await assertFolders(this.#root, folders);
      const info = await lstat(path);
      if (!info.isFile() || key.endsWith(SUFFIX)) return undefined;
      return { key, size: info.size, modifiedAt: info.mtime };
    } catch (error) {
      if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") return undefined;
      throw localError(error, `look at ${object}`);
    }
  }

  async *list(prefix: string, { signal }: { readonly signal: AbortSignal }): AsyncIterable<ObjectInfo> {
    const look = ({ key, path, info }: FoundFile) =>
      info ? { key, info } : lookAtFile(path).then((looked) => ({ key, info: looked }));
    for await (const { key, info } of mapAhead(this.#files(prefix, signal), LOOKS_AHEAD, look)) {
      if (info && !key.endsWith(SUFFIX)) yield { key, ...info };
    }
  }

  async listFolders(folder: string, { signal }: { readonly signal: AbortSignal }): Promise<readonly string[]> {
    assertKey(folder);
    signal.throwIfAborted();
    try {
      await assertFolders(this.#root, folder.split("/"));
      const entries = await readdir(join(this.#root, folder), { withFileTypes: true });
      return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
    } catch (error) {
      if (codeOf(error) === "ENOENT" && (await lstatOrGone(this.#root)) !== undefined) return [];
      throw localFolderError(error, `list ${this.name}/${folder}/`);
    }
  }

  async remove(key: string, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    const { path, folders, object } = this.#place(key);
    signal.throwIfAborted();
    try {
      await assertFolders(this.#root, folders);
      await removeFile(path, signal);
      await removeEmptyFolders(this.#root, folders);
    } catch (error) {
      if (codeOf(error) === "ENOENT") return;
      throw localError(error, `remove ${object}`);
    }
  }

  /**
   * Removes unfinished files that a dead process left below `prefix` and that nobody wrote to for `olderThanMs`.
   * Gives the number of files removed.
   */
  async removeUnfinished(
    prefix: string,
    { olderThanMs, countOnly = false, signal }: RemoveUnfinishedOptions,
  ): Promise<number> {
    const before = Date.now() - olderThanMs;
    let removed = 0;
    for await (const { key, path } of this.#files(prefix, signal)) {
      if (!key.endsWith(SUFFIX)) continue;
      const info = await lstatOrGone(path);
      if (!info?.isFile() || info.mtimeMs > before) continue;
      try {
        if (countOnly || (await removeFile(path, signal))) removed++;
      } catch (error) {
        throw localError(error, `remove ${this.name}/${key}`);
      }
    }
    return removed;
  }

  async freeBytes(): Promise<number> {
    try {
      const { bavail, bsize } = await statfs(this.#root);
      return bavail * bsize;
    } catch (error) {
      throw localError(error, `look at ${this.name}`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#thread[Symbol.dispose]();
  }

  #place(key: string): { readonly path: string; readonly folders: readonly string[]; readonly object: string } {
    assertUsableKey(key);
    const parts = key.split("/");
    return { path: join(this.#root, ...parts), folders: parts.slice(0, -1), object: `${this.name}/${key}` };
  }

  /**
   * Thousands of manifests lie in folders of one folder: those above were looked at a moment ago. A link that is planted in
   * this moment leads to bytes that nobody believes; what writes or removes looks each time.
   */
  async #assertFoldersToRead(folders: readonly string[]): Promise<void> {
    const above = folders.slice(0, -1);
    const name = above.join("/");
    const known = this.#lookedAt;
    if (known?.name !== name || performance.now() - known.at > LOOK_HOLDS_MS) {
      await assertFolders(this.#root, folders);
      this.#lookedAt = { name, at: performance.now() };
    } else await assertFolders(join(this.#root, ...above), folders.slice(-1));
  }

  /** Another writer that fails in the same folder may remove it, while it is empty, before our file is in it. */
  async #createUnfinished(path: string, folders: readonly string[], options: PutOptions) {
    for (let tries = 1; ; tries++) {
      await createFolders(this.#root, folders);
      const unfinished = `${path}.${randomBytes(6).toString("hex")}${SUFFIX}`;
      try {
        const linked = options.file !== undefined && (await linkWhole(options.file, unfinished, options.size));
        const file = linked ? await openFileToSync(unfinished) : await createFile(unfinished);
        let closed: Promise<void> | undefined;
        const close = () => {
          closed ??= file.close();
          return closed;
        };
        return { path: unfinished, file, linked, close };
      } catch (error) {
        if (codeOf(error) !== "ENOENT" || tries === 20) throw error;
      }
    }
  }

  /** Walks through all files whose key starts with `prefix`, also unfinished ones. */
  async *#files(prefix: string, signal: AbortSignal): AsyncIterable<FoundFile> {
    const parent = prefix.includes("/") ? dirname(`${prefix}x`) : "";
    if (parent !== "") assertKey(parent);
    try {
      await assertFolders(this.#root, parent === "" ? [] : parent.split("/"));
      const folder = { path: join(this.#root, parent), key: parent === "" ? "" : `${parent}/` };
      yield* walkFiles(folder, { prefix, thread: this.#thread, signal });
    } catch (error) {
      if (codeOf(error) === "ENOENT" && (await lstatOrGone(this.#root)) !== undefined) return;
      throw localFolderError(error, `list ${this.name}/${prefix}`);
    }
  }
}

function assertUsableKey(key: string): void {
  assertKey(key);
  if (key.split("/").some((segment) => segment.endsWith(SUFFIX) || isReservedOnWindows(segment))) {
    throw destinationError(`cannot use the key ${JSON.stringify(key)}: the name is reserved`, "invalid-key");
  }
}

async function writeObject(file: FileHandle, bytes: AsyncIterable<Uint8Array>) {
  let parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of bytes) {
    parts.push(part);
    size += part.length;
    if (size < WRITE_BYTES) continue;
    await appendFully(file, parts);
    parts = [];
    size = 0;
  }
  if (size > 0) await appendFully(file, parts);
}

/**
 * Links a file that has this size; another size goes the long way, where it is refused with all due words. One that is an object elsewhere
 * already is copied: bytes that go bad in one folder must not be those of another.
 */
async function linkWhole(from: string, to: string, size: number | undefined): Promise<boolean> {
  const info = await lstat(from);
  if (!info.isFile() || info.size !== size || info.nlink > 1 || !(await tryLink(from, to))) return false;
  // Another destination may have made its own link meanwhile.
  const isOurs = (await lstat(to)).nlink === 2;
  if (!isOurs) await unlink(to);
  return isOurs;
}

async function lstatOrGone(path: string) {
  try {
    return await lstat(path);
  } catch (error) {
    if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") return undefined;
    throw error;
  }
}

async function lookAtFile(path: string): Promise<FoundFile["info"]> {
  const info = await lstatOrGone(path);
  return info?.isFile() ? { size: info.size, modifiedAt: info.mtime } : undefined;
}

function alreadyThere(object: string): Error {
  return destinationError(`cannot write ${object}: it exists already`, "exists", {
    hint: "Check whether another run writes the same snapshot.",
  });
}

/** Windows opens a device for these names, with any extension. */
function isReservedOnWindows(segment: string): boolean {
  return process.platform === "win32" && /^(con|prn|aux|nul|com\d|lpt\d)(\.|$)|\.$/i.test(segment);
}
