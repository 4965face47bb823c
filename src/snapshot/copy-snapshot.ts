import { createHash, hash } from "node:crypto";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { archiveError } from "../archive/archive-error.ts";
import type { Spool } from "../archive/spool.ts";
import { SharedFile } from "../archive/shared-file.ts";
import { codeOf, OperationalError } from "../base/errors.ts";
import { type Destination, destinationError } from "../destinations/destination.ts";
import { fetchVolume, noGoodSource } from "./fetch-volume.ts";
import { findMissingReference } from "./find-missing-reference.ts";
import type { Volume } from "./manifest.ts";
import { ENCRYPTED_MANIFEST_NAME } from "./manifest-text.ts";
import { MARKS_NAME, MAX_MARKS_BYTES, parseMarks } from "./marks-text.ts";
import { bytesOf, collectBytes } from "./object-bytes.ts";
import { openRepository } from "./repository.ts";
import { hasManifest, listSnapshotFolders, type SnapshotFolder } from "./snapshot-folders.ts";
import { readParts, type SmallPart, type SnapshotParts } from "./snapshot-parts.ts";

/** A destination and what its listing shows of the snapshot. */
export interface SnapshotCopy {
  readonly destination: Destination;
  readonly folder: SnapshotFolder;
}

export interface CopySnapshotOptions {
  readonly id: string;
  readonly prefix: string;
  /** What must be there in the end; see readParts. */
  readonly parts: SnapshotParts;
  /** Where volumes may be had, the preferred one first. */
  readonly sources: readonly SnapshotCopy[];
  readonly target: SnapshotCopy;
  readonly spool: Spool;
  readonly onFailure: (error: OperationalError) => void;
  readonly onBytes: (bytes: number) => void;
  readonly signal: AbortSignal;
}

export interface CopiedSnapshot {
  /** Names of the destinations that gave volumes. */
  readonly from: readonly string[];
  readonly volumes: number;
  readonly bytes: number;
}

/**
 * Copies to a destination what it misses of a snapshot: volumes first, each checked by its size and SHA-256 before the first
 * byte is sent, the manifest last, read back and compared. No key is needed. What is there already and right stays.
 * Interrupted, it leaves what a later copy uses and no list shows. Fails with code `no-good-source` when no source has the
 * right bytes, `missing-reference` when the target does not have, complete, what the snapshot refers to, `other-snapshot` when the target has another snapshot of this id; else with the target's failure.
 */
export async function copySnapshot(options: CopySnapshotOptions): Promise<CopiedSnapshot> {
  const { target, parts } = options;
  const isListed = hasManifest(target.folder) && (await isSameSnapshot(options));
  // Before volumes are sent for nothing, and again around the manifest.
  if (!isListed) await assertReferences(options);
  const from = new Set<string>();
  let [volumes, bytes] = [0, 0];
  for (const volume of parts.volumes) {
    if (await isThere(options, volume, isListed)) continue;
    from.add(await copyVolume(options, volume));
    volumes += 1;
    bytes += volume.size;
    options.onBytes(volume.size);
  }
  for (const part of parts.small.slice(0, -1)) await storeSmall(options, part);
  const manifest = parts.small.at(-1);
  if (manifest === undefined) throw new RangeError("a snapshot has a manifest");
  await assertComplete(options);
  await assertReferences(options);
  await storeManifest(options, manifest);
  await copyMarks(options);
  return { from: [...from], volumes, bytes };
}

/** Two nodes may have made a snapshot in the same second: the one that is there and good is never replaced. */
async function isSameSnapshot(options: CopySnapshotOptions): Promise<boolean> {
  const { target, prefix, id, parts, signal } = options;
  const isEncrypted = target.folder.has(ENCRYPTED_MANIFEST_NAME);
  let there: SnapshotParts;
  try {
    there = await readParts({ destination: target.destination, prefix, id, isEncrypted, signal });
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof OperationalError && error.kind === "archive" && error.code !== "future-version") return false;
    throw error;
  }
  const isSame = there.small.every(({ name, bytes }) =>
    parts.small.some((part) => part.name === name && part.bytes.equals(bytes)),
  );
  if (isSame) return true;
  throw archiveError(
    `cannot copy ${id} to ${target.destination.name}: it has another snapshot with this id`,
    "other-snapshot",
    { hint: "Look at both (rowkeep show --from), and rename the job on one of the machines that make them." },
  );
}

/**
 * What a listed snapshot has by its size is left to verify. Of one that is not listed nobody knows how it ended: its
 * volumes are read, which a second sending would cost as well.
 */
async function isThere(options: CopySnapshotOptions, volume: Volume, isListed: boolean): Promise<boolean> {
  const { target, prefix, id, signal } = options;
  if (target.folder.get(volume.name)?.size !== volume.size) return false;
  if (isListed) return true;
  const whole = createHash("sha256");
  try {
    const bytes = target.destination.get(`${prefix}/${id}/${volume.name}`, { size: volume.size, signal });
    for await (const part of bytes) whole.update(part);
  } catch (error) {
    if (["archived", "not-found"].includes(codeOf(error) ?? "")) return false;
    throw error;
  }
  return whole.digest("hex") === volume.sha256;
}

