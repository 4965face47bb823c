import type { Dirent } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { codeOf } from "../base/errors.ts";

/** Ending of files and folders that are not complete, or that are no objects at all. */
export const UNFINISHED_SUFFIX = ".in-progress";

export interface FoundFile {
  readonly key: string;
  readonly path: string;
}

/** So many folders are read ahead: a thousand snapshots are a thousand folders, and each one takes its time to answer. */
const FOLDERS_AHEAD = 16;

interface Folder {
  readonly path: string;
  /** What the keys of its files begin with: empty, or with a slash at the end. */
  readonly key: string;
  readonly entries: Promise<readonly Dirent[]>;
}

/**
 * Walks through all files below a folder whose key starts with `prefix`, also unfinished ones, folder by folder. Holds
 * the names of one folder per depth, and of those that are read ahead.
 */
export function walkFiles(
  folder: { readonly path: string; readonly key: string },
  prefix: string,
  signal: AbortSignal,
): AsyncIterable<FoundFile> {
  return walk({ ...folder, entries: readdir(folder.path, { withFileTypes: true }) }, prefix, signal);
}

async function* walk(folder: Folder, prefix: string, signal: AbortSignal): AsyncIterable<FoundFile> {
  signal.throwIfAborted();
  const inner: { readonly path: string; readonly key: string }[] = [];
  for (const entry of await folder.entries) {
    const key = `${folder.key}${entry.name}`;
    const path = join(folder.path, entry.name);
    if (entry.isDirectory()) {
      // A spool that lies at the destination itself, so that finished volumes need not be copied.
      if (entry.name.endsWith(UNFINISHED_SUFFIX)) continue;
      const inside = `${key}/`;
      if (inside.startsWith(prefix) || prefix.startsWith(inside)) inner.push({ path, key: inside });
    } else if (mayBeObject(entry) && key.startsWith(prefix)) {
      signal.throwIfAborted();
      yield { key, path };
    }
  }
  const ahead: Folder[] = [];
  for (const next of inner) {
    ahead.push({ ...next, entries: readOrGone(next.path) });
    const first = ahead.length > FOLDERS_AHEAD ? ahead.shift() : undefined;
    if (first) yield* walk(first, prefix, signal);
  }
  for (const last of ahead) yield* walk(last, prefix, signal);
}

/** A folder that another process emptied and removed while we were on the way is an empty one. */
function readOrGone(path: string): Promise<readonly Dirent[]> {
  const entries = readdir(path, { withFileTypes: true }).catch((error: unknown) => {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  });
  // Nobody may come to wait for it, when the walk ends early.
  entries.catch(() => undefined);
  return entries;
}

/** Some file systems do not tell the kind of an entry: lstat decides then. Names that are no key are not ours. */
function mayBeObject(entry: Dirent): boolean {
  return (entry.isFile() || !entry.isSymbolicLink()) && /^[0-9A-Za-z._-]+$/.test(entry.name);
}
