import { randomBytes } from "node:crypto";
import { posix } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { OperationalError } from "../base/errors.ts";
import { exactBytes, rangeWithin } from "./checked-bytes.ts";
import {
  assertKey,
  type Destination,
  destinationError,
  type GetOptions,
  type ObjectInfo,
  type OpenBytes,
  type PutOptions,
} from "./destination.ts";
import type { FtpSettings } from "./destination-settings.ts";
import { FtpConnections, type FtpLease, type FtpSession } from "./ftp-connections.ts";
import { ftpMeaning, replyCodeOf } from "./ftp-errors.ts";
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
import { downloadBytes, uploadBytes } from "./ftp-transfer.ts";
import { remoteError } from "./network-errors.ts";

const SUFFIX = ".in-progress";
const TIDY_MS = 10_000;
const LOCK_WAIT_MS = 20_000;
const LOCK_POLL_MS = 100;

interface Options {
  readonly signal: AbortSignal;
}

/**
 * Connects to a server, with explicit TLS unless the settings say otherwise, and creates the destination's folder when
 * it is missing.
 */
export async function openFtpDestination(settings: FtpSettings, { signal }: Options): Promise<Destination> {
  const name = settings.name ?? `ftp://${settings.host}/${settings.path.replace(/^\//, "")}`;
  assertOneLine(name, settings);
  const destination = new FtpDestination(settings, name);
  try {
    await destination.prepare({ signal });
    return destination;
  } catch (error) {
    await destination[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * A folder of an FTP server. Files are written as `<name>.<random>.in-progress` beside their final place, their size is
 * checked, and they are renamed.
 *
 * The protocol has no rename that refuses a name that is taken, but making a folder is refused when it exists: whoever
 * makes `<name>.lock.in-progress` may publish an exclusive object. That decides between writers of rowkeep; a foreign
 * program, or a put that is not exclusive, can still come between the look at the name and the rename. A lock that a dead
 * process left makes `busy` of an exclusive put of the same key until `removeUnfinished` has taken it away.
 *
 * The protocol has no fsync either: what the server acknowledged, it may still lose when its machine loses power.
 */
class FtpDestination implements Destination {
  readonly name: string;
  #root: string;
  readonly #connections: FtpConnections;

  constructor(settings: FtpSettings, name: string) {
    this.name = name;
    this.#root = settings.path.replace(/(.)\/+$/, "$1");
    this.#connections = new FtpConnections(settings, name);
  }

  async prepare({ signal }: Options): Promise<void> {
    try {
      using lease = await this.#connections.take(signal);
      await lease.run(signal, async (session) => {
        if (!this.#root.startsWith("/")) this.#root = posix.join(await session.client.pwd(), this.#root);
        if ((await lookForFolder(session, this.#root)) === "folder") return;
        const parts = this.#root.split("/").filter((part) => part !== "");
        for (let depth = 1; depth <= parts.length; depth++) {
          const folder = `/${parts.slice(0, depth).join("/")}`;
          if ((await lookForFolder(session, folder)) === "nothing") await makeFolder(session, folder);
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
    const unfinished = `${path}.${randomBytes(6).toString("hex")}${SUFFIX}`;
    try {
      if (exclusive && (await this.#look(path, signal))) throw alreadyThere(object);
      try {
        await this.#upload(key, unfinished, open, options);
        if (exclusive) await this.#publishExclusively(unfinished, path, { object, signal });
        else await this.#publish(unfinished, path, signal);
      } catch (error) {
        await this.#tidy(unfinished, key);
        throw error;
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
      yield* exactBytes(bytes, end - start, { object, verb: "read", signal });
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
        if (entry.kind !== "file" || key.endsWith(SUFFIX)) continue;
        const modifiedAt =
          entry.modifiedAt ?? (await this.#connections.use(signal, (session) => readTime(session, this.#path(key))));
        yield infoOf(key, { ...entry, modifiedAt });
      }
    } catch (error) {
      throw remoteError(error, `list ${this.name}/${prefix}`, ftpMeaning);
    }
  }

  async remove(key: string, { signal }: Options): Promise<void> {
    const { path, object } = this.#place(key);
    try {
      await this.#connections.use(signal, async (session) => {
        if (!(await this.#hasFolders(session, key))) return;
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
    { olderThanMs, signal }: { readonly olderThanMs: number; readonly signal: AbortSignal },
  ): Promise<number> {
    let removed = 0;
    let now: number | undefined;
    try {
      for await (const { key, entry } of this.#walk(prefix, signal)) {
        if (!key.endsWith(SUFFIX)) continue;
        const isLock = entry.kind === "folder";
        const path = this.#path(key);
        await this.#connections.use(signal, async (session) => {
          const modifiedAt = entry.modifiedAt ?? (isLock ? undefined : await readTime(session, path));
          if (modifiedAt === undefined) return;
          now ??= await this.#serverTime(signal);
          if (modifiedAt.getTime() > now - olderThanMs) return;
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
    this.#connections[Symbol.dispose]();
  }

  #place(key: string): { readonly path: string; readonly object: string } {
    assertKey(key);
    if (key.split("/").some((segment) => segment.endsWith(SUFFIX))) {
      throw destinationError(`cannot use the key ${JSON.stringify(key)}: the name is reserved`, "invalid-key");
    }
    return { path: this.#path(key), object: `${this.name}/${key}` };
  }

  #path(key: string): string {
    return key === "" ? this.#root : `${this.#root === "/" ? "" : this.#root}/${key}`;
  }

  #look(path: string, signal: AbortSignal): Promise<FtpEntry | undefined> {
    return this.#connections.use(signal, (session) => statEntry(session, path));
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
        const bytes = exactBytes(lazily(source), size, { object, verb: "write", signal });
        await uploadBytes(lease, unfinished, { bytes, signal });
        const stored = await lease.run(signal, ({ client }) => client.size(unfinished));
        if (stored === size) return;
        throw destinationError(`cannot write ${object}: the server has ${stored} of ${size} bytes`, "failed", {
          hint: "Check whether something else changes or cuts this object.",
        });
      } catch (error) {
        // A put that failed beside us may have removed the folder while it was empty.
        if (wasRead || replyCodeOf(error) === undefined || tries === 10) throw error;
      }
    }
  }

  async #publish(from: string, to: string, signal: AbortSignal): Promise<void> {
    await this.#connections.use(signal, async (session) => {
      const { client } = session;
      try {
        await client.rename(from, to);
      } catch (error) {
        if (replyCodeOf(error) === undefined || (await statEntry(session, to))?.kind !== "file") throw error;
        // This server renames only to a free name: the old object steps aside and comes back when that fails.
        const aside = `${to}.${randomBytes(6).toString("hex")}${SUFFIX}`;
        await client.rename(to, aside);
        try {
          await client.rename(from, to);
        } catch (failure) {
          await client.rename(aside, to);
          throw failure;
        }
        await removeFile(session, aside);
      }
    });
  }

  async #publishExclusively(
    from: string,
    to: string,
    { object, signal }: { readonly object: string } & Options,
  ): Promise<void> {
    const lock = `${to}.lock${SUFFIX}`;
    await this.#lock(lock, to, { object, signal });
    try {
      await this.#connections.use(signal, async (session) => {
        if (await statEntry(session, to)) throw alreadyThere(object);
        await session.client.rename(from, to);
      });
    } finally {
      const limit = AbortSignal.timeout(TIDY_MS);
      await this.#connections.use(limit, ({ client }) => client.send(`RMD ${lock}`)).catch(() => undefined);
    }
  }

  async #lock(lock: string, to: string, { object, signal }: { readonly object: string } & Options): Promise<void> {
    for (const end = Date.now() + LOCK_WAIT_MS; Date.now() < end; await sleep(LOCK_POLL_MS, undefined, { signal })) {
      const isOurs = await this.#connections.use(signal, async (session) => {
        if (await statEntry(session, to)) throw alreadyThere(object);
        return await makeFolder(session, lock);
      });
      if (isOurs) return;
    }
    throw destinationError(`cannot write ${object}: somebody else is about to write it`, "busy", {
      hint: "Check whether another run writes the same snapshot; what a dead run left is removed by a later one.",
    });
  }

  /** Gives every file whose key starts with `prefix`, unfinished ones too, and the locks; one listing at a time. */
  async *#walk(prefix: string, signal: AbortSignal): AsyncIterable<{ readonly key: string; readonly entry: FtpEntry }> {
    const parent = prefix.includes("/") ? posix.dirname(`${prefix}x`) : "";
    if (parent !== "") assertKey(parent);
    const folders = [parent];
    for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
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
      for (const entry of parseListing(listing.text, listing.parseList, `${this.name}/${folder}`)) {
        signal.throwIfAborted();
        if (!/^(?!\.{1,2}$)[0-9A-Za-z._-]+$/.test(entry.name)) continue;
        const key = folder === "" ? entry.name : `${folder}/${entry.name}`;
        if (entry.kind === "folder" && !key.endsWith(SUFFIX)) {
          if (`${key}/`.startsWith(prefix) || prefix.startsWith(`${key}/`)) folders.push(key);
        } else if (key.startsWith(prefix)) {
          yield { key, entry };
        }
      }
    }
  }

  /** Fails with `denied` when a symbolic link stands where a folder of ours should be; false when nothing does. */
  async #hasFolders(session: FtpSession, key: string): Promise<boolean> {
    for (const folder of foldersOf(key)) {
      const found = await lookForFolder(session, this.#path(folder));
      if (found === "nothing") return false;
      if (found === "folder") continue;
      throw destinationError(
        `cannot use the folder ${this.name}/${folder}: something else stands in its place`,
        "denied",
        {
          hint: "Remove it; rowkeep follows no symbolic link below the folder of a destination.",
        },
      );
    }
    return true;
  }

  async #makeFolders(session: FtpSession, key: string): Promise<void> {
    if (await this.#hasFolders(session, key)) return;
    for (const folder of foldersOf(key)) await makeFolder(session, this.#path(folder));
  }

  async #removeEmptyFolders({ client }: FtpSession, key: string): Promise<void> {
    for (const folder of foldersOf(key).reverse()) {
      const { code } = await client.sendIgnoringError(`RMD ${this.#path(folder)}`);
      // The first folder that is not empty, or not ours to remove, ends the climb.
      if (code >= 400) return;
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
    const path = this.#path(`clock.${randomBytes(6).toString("hex")}${SUFFIX}`);
    using lease: FtpLease = await this.#connections.take(signal);
    const bytes = exactBytes(
      lazily(() => oneByte()),
      1,
      { object: path, verb: "write", signal },
    );
    await uploadBytes(lease, path, { bytes, signal });
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

async function* oneByte(): AsyncIterable<Uint8Array> {
  yield Buffer.of(0);
}

function assertOneLine(name: string, { path, user, password = "" }: FtpSettings): void {
  // They would end the command and begin another one.
  if (!/[\0-\x1f]/.test(`${path}${user}${password}`)) return;
  throw destinationError(
    `cannot open ${JSON.stringify(name)}: path, user or password has a control character`,
    "denied",
    {
      hint: "Check whether a secret that is read from a file ends in more than one line.",
    },
  );
}

function foldersOf(key: string): string[] {
  const parts = key.split("/");
  return parts.slice(1).map((_, index) => parts.slice(0, index + 1).join("/"));
}

/** A time that the server does not tell is now, so that nothing is taken for old. */
function infoOf(key: string, { size, modifiedAt = new Date() }: FtpEntry): ObjectInfo {
  return { key, size, modifiedAt };
}

function alreadyThere(object: string): OperationalError {
  return destinationError(`cannot write ${object}: it exists already`, "exists", {
    hint: "Check whether another run writes the same snapshot.",
  });
}