async function copyVolume(options: CopySnapshotOptions, volume: Volume): Promise<string> {
  const { target, prefix, id, spool, signal } = options;
  const key = `${prefix}/${id}/${volume.name}`;
  const sources = options.sources
    .filter(({ folder }) => folder.get(volume.name)?.size === volume.size)
    .map(({ destination }) => destination);
  await spool.acquire({ signal });
  const path = join(spool.folder, `${spoolNumber++}-${volume.name}`);
  try {
    const source = await fetchVolume({ sources, key, volume, path, onFailure: options.onFailure, signal });
    const { size, sha256 } = volume;
    const exclusive = !target.folder.has(volume.name);
    const put = { size, sha256, exclusive, archival: true, file: path, signal };
    await using file = new SharedFile(path);
    await target.destination.put(key, () => file.read(), put);
    return source.name;
  } finally {
    await rm(path, { force: true });
    spool.release();
  }
}

/** Several copies share one spool. */
let spoolNumber = 1;

async function storeSmall({ target, prefix, id, signal }: CopySnapshotOptions, part: SmallPart): Promise<void> {
  const key = `${prefix}/${id}/${part.name}`;
  const { destination } = target;
  const size = part.bytes.length;
  const read = () => collectBytes(destination.get(key, { signal }), size, `${destination.name}/${key}`);
  const existing = target.folder.get(part.name)?.size === size ? await read() : undefined;
  if (existing?.equals(part.bytes)) return;
  await destination.put(key, () => bytesOf(part.bytes), {
    size,
    sha256: hash("sha256", part.bytes),
    exclusive: !target.folder.has(part.name),
    signal,
  });
  if (!(await read()).equals(part.bytes)) {
    throw destinationError(`cannot store ${destination.name}/${key}: it reads back differently`, "failed", {
      hint: "Check the disk or the service of this destination; nothing there can be trusted.",
    });
  }
}

/** Asked again behind the manifest: a run that gives this snapshot up elsewhere may have removed volumes in between. */
async function storeManifest(options: CopySnapshotOptions, manifest: SmallPart): Promise<void> {
  const { target, prefix, id, signal } = options;
  try {
    await storeSmall(options, manifest);
    await assertComplete(options);
    await assertReferences(options);
  } catch (error) {
    // One that somebody else has stored meanwhile is not ours to remove.
    if (!target.folder.has(manifest.name) && codeOf(error) !== "exists") {
      const limit = AbortSignal.timeout(CLEAN_UP_MS);
      await target.destination.remove(`${prefix}/${id}/${manifest.name}`, { signal: limit }).catch(() => undefined);
    }
    signal.throwIfAborted();
    throw error;
  }
}

const CLEAN_UP_MS = 10_000;

async function assertComplete({ target, prefix, id, parts, signal }: CopySnapshotOptions): Promise<void> {
  const { destination } = target;
  const folder = (await listSnapshotFolders(destination, prefix, { id, signal })).get(id);
  for (const { name, size } of parts.volumes) {
    if (folder?.get(name)?.size === size) continue;
    // A listing may be older than the truth; an object asked for by name is not.
    const stored = await destination.stat(`${prefix}/${id}/${name}`, { signal });
    if (stored?.size === size) continue;
    throw destinationError(
      `cannot store ${destination.name}/${prefix}/${id}/${name}: ${stored?.size ?? 0} of its ${size} bytes are there`,
      "failed",
      { hint: "Check the disk or the service of this destination; nothing there can be trusted." },
    );
  }
}

/** An incremental that is listed where its base is not would be one that cannot be restored. */
async function assertReferences({ target, prefix, id, parts, signal }: CopySnapshotOptions): Promise<void> {
  const { destination } = target;
  const problem = await findMissingReference({ destination, prefix, references: parts.references, signal });
  if (problem === undefined) return;
  throw archiveError(`cannot copy ${id} to ${destination.name}: ${problem}`, "missing-reference", {
    hint: "Copy the snapshots that it needs first; a new full needs none.",
  });
}

/** What is known of the content holds for every copy of it; what verify found holds for that copy alone. */
async function copyMarks({ sources, target, prefix, id, signal }: CopySnapshotOptions): Promise<void> {
  for (const { destination } of sources) {
    try {
      const key = `${prefix}/${id}/${MARKS_NAME}`;
      const bytes = await collectBytes(destination.get(key, { signal }), MAX_MARKS_BYTES, key);
      const { verifiedAt: _verified, damagedAt: _damaged, ...marks } = parseMarks(bytes);
      if (Object.keys(marks).length > 0) await openRepository(target.destination, prefix).mark(id, marks, { signal });
      return;
    } catch (error) {
      signal.throwIfAborted();
      // Marks are only ever good news: without them the copy is as good.
      if (!(error instanceof OperationalError)) throw error;
    }
  }
}

/**
 * Reads the parts of a snapshot from the first of these copies that has them all undamaged.
 * Fails with code `no-good-source`.
 */
export async function readGoodParts(
  { id, prefix, signal, onFailure }: Pick<CopySnapshotOptions, "id" | "prefix" | "signal" | "onFailure">,
  copies: readonly SnapshotCopy[],
): Promise<SnapshotParts> {
  let first: OperationalError | undefined;
  for (const { destination, folder } of copies) {
    const isEncrypted = folder.has(ENCRYPTED_MANIFEST_NAME);
    try {
      return await readParts({ destination, prefix, id, isEncrypted, signal });
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof OperationalError)) throw error;
      first ??= error;
      onFailure(error);
    }
  }
  throw noGoodSource(id, first);
}
