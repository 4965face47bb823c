import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { destinationError } from "./destination.ts";
import { nameTaken, UNFINISHED } from "./folder-keys.ts";
import type { FtpConnections } from "./ftp-connections.ts";
import { replyCodeOf } from "./ftp-errors.ts";
import { makeFolder, removeFile, statEntry } from "./ftp-files.ts";

const LOCK_WAIT_MS = 20_000;
const LOCK_POLL_MS = 100;
const UNLOCK_MS = 10_000;

interface Names {
  /** Path of the complete file. */
  readonly from: string;
  /** Path that it gets. */
  readonly to: string;
  /** As people read it. */
  readonly object: string;
}

interface Options {
  readonly signal: AbortSignal;
}

/** Gives a complete file its final name; an object that has it is replaced as a whole. */
export async function publish(connections: FtpConnections, { from, to }: Names, { signal }: Options): Promise<void> {
  await connections.use(signal, async (session) => {
    const { client } = session;
    try {
      await client.rename(from, to);
    } catch (error) {
      if (replyCodeOf(error) === undefined || (await statEntry(session, to))?.kind !== "file") throw error;
      // This server renames only to a free name: the old object steps aside, and comes back when that fails.
      const aside = `${to}.${randomBytes(6).toString("hex")}${UNFINISHED}`;
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

/**
 * Gives a complete file its final name, or fails with `exists` when that is taken.
 *
 * The protocol has no rename that refuses a taken name, but making a folder is refused when it exists: whoever makes
 * `<name>.lock.in-progress` may publish. That decides between writers of rowkeep that publish exclusively; any other
 * writer can still come between the look at the name and the rename. Fails with `busy` when a lock stays, as that of a
 * dead process does until `removeUnfinished` takes it away.
 */
export async function publishExclusively(
  connections: FtpConnections,
  names: Names,
  { signal }: Options,
): Promise<void> {
  const lock = `${names.to}.lock${UNFINISHED}`;
  await makeLock(connections, lock, { ...names, signal });
  try {
    await connections.use(signal, async (session) => {
      if (await statEntry(session, names.to)) throw nameTaken(names.object);
      await session.client.rename(names.from, names.to);
    });
  } finally {
    const limit = AbortSignal.timeout(UNLOCK_MS);
    await connections.use(limit, ({ client }) => client.send(`RMD ${lock}`)).catch(() => undefined);
  }
}

async function makeLock(
  connections: FtpConnections,
  lock: string,
  { to, object, signal }: Names & Options,
): Promise<void> {
  for (const end = Date.now() + LOCK_WAIT_MS; Date.now() < end; await sleep(LOCK_POLL_MS, undefined, { signal })) {
    const isOurs = await connections.use(signal, async (session) => {
      if (await statEntry(session, to)) throw nameTaken(object);
      return await makeFolder(session, lock);
    });
    if (isOurs) return;
  }
  throw destinationError(`cannot write ${object}: somebody else is about to write it`, "busy", {
    hint: "Check whether another run writes the same snapshot; what a dead run left is removed by a later one.",
  });
}
