import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { archiveError } from "../archive/archive-error.ts";
import { spoolError } from "../archive/spool.ts";
import { codeOf, OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import type { Volume } from "./manifest.ts";

export interface FetchVolumeOptions {
  /** Where the volume may be had, the preferred one first. */
  readonly sources: readonly Destination[];
  readonly key: string;
  readonly volume: Volume;
  /** The new file that it is written to. */
  readonly path: string;
  /** Called when a source gave wrong bytes, or none. */
  readonly onFailure: (error: OperationalError) => void;
  readonly signal: AbortSignal;
}

/**
 * Fetches one volume into a local file from the first source that gives exactly the recorded bytes: size and SHA-256 are
 * checked, and wrong bytes are asked for a second time, since a bit may have flipped on the way. Gives that source.
 * Fails with code `no-good-source`, or with kind `destination` when the file cannot be written.
 */
export async function fetchVolume(options: FetchVolumeOptions): Promise<Destination> {
  let first: OperationalError | undefined;
  for (const source of options.sources) {
    for (let tries = 1; tries <= 2; tries++) {
      const failure = await fetchFrom(source, options);
      if (!failure) return source;
      first ??= failure;
      if (tries === 1 && codeOf(failure) === "hash-mismatch") continue;
      options.onFailure(failure);
      break;
    }
  }
  throw noGoodSource(options.volume.name, first);
}

/** Says that nowhere is what a copy needs: nothing that the place it is copied to could help. */
export function noGoodSource(name: string, cause: OperationalError | undefined): OperationalError {
  const reason = cause ? cause.message : "no destination that can be read has it";
  return new OperationalError(`cannot copy ${name}: ${reason}`, {
    kind: cause?.kind ?? "archive",
    code: "no-good-source",
    hint: "Verify the snapshot at every destination; a new run makes a new one.",
    cause,
  });
}

/** Gives what is wrong with the source; throws for everything else. */
async function fetchFrom(source: Destination, options: FetchVolumeOptions): Promise<OperationalError | undefined> {
  const { key, volume, path, signal } = options;
  const place = `${source.name}/${key}`;
  const hash = createHash("sha256");
  let size = 0;
  let broken: OperationalError | undefined;
  await using file = await openFile(path);
  try {
    for await (const part of source.get(key, { size: volume.size, reuse: true, signal })) {
      size += part.length;
      if (size > volume.size) break;
      hash.update(part);
      await writeAll(file, part).catch((cause: unknown) => {
        broken = spoolError(path, cause);
        throw broken;
      });
    }
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof OperationalError) || error === broken) throw error;
    return error;
  }
  if (size !== volume.size) {
    const amount = size > volume.size ? "more" : `${size}`;
    return archiveError(`cannot read ${place}: it has ${amount} bytes, not ${volume.size}`, "truncated");
  }
  if (hash.digest("hex") === volume.sha256) return undefined;
  return archiveError(`cannot read ${place}: it is damaged (its SHA-256 is not the one recorded)`, "hash-mismatch", {
    hint: "Verify this destination.",
  });
}

async function openFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, "w", 0o600);
  } catch (cause) {
    throw spoolError(path, cause);
  }
}

async function writeAll(file: FileHandle, part: Uint8Array): Promise<void> {
  for (let done = 0; done < part.length; ) done += (await file.write(part, done)).bytesWritten;
}
