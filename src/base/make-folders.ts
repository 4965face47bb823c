import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { codeOf } from "./errors.ts";

/**
 * Creates a folder and all that are missing above it, for this user alone (0700); one that is there stays as it is.
 * Fails with the system's error. Node's own way tries for ever where a folder can be seen in which none can be made, as
 * below an automounter or /proc.
 */
export async function makeFolders(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    if (codeOf(error) === "ENOENT" && dirname(path) !== path && !(await isThere(dirname(path)))) {
      await makeFolders(dirname(path));
      // Somebody else may have made it meanwhile.
      await mkdir(path, { mode: 0o700 }).catch((second: unknown) => acceptFolder(path, second));
      return;
    }
    await acceptFolder(path, error);
  }
}

/** Tells whether a file or folder of this name can be seen. */
export async function isThere(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

/** A read-only file system says so of a folder that is there, too. */
async function acceptFolder(path: string, error: unknown): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory() !== true) throw error;
}
