import type { Dirent } from "node:fs";
import { readdir } from "node:fs/promises";
import { join, sep } from "node:path";
import { codeOf } from "../base/errors.ts";
import type { FolderThread } from "./folder-thread.ts";
import type { FolderContent } from "./folder-worker.ts";

/** Ending of files and folders that are not complete, or that are no objects at all. */
export const UNFINISHED_SUFFIX = ".in-progress";

export interface FoundFile {
  readonly key: string;
  readonly path: string;
  /** Where it has been looked at already: it is a file, and this is what it was. */
  readonly info?: { readonly size: number; readonly modifiedAt: Date } | undefined;
}

/** So many folders are read ahead: a thousand snapshots are a thousand folders, and each one takes its time to answer. */
const FOLDERS_AHEAD = 16;

/** From so many folders in one on a thread is worth its start. */
const WORTH_A_THREAD = 200;
const FOLDERS_PER_REQUEST = 128;

interface Walk {
  readonly prefix: string;
  readonly thread: FolderThread;
  readonly signal: AbortSignal;
}

interface Inner {
  readonly path: string;
  /** What the keys of its files begin with: empty, or with a slash at the end. */
  readonly key: string;
}

interface Folder extends Inner {
  readonly entries: Promise<readonly Dirent[]>;
}

/**
 * Walks through all files below a folder whose key starts with `prefix`, also unfinished ones, folder by folder. Holds
 * the names of one folder per depth, and of those that are read ahead.
 */
export function walkFiles(
  folder: { readonly path: string; readonly key: string },
  options: Walk,
): AsyncIterable<FoundFile> {
  return walk({ ...folder, entries: readdir(folder.path, { withFileTypes: true }) }, options);
}

async function* walk(folder: Folder, options: Walk): AsyncIterable<FoundFile> {
  const { prefix, signal } = options;
  signal.throwIfAborted();
  const inner: Inner[] = [];
  for (const entry of await folder.entries) {
    if (entry.isDirectory()) inner.push(...innerOf(folder, entry.name, prefix));
    else if (mayBeObject(entry) && `${folder.key}${entry.name}`.startsWith(prefix)) {
      signal.throwIfAborted();
      yield { key: `${folder.key}${entry.name}`, path: join(folder.path, entry.name) };
    }
  }
  yield* inner.length < WORTH_A_THREAD ? walkAhead(inner, options) : walkInThread(inner, options);
}

async function* walkAhead(inner: readonly Inner[], options: Walk): AsyncIterable<FoundFile> {
  const ahead: Folder[] = [];
  for (const next of inner) {
    ahead.push({ ...next, entries: readOrGone(next.path) });
    const first = ahead.length > FOLDERS_AHEAD ? ahead.shift() : undefined;
    if (first) yield* walk(first, options);
  }
  for (const last of ahead) yield* walk(last, options);
}

/** While what some folders hold is taken, the thread looks into the next ones, and no further. */
async function* walkInThread(inner: readonly Inner[], options: Walk): AsyncIterable<FoundFile> {
  const ask = (start: number) => {
    const folders = inner.slice(start, start + FOLDERS_PER_REQUEST);
    const answers =
      folders.length > 0
        ? options.thread.look(
            folders.map(({ path }) => path),
            options,
          )
        : Promise.resolve([]);
    // Nobody may come to wait for it, when the walk ends early.
    answers.catch(() => undefined);
    return { folders, answers };
  };
  let next = ask(0);
  for (let start = 0; start < inner.length; start += FOLDERS_PER_REQUEST) {
    const { folders, answers } = next;
    const contents = await answers;
    next = ask(start + FOLDERS_PER_REQUEST);
    for (const [index, folder] of folders.entries()) {
      const content = contents[index];
      if (content) yield* filesIn(folder, content, options);
      else yield* walk({ ...folder, entries: readOrGone(folder.path) }, options);
    }
  }
}

async function* filesIn(folder: Inner, content: FolderContent, options: Walk): AsyncIterable<FoundFile> {
  const { prefix, signal } = options;
  signal.throwIfAborted();
  for (const { name, size, modifiedMs } of content.files) {
    const key = `${folder.key}${name}`;
    if (!NAME_OF_OBJECT.test(name) || !key.startsWith(prefix)) continue;
    yield { key, path: `${folder.path}${sep}${name}`, info: { size, modifiedAt: new Date(modifiedMs) } };
  }
  if (content.folders.length > 0)
    yield* walkAhead(
      content.folders.flatMap((name) => innerOf(folder, name, prefix)),
      options,
    );
}

/** The folder of this name as one to walk through; none when no key in it can start with the prefix. */
function innerOf(folder: Inner, name: string, prefix: string): readonly Inner[] {
  // A spool that lies at the destination itself, so that finished volumes need not be copied.
  if (name.endsWith(UNFINISHED_SUFFIX)) return [];
  const key = `${folder.key}${name}/`;
  return key.startsWith(prefix) || prefix.startsWith(key) ? [{ path: join(folder.path, name), key }] : [];
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

/** Names that are no key are not ours. */
const NAME_OF_OBJECT = /^[0-9A-Za-z._-]+$/;

/** Some file systems do not tell the kind of an entry: lstat decides then. */
function mayBeObject(entry: Dirent): boolean {
  return (entry.isFile() || !entry.isSymbolicLink()) && NAME_OF_OBJECT.test(entry.name);
}
