import { randomBytes } from "node:crypto";
import { posix } from "node:path";
import type { Stats } from "ssh2";
import { CountedBytes, exactBytes, rangeWithin } from "./checked-bytes.ts";
import {
  assertKey,
  type Destination,
  destinationError,
  type GetOptions,
  type ObjectInfo,
  type OpenBytes,
  type OpenDestinationOptions,
  type PutOptions,
  type RemoveUnfinishedOptions,
} from "./destination.ts";
import type { SftpSettings } from "./destination-settings.ts";
import { assertFolderKey, foldersOf, isKeyName, nameTaken, noFolder, notAFolder, UNFINISHED } from "./folder-keys.ts";
import { remoteError } from "./network-errors.ts";
import { SftpConnection } from "./sftp-connection.ts";
import { SftpFiles, TIDY_MS } from "./sftp-files.ts";
import { SftpStatus, sftpMeaning, statusOf } from "./sftp-errors.ts";
import { readAhead, writeAhead } from "./sftp-transfer.ts";

/** Room that a server surely lacks when its disk is full, where nobody knows what was to be written. */
const LITTLE_BYTES = 1024 * 1024;

interface Options {
  readonly signal: AbortSignal;
}

/**
 * Connects to a server, checks its host key and creates the destination's folder (0700) when it is missing, unless the destination is to
 * be left as it is.
 */
export async function openSftpDestination(
  settings: SftpSettings,
  options: OpenDestinationOptions,
): Promise<Destination> {
  const name = settings.name ?? `sftp://${settings.host}/${settings.path.replace(/^\//, "")}`;
  const destination = new SftpDestination(settings, name, options.removesMade);
  try {
    await destination.prepare(options);
    return destination;
  } catch (error) {
    await destination[Symbol.asyncDispose]();
    throw error;
  }
}

/** A folder of an SSH server. Files are written as `<name>.<random>.in-progress` beside their final place and renamed. */
class SftpDestination implements Destination {
  readonly name: string;
  readonly #root: string;
  readonly #removesMade: boolean;
  /** The destination's folder and those above it, as far as opening made them, the deepest last. */
  readonly #made: string[] = [];
  readonly #connection: SftpConnection;
  readonly #files: SftpFiles;

  constructor(settings: SftpSettings, name: string, removesMade = false) {
    this.#removesMade = removesMade;
    this.name = name;
    this.#root = settings.path.replace(/(.)\/+$/, "$1");
    this.#connection = new SftpConnection(settings, name);
    this.#files = new SftpFiles(this.#connection);
  }

  async prepare({ asItIs, signal }: OpenDestinationOptions): Promise<void> {
    const parts = this.#root.split("/").filter((part) => part !== "");
    try {
      for (let depth = 1; depth <= parts.length; depth++) {
        const folder = `${this.#root.startsWith("/") ? "/" : ""}${parts.slice(0, depth).join("/")}`;
        const known = await this.#files.ask<Stats>(signal, (sftp, done) => sftp.stat(folder, done), true);
        if (known === undefined && asItIs) throw noFolder(this.name);
        if (known !== undefined) continue;
        await this.#files.makeFolder(folder, signal);
        this.#made.push(folder);
      }
    } catch (error) {
      throw remoteError(error, `open ${this.name}`, sftpMeaning);
    }
  }

