import { constants, type Dirent, type Stats } from "node:fs";
import { type FileHandle, lstat, open, readdir, readlink } from "node:fs/promises";
import { join, resolve } from "node:path";
import { codeOf, messageOf, OperationalError } from "../base/errors.ts";
import type { ChunkRef, StoredFile } from "../snapshot/manifest.ts";
import type { ChunkSink } from "./reuse-chunks.ts";
import type { Report } from "./progress.ts";

const CHUNK_BYTES = 8 * 1024 * 1024;

export interface StoreFilesOptions {
  readonly files: readonly string[];
  readonly signal: AbortSignal;
  readonly report: Report;
}

export interface StoredFiles {
  readonly files: readonly StoredFile[];
  /** One sentence for each thing that could not be stored as it was. */
  readonly warnings: readonly string[];
}

/**
 * Stores files and whole directories. Symbolic links are stored as links and never followed; sockets, pipes and devices
 * are named in a warning, and so is a file that cannot be read or that changed while it was read.
 * A path of the job that does not exist fails with kind `job`: a backup without it would look complete.
 */
export async function storeFiles(writer: ChunkSink, options: StoreFilesOptions): Promise<StoredFiles> {
  const files: StoredFile[] = [];
  const warnings: string[] = [];
  if (options.files.length > 0) options.report({ type: "phase", text: "reading files" });
  for (const path of options.files) {
    const absolute = resolve(path);
    await lstat(absolute).catch((cause: unknown) => {
      throw new OperationalError(
        `cannot back up ${absolute}: ${codeOf(cause) === "ENOENT" ? "it does not exist" : messageOf(cause)}`,
        {
          kind: "job",
          code: "missing-file",
          hint: "Correct the path in the job's files, or remove it there.",
          cause,
        },
      );
    });
    for await (const found of walk(absolute, warnings)) {
      options.signal.throwIfAborted();
      const stored = await storeOne(writer, found, files.length + 1, warnings, options.signal);
      if (stored) files.push(stored);
    }
  }
  for (const message of warnings) options.report({ type: "warning", message });
  return { files, warnings };
}

interface Found {
  readonly path: string;
  readonly stats: Stats;
}

/** Gives a directory before its content, in the order of names, so that a restore can go from top to bottom. */
async function* walk(path: string, warnings: string[]): AsyncIterable<Found> {
  let stats: Stats;
  let entries: Dirent[] = [];
  try {
    stats = await lstat(path);
    if (stats.isDirectory()) entries = await readdir(path, { withFileTypes: true });
  } catch (error) {
    warnings.push(`${path} is not in the backup: ${messageOf(error)}`);
    return;
  }
  yield { path, stats };
  const names = entries.map((entry) => entry.name).sort();
  for (const name of names) yield* walk(join(path, name), warnings);
}

async function storeOne(
  writer: ChunkSink,
  { path, stats }: Found,
  number: number,
  warnings: string[],
  signal: AbortSignal,
): Promise<StoredFile | undefined> {
  const common = { path, mode: stats.mode & 0o7777, modifiedAt: stats.mtime.toISOString() };
  if (stats.isDirectory()) return { ...common, type: "directory", size: 0, chunks: [] };
  try {
    if (stats.isSymbolicLink()) {
      return { ...common, type: "symlink", size: 0, linkTarget: await readlink(path), chunks: [] };
    }
    if (stats.isFile()) {
      const chunks = await storeContent(writer, { path, stats }, number, signal);
      const size = chunks.reduce((sum, chunk) => sum + chunk.rawSize, 0);
      if (size !== stats.size) warnings.push(`${path} changed while it was read: it may be a mixture of two states`);
      return { ...common, type: "file", size, chunks };
    }
  } catch (error) {
    if (error instanceof OperationalError || signal.aborted) throw error;
    warnings.push(`${path} is not in the backup: ${messageOf(error)}`);
    return undefined;
  }
  warnings.push(`${path} is not in the backup: it is not a file, a directory or a symbolic link`);
  return undefined;
}

async function storeContent(
  writer: ChunkSink,
  { path, stats }: Found,
  number: number,
  signal: AbortSignal,
): Promise<readonly ChunkRef[]> {
  // Between lstat and open the file may have been swapped for a link.
  await using file = await open(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0));
  const chunks: ChunkRef[] = [];
  const buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, stats.size + 1));
  for (;;) {
    signal.throwIfAborted();
    const filled = await fill(file, buffer).catch((cause: unknown) => {
      // Pieces that are stored already would stand among those of the next file for whoever restores by hand.
      if (chunks.length === 0) throw cause;
      throw new OperationalError(`cannot read ${path} to its end: ${messageOf(cause)}`, {
        kind: "job",
        code: "unreadable-file",
        hint: "Check its disk, or take the file out of the job's files.",
        cause,
      });
    });
    if (filled === 0) return chunks;
    const entry = `files/${String(number).padStart(6, "0")}/${String(chunks.length + 1).padStart(6, "0")}`;
    chunks.push(await writer.addChunk(entry, buffer.subarray(0, filled), 0));
    if (filled < buffer.length) return chunks;
  }
}

async function fill(file: FileHandle, buffer: Buffer): Promise<number> {
  let filled = 0;
  while (filled < buffer.length) {
    const { bytesRead } = await file.read(buffer, filled, buffer.length - filled, null);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return filled;
}
