import { randomBytes } from "node:crypto";
import { type FileHandle, link, open, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { codeOf, messageOf, OperationalError } from "../base/errors.ts";
import { isThere, makeFolders } from "../base/make-folders.ts";

/**
 * Writes a file of the home whole or not at all, closed to other users. Without `replace` it fails with kind `refused`
 * when the file is there already.
 */
export async function writeWhole(
  path: string,
  text: string,
  { replace }: { readonly replace: boolean },
): Promise<void> {
  await writeThen(replace ? rename : link, path, text);
}

/** Replaces the text of a file whole or not at all. Who may read it stays, and where a symbolic link leads to it, so does that. */
export async function rewriteWhole(path: string, text: string): Promise<void> {
  const real = await realpath(path).catch(() => path);
  await writeThen(rename, real, text, async (file) => {
    const old = await stat(real);
    await file.chmod(old.mode & 0o777);
    // Only root can give a file away: cron may run the job as its owner.
    if (process.getuid?.() === 0) await file.chown(old.uid, old.gid);
  });
}

async function writeThen(
  publish: (from: string, to: string) => Promise<void>,
  path: string,
  text: string,
  prepare?: (file: FileHandle) => Promise<void>,
): Promise<void> {
  const unfinished = `${path}.${randomBytes(4).toString("hex")}.in-progress`;
  try {
    await makeFolders(dirname(path));
    await using file = await open(unfinished, "wx", 0o600);
    await prepare?.(file);
    await file.writeFile(text);
    await file.sync();
    await publish(unfinished, path);
  } catch (cause) {
    if (codeOf(cause) === "EEXIST") {
      throw alreadyThere(path);
    }
    throw new OperationalError(`cannot write ${path}: ${messageOf(cause)}`, { kind: "job", code: "unwritable", cause });
  } finally {
    await rm(unfinished, { force: true });
  }
}

export function alreadyThere(path: string): OperationalError {
  return new OperationalError(`cannot write ${path}: it exists already`, {
    kind: "refused",
    code: "exists",
    hint: "Choose another name, or give --force to replace it.",
  });
}

export interface NewFile {
  readonly path: string;
  readonly text: string;
}

/** Writes several files, in their order, as `writeWhole` does. When one cannot be written, those that are new are removed again. */
export async function writeAll(files: readonly NewFile[], options: { readonly replace: boolean }): Promise<void> {
  const written: string[] = [];
  try {
    for (const { path, text } of files) {
      const isNew = !(await isThere(path));
      await writeWhole(path, text, options);
      if (isNew) written.push(path);
    }
  } catch (error) {
    for (const path of written) await rm(path, { force: true });
    throw error;
  }
}
