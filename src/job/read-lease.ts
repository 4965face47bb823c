import { randomUUID } from "node:crypto";
import { readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { codeOf } from "../base/errors.ts";
import { createHomeFolder, type Home } from "./home.ts";

/** What a process of this machine reads: no prune of this machine removes it meanwhile. */
export interface Read {
  /** Folder of the database's snapshots: `shop/shop`. */
  readonly prefix: string;
  /** The snapshot and those that it refers to. */
  readonly ids: readonly string[];
  /** `restore`, `verify` … for messages. */
  readonly purpose: string;
  readonly pid: number;
}

/**
 * Announces a read until the lease is disposed or its process ends, however it ends: the lock is an exclusive transaction on
 * a small SQLite file, which the operating system frees. A state folder that cannot be written gives no lease and hinders no
 * read: a restore must work where nothing else does.
 */
export async function takeReadLease(home: Home, read: Omit<Read, "pid">): Promise<Disposable> {
  const path = join(folderOf(home), randomUUID());
  let database: DatabaseSync | undefined;
  try {
    await createHomeFolder(folderOf(home));
    database = new DatabaseSync(path + LOCK);
    database.exec("begin exclusive");
    // Only now, and at once: whoever finds the note finds the lock held as long as the process lives.
    await writeFile(path + DRAFT, JSON.stringify({ ...read, pid: process.pid }), { mode: 0o600 });
    await rename(path + DRAFT, path + NOTE);
  } catch (error) {
    database?.close();
    if (codeOf(error) === undefined) throw error;
    return { [Symbol.dispose]: () => undefined };
  }
  return {
    [Symbol.dispose]() {
      database.close();
      void removeFiles(path);
    },
  };
}

/** Gives what processes of this machine read now, and clears away what dead ones left. */
export async function findReads(home: Home): Promise<readonly Read[]> {
  const names = await readdir(folderOf(home)).catch((error: unknown) => {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  });
  const reads: Read[] = [];
  for (const name of names) {
    if (!name.endsWith(NOTE)) continue;
    const path = join(folderOf(home), name.slice(0, -NOTE.length));
    const read = await readNote(path + NOTE);
    if (read && isHeld(path + LOCK)) reads.push(read);
    else await removeFiles(path);
  }
  return reads;
}

const LOCK = ".lock";
const NOTE = ".json";
const DRAFT = ".draft";

function folderOf(home: Home): string {
  return join(home.state, "reads");
}

async function readNote(path: string): Promise<Read | undefined> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as Read;
  } catch (error) {
    // Ended just now, or cut off when the machine died: a living reader's note is whole, for it was renamed.
    if (codeOf(error) === "ENOENT" || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function isHeld(path: string): boolean {
  try {
    using database = new DatabaseSync(path);
    database.exec("pragma busy_timeout = 0; begin exclusive");
    return false;
  } catch (error) {
    return codeOf(error) === "ERR_SQLITE_ERROR";
  }
}

async function removeFiles(path: string): Promise<void> {
  for (const suffix of [NOTE, LOCK, `${LOCK}-journal`, DRAFT])
    await rm(path + suffix, { force: true }).catch(() => undefined);
}
