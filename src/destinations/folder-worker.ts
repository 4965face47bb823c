import { closeSync, constants, type Dirent, fstatSync, lstatSync, openSync, readdirSync, readSync } from "node:fs";
import { join, sep } from "node:path";
import { parentPort } from "node:worker_threads";

/** What the thread is asked: what lies in some folders, or what small files hold. */
export type FolderRequest = { readonly look: readonly string[] } | FilesToRead;

/** Small files by their keys below a folder: no other folder on the way may be a link. */
export interface FilesToRead {
  readonly root: string;
  readonly keys: readonly string[];
  readonly maxBytes: number;
}

/** What lies in one folder; of its files, and of nothing else, size and time. */
export interface FolderContent {
  readonly folders: readonly string[];
  readonly files: readonly LookedAtFile[];
}

export interface LookedAtFile {
  readonly name: string;
  readonly size: number;
  readonly modifiedMs: number;
}

/** One answer for each folder or file, in their order; undefined for what could not be had, for whatever reason. */
export type FolderAnswer = readonly (FolderContent | undefined)[] | readonly (Uint8Array | undefined)[];

// Where Windows lacks the flag, lstat of the folders before is all there is.
const NO_FOLLOW = constants.O_NOFOLLOW ?? 0;

parentPort?.on("message", (request: FolderRequest) => {
  if ("look" in request) parentPort?.postMessage(request.look.map((path) => orUndefined(() => lookInto(path))));
  else {
    const bytes = request.keys.map((key) => orUndefined(() => readSmall(key, request)));
    parentPort?.postMessage(
      bytes,
      bytes.flatMap((one) => (one ? [one.buffer] : [])),
    );
  }
});

/** Whoever asked tries again in the ordinary way, and hears there what is wrong. */
function orUndefined<T>(act: () => T | undefined): T | undefined {
  try {
    return act();
  } catch {
    return undefined;
  }
}

function lookInto(path: string): FolderContent {
  const folders: string[] = [];
  const files: LookedAtFile[] = [];
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory()) folders.push(entry.name);
    else if (mayBeFile(entry)) {
      const info = lstatSync(join(path, entry.name), { throwIfNoEntry: false });
      if (info?.isFile()) files.push({ name: entry.name, size: info.size, modifiedMs: info.mtime.getTime() });
    }
  }
  return { folders, files };
}

/** Some file systems do not tell the kind of an entry: lstat decides then. */
function mayBeFile(entry: Dirent): boolean {
  return entry.isFile() || !entry.isSymbolicLink();
}

function readSmall(key: string, { root, maxBytes }: FilesToRead): Uint8Array<ArrayBuffer> | undefined {
  let path = root;
  const parts = key.split("/");
  for (const part of parts.slice(0, -1)) {
    path += sep + part;
    if (!lstatSync(path).isDirectory()) return undefined;
  }
  path += sep + parts.at(-1);
  const file = openSync(path, constants.O_RDONLY | NO_FOLLOW);
  try {
    const info = fstatSync(file);
    if (!info.isFile() || info.size > maxBytes) return undefined;
    const bytes = new Uint8Array(info.size);
    return readSync(file, bytes, 0, info.size, 0) === info.size ? bytes : undefined;
  } finally {
    closeSync(file);
  }
}
