import { randomBytes } from "node:crypto";
import { posix } from "node:path";
import { CountedBytes, exactBytes, rangeWithin, untilAborted } from "./checked-bytes.ts";
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
import type { FtpSettings } from "./destination-settings.ts";
import { assertFolderKey, foldersOf, isKeyName, nameTaken, noFolder, notAFolder, UNFINISHED } from "./folder-keys.ts";
import { FtpConnections, type FtpLease, type FtpSession } from "./ftp-connections.ts";
import { ftpMeaning, replyCodeOf, saysMissing } from "./ftp-errors.ts";
import {
  type FtpEntry,
  lookForFolder,
  makeFolder,
  parseListing,
  readListing,
  readTime,
  removeFile,
  statEntry,
} from "./ftp-files.ts";
import { publish, publishExclusively } from "./ftp-publish.ts";
import { downloadBytes, uploadBytes } from "./ftp-transfer.ts";
import { remoteError } from "./network-errors.ts";

const TIDY_MS = 10_000;
const PROBE_BYTES = 64 * 1024;

interface Options {
  readonly signal: AbortSignal;
}

/**
 * Connects to a server, with explicit TLS unless the settings say otherwise, and creates the destination's folder when
 * it is missing, unless the destination is to be left as it is.
 */
export async function openFtpDestination(settings: FtpSettings, options: OpenDestinationOptions): Promise<Destination> {
  const name = settings.name ?? `ftp://${settings.host}/${settings.path.replace(/^\//, "")}`;
  assertOneLine(name, settings);
  const destination = new FtpDestination(settings, name, options.removesMade);
  try {
    await destination.prepare(options);
    return destination;
  } catch (error) {
    await destination[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * A folder of an FTP server. Files are written as `<name>.<random>.in-progress` beside their final place, their size is
 * checked, and they are renamed. The protocol has no fsync: what the server acknowledged, it may still lose when its
 * machine loses power. Symbolic links that stand on the server are not listed, but most servers follow them without
 * telling when they are part of a key: keep others from writing in the folder. A `get` that is not read to its end holds one of a few connections.
 */
class FtpDestination implements Destination {
  readonly name: string;
  #root: string;
  readonly #removesMade: boolean;
  /** Those that opening made, the deepest last. */
  readonly #made: string[] = [];
  readonly #connections: FtpConnections;

  constructor(settings: FtpSettings, name: string, removesMade = false) {
    this.#removesMade = removesMade;
    this.name = name;
    this.#root = settings.path.replace(/(.)\/+$/, "$1");
    this.#connections = new FtpConnections(settings, name);
  }

  async prepare({ asItIs, signal }: OpenDestinationOptions): Promise<void> {
    try {
      using lease = await this.#connections.take(signal);
      await lease.run(signal, async (session) => {
        if (!this.#root.startsWith("/")) this.#root = posix.join(await session.client.pwd(), this.#root);
        const found = await lookForFolder(session, this.#root);
        if (found === "folder") return;
        if (asItIs) throw noFolder(this.name);
        const parts = this.#root.split("/").filter((part) => part !== "");
        for (let depth = 1; depth <= parts.length; depth++) {
          const folder = `/${parts.slice(0, depth).join("/")}`;
          if ((await lookForFolder(session, folder)) !== "nothing") continue;
          if (await makeFolder(session, folder)) this.#made.push(folder);
        }
      });
    } catch (error) {
      throw remoteError(error, `open ${this.name}`, ftpMeaning);
    }
  }

  async put(key: string, open: OpenBytes, options: PutOptions): Promise<void> {
    const { path, object } = this.#place(key);
    const { signal, exclusive = false } = options;
    signal.throwIfAborted();
    const unfinished = `${path}.${randomBytes(6).toString("hex")}${UNFINISHED}`;
    try {
      if (exclusive && (await this.#look(path, signal))) throw nameTaken(object);
      try {
        await this.#upload(key, unfinished, open, options);
        const names = { from: unfinished, to: path, object };
        await (exclusive ? publishExclusively : publish)(this.#connections, names, { signal });
      } catch (error) {
        const reason = await this.#reasonOf(error, unfinished);
        await this.#tidy(unfinished, key);
        throw reason;
      }
    } catch (error) {
      throw remoteError(error, `write ${object}`, ftpMeaning);
    }
  }

  async *get(key: string, { range, signal }: GetOptions): AsyncIterable<Uint8Array> {
    const { path, object } = this.#place(key);
    try {
      using lease = await this.#connections.take(signal);
      const entry = await lease.run(signal, (session) => statEntry(session, path));
      if (entry === undefined) throw destinationError(`cannot read ${object}: it does not exist`, "not-found");
      if (entry.kind !== "file") throw destinationError(`cannot read ${object}: it is not a file`, "denied");
      const { start, end } = rangeWithin(range, entry.size, object);
      if (start === end) return;
      const bytes = downloadBytes(lease, path, { start, end, size: entry.size, signal });
      if (range) yield* exactBytes(bytes, end - start, { object, verb: "read", signal });
      else yield* this.#wholeBytes(bytes, entry.size, { lease, path, object, signal });
    } catch (error) {
      throw remoteError(error, `read ${object}`, ftpMeaning);
    }
  }

  async stat(key: string, { signal }: Options): Promise<ObjectInfo | undefined> {
    const { path, object } = this.#place(key);
    try {
      const entry = await this.#look(path, signal);
      return entry?.kind === "file" ? infoOf(key, entry) : undefined;
    } catch (error) {
      throw remoteError(error, `look at ${object}`, ftpMeaning);
    }
  }

  async *list(prefix: string, { signal }: Options): AsyncIterable<ObjectInfo> {
    try {
      for await (const { key, entry } of this.#walk(prefix, signal)) {
        if (entry.kind !== "file" || key.endsWith(UNFINISHED)) continue;
        const modifiedAt =
          entry.modifiedAt ?? (await this.#connections.use(signal, (session) => readTime(session, this.#path(key))));
        yield infoOf(key, { ...entry, modifiedAt });
      }
    } catch (error) {
      throw remoteError(error, `list ${this.name}/${prefix}`, ftpMeaning);
    }
  }

  async listFolders(below: string, { signal }: Options): Promise<readonly string[]> {
    assertKey(below);
    try {
      const entries = [...(await this.#entriesOf(below, signal))];
      return entries.filter(({ kind, name }) => kind === "folder" && isKeyName(name)).map(({ name }) => name);
    } catch (error) {
      throw remoteError(error, `list ${this.name}/${below}/`, ftpMeaning);
    }
  }

  async remove(key: string, { signal }: Options): Promise<void> {
    const { path, object } = this.#place(key);
    try {
      await this.#connections.use(signal, async (session) => {
        await removeFile(session, path);
        await this.#removeEmptyFolders(session, key);
      });
    } catch (error) {
      throw remoteError(error, `remove ${object}`, ftpMeaning);
    }
  }

  /** Ages are told by the server's own clock, whatever ours says. */
  async removeUnfinished(
    prefix: string,
    { olderThanMs, countOnly = false, signal }: RemoveUnfinishedOptions,
  ): Promise<number> {
    let removed = 0;
    let now: number | undefined;
    try {
      for await (const { key, entry } of this.#walk(prefix, signal)) {
        if (!key.endsWith(UNFINISHED)) continue;
        const isLock = entry.kind === "folder";
        const path = this.#path(key);
        await this.#connections.use(signal, async (session) => {
          const modifiedAt = entry.modifiedAt ?? (isLock ? undefined : await readTime(session, path));
          if (modifiedAt === undefined) return;
          now ??= await this.#serverTime(signal);
          if (modifiedAt.getTime() > now - olderThanMs) return;
          if (countOnly) {
            removed++;
            return;
          }
          if (isLock) await session.client.send(`RMD ${path}`);
          if (isLock || (await removeFile(session, path))) removed++;
          await this.#removeEmptyFolders(session, key);
        });
      }
      return removed;
    } catch (error) {
      throw remoteError(error, `tidy ${this.name}/${prefix}`, ftpMeaning);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const folder of this.#removesMade ? this.#made.toReversed() : []) {
      const limit = AbortSignal.timeout(TIDY_MS);
      await this.#connections.use(limit, ({ client }) => client.send(`RMD ${folder}`)).catch(() => undefined);
    }
    this.#connections[Symbol.dispose]();
  }

  #place(key: string): { readonly path: string; readonly object: string } {
    assertFolderKey(key);
    return { path: this.#path(key), object: `${this.name}/${key}` };
  }

  #path(key: string): string {
    return key === "" ? this.#root : `${this.#root === "/" ? "" : this.#root}/${key}`;
  }

  #look(path: string, signal: AbortSignal): Promise<FtpEntry | undefined> {
    return this.#connections.use(signal, (session) => statEntry(session, path));
  }

  /** An object that was replaced between the look at it and its first byte has another size, and that is right. */
  async *#wholeBytes(
    bytes: AsyncIterable<Uint8Array>,
    size: number,
    {
      lease,
      path,
      object,
      signal,
    }: { readonly lease: FtpLease; readonly path: string; readonly object: string } & Options,
  ): AsyncIterable<Uint8Array> {
    let seen = 0;
    for await (const part of untilAborted(bytes, signal)) {
      seen += part.length;
      yield part;
    }
    if (seen === size || (await lease.run(signal, (session) => statEntry(session, path)))?.size === seen) return;
    throw destinationError(`cannot read ${object}: the answer has ${seen} bytes instead of ${size}`, "failed", {
      hint: "Check whether something else changes or cuts this object.",
    });
  }

  async #upload(key: string, unfinished: string, open: OpenBytes, { size, signal }: PutOptions): Promise<void> {
    const object = `${this.name}/${key}`;
    for (let tries = 1; ; tries++) {
      using lease = await this.#connections.take(signal);
      await lease.run(signal, (session) => this.#makeFolders(session, key));
      let wasRead = false;
      const source = () => {
        wasRead = true;
        return open();
      };
      try {
        const bytes = new CountedBytes(exactBytes(lazily(source), size, { object, verb: "write", signal }));
        await uploadBytes(lease, unfinished, { bytes, signal });
        const stored = await lease.run(signal, ({ client }) => client.size(unfinished));
        if (stored === bytes.count) return;
        throw destinationError(`cannot write ${object}: the server has ${stored} of ${bytes.count} bytes`, "failed", {
          hint: "Check whether something else changes or cuts this object.",
        });
      } catch (error) {
        // A put that failed beside us may have removed the folder while it was empty.
        if (wasRead || !(saysMissing(error) || replyCodeOf(error) === 553) || tries === 10) throw error;
      }
    }
  }

  /** Gives every file whose key starts with `prefix`, unfinished ones too, and the locks; one listing at a time. */
  async *#walk(prefix: string, signal: AbortSignal): AsyncIterable<{ readonly key: string; readonly entry: FtpEntry }> {
    const parent = prefix.includes("/") ? posix.dirname(`${prefix}x`) : "";
    if (parent !== "") assertKey(parent);
    const folders = [parent];
    for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
      for (const entry of await this.#entriesOf(folder, signal)) {
        signal.throwIfAborted();
        if (!isKeyName(entry.name)) continue;
        const key = folder === "" ? entry.name : `${folder}/${entry.name}`;
        if (entry.kind === "folder" && !key.endsWith(UNFINISHED)) {
          if (`${key}/`.startsWith(prefix) || prefix.startsWith(`${key}/`)) folders.push(key);
        } else if (key.startsWith(prefix)) {
          yield { key, entry };
        }
      }
    }
  }

  async #entriesOf(folder: string, signal: AbortSignal): Promise<Iterable<FtpEntry & { readonly name: string }>> {
    const path = this.#path(folder);
    const listing = await this.#connections.use(signal, async (session) => {
      const text = await readListing(session, path);
      if (text === undefined && (folder === "" || (await lookForFolder(session, this.#root)) !== "folder")) {
        throw destinationError(`cannot list ${this.name}: its folder is gone`, "unreachable", {
          hint: "Check whether the server has its disk.",
        });
      }
      return { text: text ?? "", parseList: session.parseList };
    });
    return parseListing(listing.text, listing.parseList, `${this.name}/${folder}`);
  }

  async #makeFolders(session: FtpSession, key: string): Promise<void> {
    const parent = foldersOf(key).at(-1);
    if (parent === undefined) return;
    const found = await lookForFolder(session, this.#path(parent));
    if (found === "other") throw notAFolder(`${this.name}/${parent}`);
    if (found === "folder") return;
    for (const folder of foldersOf(key)) await makeFolder(session, this.#path(folder));
  }

  async #removeEmptyFolders({ client }: FtpSession, key: string): Promise<void> {
    for (const folder of foldersOf(key).toReversed()) {
      const { code } = await client.sendIgnoringError(`RMD ${this.#path(folder)}`);
      // The first folder that is not empty, or not ours to remove, ends the climb.
      if (code >= 400) return;
    }
  }

  /** A server may call a full disk just a failed write; the next small file tells whether it was that. */
  async #reasonOf(error: unknown, unfinished: string): Promise<unknown> {
    const code = replyCodeOf(error);
    if (code !== 451 && code !== 426) return error;
    const probe = unfinished.replace(UNFINISHED, `.probe${UNFINISHED}`);
    const limit = AbortSignal.timeout(TIDY_MS);
    try {
      using lease = await this.#connections.take(limit);
      await uploadBytes(lease, probe, { bytes: oneChunk(PROBE_BYTES), signal: limit });
      return error;
    } catch (failure) {
      return ftpMeaning(failure)?.code === "full" ? failure : error;
    } finally {
      const removing = this.#connections.use(limit, ({ client }) => client.sendIgnoringError(`DELE ${probe}`));
      await removing.catch(() => undefined);
    }
  }

  async #tidy(unfinished: string, key: string): Promise<void> {
    const limit = AbortSignal.timeout(TIDY_MS);
    const tidying = this.#connections.use(limit, async (session) => {
      await session.client.sendIgnoringError(`DELE ${unfinished}`);
      await this.#removeEmptyFolders(session, key);
    });
    await tidying.catch(() => undefined);
  }

  /** The time that the server gives to a file of this moment. */
  async #serverTime(signal: AbortSignal): Promise<number> {
    const path = this.#path(`clock.${randomBytes(6).toString("hex")}${UNFINISHED}`);
    using lease = await this.#connections.take(signal);
    await uploadBytes(lease, path, { bytes: oneChunk(1), signal });
    return await lease.run(signal, async (session) => {
      const entry = await statEntry(session, path);
      await removeFile(session, path);
      // Without a time nothing is old.
      return entry?.modifiedAt?.getTime() ?? 0;
    });
  }
}

/** Opens its source when the first byte is wanted: not before the server is ready to take it. */
async function* lazily(open: OpenBytes): AsyncIterable<Uint8Array> {
  yield* open();
}

async function* oneChunk(size: number): AsyncIterable<Uint8Array> {
  yield Buffer.alloc(size);
}

function assertOneLine(name: string, { path, user, password = "" }: FtpSettings): void {
  // They would end the command and begin another one.
  if (!/\p{Cc}/u.test(`${path}${user}${password}`)) return;
  throw destinationError(
    `cannot open ${JSON.stringify(name)}: path, user or password has a control character`,
    "denied",
    {
      hint: "Check whether a secret that is read from a file ends in more than one line.",
    },
  );
}

/** A time that the server does not tell is now, so that nothing is taken for old. */
function infoOf(key: string, { size, modifiedAt = new Date() }: FtpEntry): ObjectInfo {
  return { key, size, modifiedAt };
}
