import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { chmod, lstat, mkdir, open, rename, rm, symlink, utimes } from "node:fs/promises";
import { dirname, isAbsolute, join, parse, relative, resolve, sep } from "node:path";
import { formatPlural } from "../base/counts.ts";
import { codeOf, messageOf, OperationalError } from "../base/errors.ts";
import type { StoredFile } from "../snapshot/manifest.ts";
import type { SnapshotReader } from "../snapshot/snapshot-reader.ts";
import type { Report } from "./progress.ts";

export interface RestoreFilesOptions {
  readonly reader: SnapshotReader;
  /** Folder below which the files are put by their whole path; undefined: where they were. */
  readonly folder?: string | undefined;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/**
 * Puts the files of a snapshot back, with their modes and times. A file that is there is replaced as a whole. No symbolic
 * link on the way is followed, and with `folder` nothing outside of it is touched, whatever the snapshot says.
 * Gives the number of files. Fails with kind `refused` or `archive`.
 */
export async function restoreFiles(options: RestoreFilesOptions): Promise<number> {
  const { reader, report, signal } = options;
  const folders: { path: string; stored: StoredFile }[] = [];
  let count = 0;
  report({
    type: "phase",
    text: `restoring ${formatPlural(reader.manifest.files.length, "file or folder", "files and folders")}`,
  });
  for (const stored of reader.manifest.files) {
    signal.throwIfAborted();
    const path = placeOf(stored.path, options.folder);
    try {
      await assertNoLinksOnWayTo(path, stored, options);
      if (stored.type === "directory") {
        await mkdir(path, { recursive: true });
        folders.push({ path, stored });
      } else {
        await mkdir(dirname(path), { recursive: true });
        if (stored.type === "symlink") await restoreLink(path, stored.linkTarget ?? "");
        else await restoreFile(path, stored, options);
        count += 1;
      }
    } catch (cause) {
      if (signal.aborted) throw cause;
      throw unwritable(path, cause);
    }
  }
  // A folder's time changes with everything that is put into it: set from the innermost outward, when all is there.
  for (const { path, stored } of folders.reverse()) {
    await assertNoLinks(path, options.folder ?? parse(path).root);
    await chmod(path, stored.mode & 0o7777);
    await utimes(path, new Date(stored.modifiedAt), new Date(stored.modifiedAt));
  }
  return count;
}

/**
 * Fails as `restoreFiles` would with a path that leads elsewhere, or with a link or file in the way of a folder; changes
 * nothing.
 */
export async function checkFilePlaces({
  reader,
  folder,
}: Pick<RestoreFilesOptions, "reader" | "folder">): Promise<void> {
  for (const stored of reader.manifest.files) {
    const path = placeOf(stored.path, folder);
    try {
      await assertNoLinksOnWayTo(path, stored, { folder });
    } catch (cause) {
      throw unwritable(path, cause);
    }
  }
}

/** What is told of already stays as it is. */
function unwritable(path: string, cause: unknown): OperationalError {
  if (cause instanceof OperationalError) return cause;
  return new OperationalError(`cannot restore ${path}: ${messageOf(cause)}`, {
    kind: "refused",
    code: "unwritable",
    cause,
  });
}

function placeOf(path: string, folder: string | undefined): string {
  if (path.includes("\0")) throw outside(path);
  if (folder === undefined) {
    if (isAbsolute(path) && resolve(path) === path) return path;
    throw outside(path);
  }
  const place = resolve(
    folder,
    `.${sep}${path.replace(/^[A-Za-z]:/, (drive) => drive[0] ?? "").replace(/^[\\/]+/, "")}`,
  );
  const inside = relative(resolve(folder), place);
  if (inside === "" || inside.startsWith("..") || isAbsolute(inside)) throw outside(path);
  return place;
}

function outside(path: string): OperationalError {
  return new OperationalError(`cannot restore the file ${JSON.stringify(path)}: its path leads elsewhere`, {
    kind: "archive",
    code: "invalid-path",
    hint: "Do not trust this snapshot.",
  });
}

/** A folder itself, too: one that the snapshot put there as a link before would get its mode elsewhere. */
async function assertNoLinksOnWayTo(
  path: string,
  { type }: Pick<StoredFile, "type">,
  { folder }: Pick<RestoreFilesOptions, "folder">,
): Promise<void> {
  await assertNoLinks(type === "directory" ? path : dirname(path), folder ?? parse(path).root);
}

/** Refuses a way that leads through a symbolic link below `root`. */
async function assertNoLinks(folder: string, root: string): Promise<void> {
  let at = resolve(root);
  for (const part of relative(at, folder).split(sep).filter(Boolean)) {
    at = join(at, part);
    try {
      const info = await lstat(at);
      if (info.isDirectory()) continue;
      throw new OperationalError(`cannot restore below ${at}: it is not a folder`, {
        kind: "refused",
        code: "not-a-folder",
        hint: "Remove the link or file, or restore to another folder with --files-to.",
      });
    } catch (error) {
      if (codeOf(error) === "ENOENT") return;
      throw error;
    }
  }
}

async function restoreLink(path: string, target: string): Promise<void> {
  const unfinished = unfinishedNameOf(path);
  await symlink(target, unfinished);
  await rename(unfinished, path);
}

async function restoreFile(path: string, stored: StoredFile, { reader, signal }: RestoreFilesOptions): Promise<void> {
  const unfinished = unfinishedNameOf(path);
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | (constants.O_NOFOLLOW ?? 0);
  try {
    {
      await using file = await open(unfinished, flags, 0o600);
      for await (const bytes of reader.chunks(stored.chunks, { signal })) await file.writeFile(bytes);
      // Set-user-id bits of a file that now belongs to somebody else would give rights away.
      await file.chmod(stored.mode & 0o777);
      await file.utimes(new Date(stored.modifiedAt), new Date(stored.modifiedAt));
      await file.sync();
    }
    await rename(unfinished, path);
  } finally {
    await rm(unfinished, { force: true });
  }
}

function unfinishedNameOf(path: string): string {
  return `${path}.${randomBytes(4).toString("hex")}.in-progress`;
}
