import { constants } from "node:fs";
import { type FileHandle, link, lstat, mkdir, open, rename, rmdir, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { codeOf } from "../base/errors.ts";
import { destinationError } from "./destination.ts";

// Where Windows lacks the flag, lstat of the folders before is all there is.
const NO_FOLLOW = constants.O_NOFOLLOW ?? 0;
const TRIES = 12;

/** Opens a new file that nobody had before: mode 0600, no symbolic link followed. */
export function createFile(path: string): Promise<FileHandle> {
  return open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | NO_FOLLOW, 0o600);
}

/** Opens a file for reading without following a symbolic link. */
export function openFile(path: string): Promise<FileHandle> {
  return open(path, constants.O_RDONLY | NO_FOLLOW);
}

/** Opens a file only to sync it: Windows wants the right to write for that. */
export function openFileToSync(path: string): Promise<FileHandle> {
  return open(path, constants.O_RDWR | NO_FOLLOW);
}

/** Creates the folders of `parts` below `root` one by one (0700) and gives the innermost; follows no symbolic link. */
export async function createFolders(root: string, parts: readonly string[]): Promise<string> {
  let folder = root;
  for (const part of parts) {
    const parent = folder;
    folder = join(folder, part);
    try {
      await mkdir(folder, { mode: 0o700 });
      await syncFolder(parent);
    } catch (error) {
      if (codeOf(error) !== "EEXIST") throw error;
    }
    await assertFolder(folder);
  }
  return folder;
}

/** Fails like the system would unless every folder of `parts` below `root` is a real one: `ENOENT`, or `denied`. */
export async function assertFolders(root: string, parts: readonly string[]): Promise<void> {
  let folder = root;
  for (const part of parts) {
    folder = join(folder, part);
    await assertFolder(folder);
  }
}

async function assertFolder(folder: string): Promise<void> {
  const info = await lstat(folder);
  if (info.isDirectory()) return;
  const what = info.isSymbolicLink() ? "a symbolic link" : "a file";
  throw destinationError(`cannot use the folder ${folder}: ${what} stands in its place`, "denied", {
    hint: "Remove it; rowkeep follows no symbolic link below the folder of a destination.",
  });
}

/** Puts all parts at the file's end. A file system that is nearly full takes a part first and fails the next attempt. */
export async function appendFully(file: FileHandle, parts: readonly Uint8Array[]): Promise<void> {
  const total = parts.reduce((sum, part) => sum + part.length, 0);
  const { bytesWritten } = await file.writev(parts);
  if (bytesWritten === total) return;
  const rest = Buffer.concat(parts, total);
  for (let done = bytesWritten; done < total; ) done += (await file.write(rest, done, total - done)).bytesWritten;
}

/** Gives a finished file its name, replacing what has it; `exclusive` fails with `EEXIST` instead. */
export async function publishFile(from: string, to: string, exclusive: boolean, signal: AbortSignal): Promise<void> {
  if (exclusive) {
    await linkOrReserve(from, to);
  } else {
    await patiently(() => rename(from, to), signal);
  }
  await syncFolder(dirname(to));
}

/** rename() replaces in silence; link() is the call that refuses. File systems without links reserve the name first. */
async function linkOrReserve(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch (error) {
    if (!WITHOUT_LINKS.includes(codeOf(error) ?? "")) throw error;
    await (await createFile(to)).close();
    return rename(from, to);
  }
  await unlink(from);
}

/** What exFAT, some network folders and containers answer to link(), and what two file systems answer together. */
const WITHOUT_LINKS = ["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EXDEV", "EMLINK", "EACCES"];

/** Makes `to` a second name of the file; false where the file system cannot. */
export async function tryLink(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (WITHOUT_LINKS.includes(codeOf(error) ?? "")) return false;
    throw error;
  }
}

/** Removes a file; true when there was one. */
export async function removeFile(path: string, signal: AbortSignal): Promise<boolean> {
  try {
    await patiently(() => unlink(path), signal);
    return true;
  } catch (error) {
    if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") return false;
    throw error;
  }
}

/** Removes the folders of `parts` below `root` from the innermost outward, as far as they are empty. */
export async function removeEmptyFolders(root: string, parts: readonly string[]): Promise<void> {
  for (let depth = parts.length; depth > 0; depth--) {
    try {
      await rmdir(join(root, ...parts.slice(0, depth)));
    } catch (error) {
      if (codeOf(error) !== "ENOENT") return;
    }
  }
}

/** Makes names in a folder survive a power failure; some platforms and network folders cannot and say so. */
export async function syncFolder(folder: string): Promise<void> {
  try {
    await using handle = await open(folder, "r");
    await handle.sync();
  } catch (error) {
    if (!["EINVAL", "EISDIR", "EPERM", "EACCES", "ENOTSUP", "EBADF"].includes(codeOf(error) ?? "")) throw error;
  }
}

/** Windows refuses to rename or delete a file while a virus scanner reads it: that ends within a second or so. */
async function patiently(act: () => Promise<void>, signal: AbortSignal): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      return await act();
    } catch (error) {
      const passing = codeOf(error) === "EBUSY" || codeOf(error) === "EPERM" || codeOf(error) === "EACCES";
      if (process.platform !== "win32" || !passing || tries === TRIES) throw error;
      await sleep(Math.min(10 * 2 ** tries, 400), undefined, { signal });
    }
  }
}