  async put(key: string, open: OpenBytes, options: PutOptions): Promise<void> {
    const { path, object } = this.#place(key);
    const { signal, size, exclusive = false } = options;
    signal.throwIfAborted();
    try {
      if (exclusive && (await this.#files.lstat(path, signal))) throw nameTaken(object);
      const unfinished = `${path}.${randomBytes(6).toString("hex")}${UNFINISHED}`;
      try {
        const bytes = new CountedBytes(exactBytes(open(), size, { object, verb: "write", signal }));
        await this.#write(unfinished, bytes, { key, signal });
        const stored = await this.#files.lstat(unfinished, signal);
        if (stored?.size !== bytes.count) {
          throw destinationError(
            `cannot write ${object}: the server has ${stored?.size ?? 0} of ${bytes.count} bytes`,
            "failed",
          );
        }
        await this.#publish(unfinished, path, { exclusive, object, signal });
      } catch (error) {
        await this.#tidy(unfinished, key);
        throw error;
      }
    } catch (error) {
      // Nothing was looked for, so a missing folder means that all of it went away.
      if (statusOf(error) === SftpStatus.missing) throw folderGone(`write ${object}`, error);
      throw await this.#failure(error, `write ${object}`, size);
    }
  }

  async *get(key: string, { range, signal }: GetOptions): AsyncIterable<Uint8Array> {
    const { path, object } = this.#place(key);
    try {
      await this.#assertFolders(key, signal);
      const info = await this.#files.lstat(path, signal);
      if (info && !info.isFile()) throw destinationError(`cannot read ${object}: it is not a file`, "denied");
      const handle = await this.#files.ask<Buffer>(signal, (sftp, done) => sftp.open(path, "r", done));
      try {
        const size = (await this.#files.ask<Stats>(signal, (sftp, done) => sftp.fstat(handle, done))).size;
        yield* readAhead(this.#connection, handle, { ...rangeWithin(range, size, object), signal });
      } finally {
        await this.#files.close(handle);
      }
    } catch (error) {
      if (statusOf(error) === SftpStatus.end) {
        throw destinationError(`cannot read ${object}: it became shorter meanwhile`, "failed", { cause: error });
      }
      throw remoteError(error, `read ${object}`, sftpMeaning);
    }
  }

  async stat(key: string, { signal }: Options): Promise<ObjectInfo | undefined> {
    const { path, object } = this.#place(key);
    try {
      await this.#assertFolders(key, signal);
      const info = await this.#files.lstat(path, signal);
      return info?.isFile() ? infoOf(key, info) : undefined;
    } catch (error) {
      if (statusOf(error) === SftpStatus.missing) return undefined;
      throw remoteError(error, `look at ${object}`, sftpMeaning);
    }
  }

  async *list(prefix: string, { signal }: Options): AsyncIterable<ObjectInfo> {
    for await (const info of this.#objects(prefix, signal)) if (!info.key.endsWith(UNFINISHED)) yield info;
  }

  async listFolders(below: string, { signal }: Options): Promise<readonly string[]> {
    assertKey(below);
    const names: string[] = [];
    try {
      await this.#assertFolders(`${below}/x`, signal);
      for await (const { filename, attrs } of this.#files.entries(this.#path(below), signal)) {
        if (attrs.isDirectory() && isKeyName(filename)) names.push(filename);
      }
      return names;
    } catch (error) {
      if (statusOf(error) !== SftpStatus.missing) throw remoteError(error, `list ${this.name}/${below}/`, sftpMeaning);
      await this.#assertRoot(below, signal);
      return [];
    }
  }

  /** Ages are told by the server's own clock, whatever ours says. */
  async removeUnfinished(
    prefix: string,
    { olderThanMs, countOnly = false, signal }: RemoveUnfinishedOptions,
  ): Promise<number> {
    let removed = 0;
    let now: number | undefined;
    for await (const { key, modifiedAt } of this.#objects(prefix, signal)) {
      if (!key.endsWith(UNFINISHED)) continue;
      try {
        now ??= await this.#files.serverTime(this.#root, signal);
        if (modifiedAt.getTime() > now - olderThanMs) continue;
        if (countOnly) {
          removed++;
          continue;
        }
        await this.#files.ask(signal, (sftp, done) => sftp.unlink(this.#path(key), done));
        removed++;
        await this.#removeEmptyFolders(key, signal);
      } catch (error) {
        // Its own process has finished or removed it meanwhile.
        if (statusOf(error) !== SftpStatus.missing) throw remoteError(error, `remove ${this.name}/${key}`, sftpMeaning);
      }
    }
    return removed;
  }

  /** By an extension of OpenSSH; other servers may not tell. */
  async freeBytes({ signal }: Options): Promise<number | undefined> {
    try {
      return await this.#files.freeBytes(this.#root, signal);
    } catch (error) {
      throw remoteError(error, `look at ${this.name}`, sftpMeaning);
    }
  }

  async remove(key: string, { signal }: Options): Promise<void> {
    const { path, object } = this.#place(key);
    try {
      await this.#assertFolders(key, signal);
      await this.#files.ask(signal, (sftp, done) => sftp.unlink(path, done), true);
      await this.#removeEmptyFolders(key, signal);
    } catch (error) {
      if (statusOf(error) === SftpStatus.missing) return;
      throw remoteError(error, `remove ${object}`, sftpMeaning);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const signal = AbortSignal.timeout(TIDY_MS);
    for (const folder of this.#removesMade ? this.#made.toReversed() : []) {
      await this.#files.ask(signal, (sftp, done) => sftp.rmdir(folder, done)).catch(() => undefined);
    }
    await this.#connection[Symbol.asyncDispose]();
  }

  #place(key: string): { readonly path: string; readonly object: string } {
    assertFolderKey(key);
    return { path: this.#path(key), object: `${this.name}/${key}` };
  }

  #path(key: string): string {
    return key === "" ? this.#root : `${this.#root === "/" ? "" : this.#root}/${key}`;
  }

  /** Fails with `denied` when a symbolic link stands where a folder of ours should be, with MISSING when nothing does. */
  async #assertFolders(key: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const folders = foldersOf(key);
    await Promise.all(
      folders.map(async (folder) => {
        const info = await this.#files.ask<Stats>(signal, (sftp, done) => sftp.lstat(this.#path(folder), done));
        if (!info.isDirectory()) throw notAFolder(`${this.name}/${folder}`);
      }),
    );
  }

  async #write(
    path: string,
    bytes: AsyncIterable<Uint8Array>,
    { key, signal }: { key: string } & Options,
  ): Promise<void> {
    const handle = await this.#create(path, key, signal);
    try {
      await writeAhead(this.#connection, handle, { bytes, signal });
      await this.#files.sync(handle, signal);
    } finally {
      await this.#files.close(handle);
    }
  }

  async #create(path: string, key: string, signal: AbortSignal): Promise<Buffer> {
    for (let tries = 1; ; tries++) {
      try {
        await this.#assertFolders(key, signal);
        return await this.#files.ask<Buffer>(signal, (sftp, done) => sftp.open(path, "wx", { mode: 0o600 }, done));
      } catch (error) {
        // A put that failed beside us may have removed the folder while it was empty.
        if (statusOf(error) !== SftpStatus.missing || tries === 10) throw error;
        for (const folder of foldersOf(key))
          await this.#files.makeFolder(this.#path(folder), signal).catch(ignoreMissing);
      }
    }
  }

  async #publish(
    from: string,
    to: string,
    { exclusive, object, signal }: { readonly exclusive: boolean; readonly object: string } & Options,
  ): Promise<void> {
    if (exclusive) {
      try {
        // The plain rename of version 3 refuses a name that is taken; OpenSSH does it by link().
        await this.#files.ask(signal, (sftp, done) => sftp.rename(from, to, done));
      } catch (error) {
        if (statusOf(error) === SftpStatus.failure && (await this.#files.lstat(to, signal))) throw nameTaken(object);
        throw error;
      }
      return;
    }
    await this.#files.replace(from, to, signal);
  }

  /** Gives every file whose key starts with `prefix`, unfinished ones too. */
  async *#objects(prefix: string, signal: AbortSignal): AsyncIterable<ObjectInfo> {
    const parent = prefix.includes("/") ? posix.dirname(`${prefix}x`) : "";
    if (parent !== "") assertKey(parent);
    try {
      if (parent !== "") await this.#assertFolders(`${parent}/x`, signal);
      yield* this.#walk(parent === "" ? "" : `${parent}/`, prefix, signal);
    } catch (error) {
      if (statusOf(error) === SftpStatus.missing && parent === "") throw folderGone(`list ${this.name}`, error);
      if (statusOf(error) === SftpStatus.missing) {
        await this.#assertRoot(prefix, signal);
        return;
      }
      throw remoteError(error, `list ${this.name}/${prefix}`, sftpMeaning);
    }
  }

  async *#walk(folderKey: string, prefix: string, signal: AbortSignal): AsyncIterable<ObjectInfo> {
    const path = this.#path(folderKey.slice(0, -1));
    for await (const { filename, attrs } of this.#files.entries(path, signal)) {
      const key = `${folderKey}${filename}`;
      if (!isKeyName(filename)) continue;
      if (attrs.isDirectory() && (`${key}/`.startsWith(prefix) || prefix.startsWith(`${key}/`))) {
        yield* this.#walkOrGone(`${key}/`, prefix, signal);
      } else if (attrs.isFile() && key.startsWith(prefix)) {
        yield infoOf(key, attrs);
      }
    }
  }

  async *#walkOrGone(folderKey: string, prefix: string, signal: AbortSignal): AsyncIterable<ObjectInfo> {
    try {
      yield* this.#walk(folderKey, prefix, signal);
    } catch (error) {
      if (statusOf(error) !== SftpStatus.missing) throw error;
      await this.#assertRoot(prefix, signal);
    }
  }

  /** A lost mount must not look like an empty destination. */
  async #assertRoot(prefix: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#files.ask(signal, (sftp, done) => sftp.stat(this.#root, done));
    } catch (error) {
      const action = `list ${this.name}/${prefix}`;
      throw statusOf(error) === SftpStatus.missing
        ? folderGone(action, error)
        : remoteError(error, action, sftpMeaning);
    }
  }

  async #removeEmptyFolders(key: string, signal: AbortSignal): Promise<void> {
    try {
      for (const folder of foldersOf(key).toReversed()) {
        await this.#files.ask(signal, (sftp, done) => sftp.rmdir(this.#path(folder), done));
      }
    } catch (error) {
      // The first folder that is not empty, or not ours to remove, ends the climb.
      if (statusOf(error) === undefined) throw error;
    }
  }

  async #tidy(unfinished: string, key: string): Promise<void> {
    const signal = AbortSignal.timeout(TIDY_MS);
    await this.#files.ask(signal, (sftp, done) => sftp.unlink(unfinished, done)).catch(() => undefined);
    await this.#removeEmptyFolders(key, signal).catch(() => undefined);
  }

  /** A full disk is only a "Failure" in this protocol: the free space tells whether it was that. */
  async #failure(error: unknown, action: string, size = LITTLE_BYTES): Promise<unknown> {
    if (statusOf(error) !== SftpStatus.failure) return remoteError(error, action, sftpMeaning);
    const signal = AbortSignal.timeout(TIDY_MS);
    const space = await this.#files
      .ask<{ f_bavail: number; f_frsize: number }>(signal, (sftp, done) => {
        sftp.ext_openssh_statvfs(this.#root, done);
      })
      .catch(() => undefined);
    if (space === undefined || Number(space.f_bavail) * Number(space.f_frsize) >= size) {
      return remoteError(error, action, sftpMeaning);
    }
    const hint = "Free space there, or choose another destination.";
    return destinationError(`cannot ${action}: no space is left on the server's disk`, "full", { hint, cause: error });
  }
}

function infoOf(key: string, { size, mtime }: { readonly size: number; readonly mtime: number }): ObjectInfo {
  return { key, size, modifiedAt: new Date(mtime * 1000) };
}

function folderGone(action: string, cause: unknown): Error {
  const hint = "Check whether the drive is mounted on the server.";
  return destinationError(`cannot ${action}: its folder is gone`, "unreachable", { hint, cause });
}

function ignoreMissing(error: unknown): void {
  if (statusOf(error) !== SftpStatus.missing) throw error;
}
