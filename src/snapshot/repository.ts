import { hash } from "node:crypto";
import { archiveError } from "../archive/archive-error.ts";
import { codeOf, OperationalError } from "../base/errors.ts";
import type { Destination, ObjectInfo } from "../destinations/destination.ts";
import type { ReadEnvelope } from "./envelope-text.ts";
import { findSnapshot, type SnapshotChoice } from "./find-snapshot.ts";
import { type Garbage, garbageAmong } from "./garbage.ts";
import type { Manifest } from "./manifest.ts";
import { ENCRYPTED_MANIFEST_NAME, MANIFEST_NAME, MANIFEST_NAMES, MAX_MANIFEST_BYTES } from "./manifest-text.ts";
import { MARKS_NAME, PIN_NAME, renderMarks, renderPin } from "./marks-text.ts";
import { bytesOf, collectBytes } from "./object-bytes.ts";
import { type OpenedManifest, openManifest, readEnvelope } from "./open-manifest.ts";
import { readSummary } from "./read-summary.ts";
import { fitsId } from "./retention-facts.ts";
import { compareSnapshotIds, parseSnapshotId } from "./snapshot-id.ts";
import type { KeyRing } from "./snapshot-key.ts";
import { type MarksPlace, readMarks, readMarksToReplace } from "./stored-marks.ts";
import {
  type DamagedSnapshot,
  type LockedSnapshot,
  type Marks,
  type SnapshotList,
  type SnapshotSummary,
  summaryOf,
} from "./snapshot-summary.ts";

/** Keeps summaries of manifests, which never change, so that a list need not read them again. */
export interface SummaryCache {
  get(key: string, size: number, modifiedAt: Date): Promise<SnapshotSummary | undefined>;
  put(key: string, size: number, modifiedAt: Date, summary: SnapshotSummary): Promise<void>;
}

export interface Waiting {
  readonly signal: AbortSignal;
}

/** The snapshots of one database of one job at one destination. */
export interface Repository {
  readonly destination: Destination;
  readonly prefix: string;
  /** A damaged or foreign manifest is reported as such and hides no other. Fails with kind `destination`. */
  list(options: Waiting): Promise<SnapshotList>;
  /** Reads the manifest; see open-manifest.ts for how it fails. */
  readManifest(id: string, options: Waiting): Promise<Manifest>;
  /** Reads the manifest, with what decrypts the chunks. */
  open(id: string, options: Waiting): Promise<OpenedManifest>;
  /** Gives the id of the chosen snapshot; see find-snapshot.ts. */
  find(choice: SnapshotChoice, options: Waiting): Promise<string>;
  /** Gives the ids of all snapshots that have a manifest, the oldest first, without reading one. */
  ids(options: Waiting): Promise<readonly string[]>;
  /**
   * Removes a snapshot, its manifest first: interrupted, it leaves garbage and never a snapshot with holes. Fails with
   * kind `refused`, `pinned`, for a pinned one; with kind `destination` when the manifest, and so everything, is still
   * there. Objects that could not be removed behind it are garbage: they are given, and hinder nothing.
   */
  remove(id: string, options: Waiting): Promise<readonly OperationalError[]>;
  /** Pins a snapshot, or takes its pin away. */
  setPinned(id: string, pinned: boolean, options: Waiting & { readonly now: Date }): Promise<void>;
  /** Adds to the marks of a snapshot; see stored-marks.ts for when it refuses to replace them. */
  mark(id: string, marks: Marks, options: Waiting): Promise<void>;
  /** Finds what runs left behind, once nothing was added for `leaseMs` by the destination's clock. */
  findGarbage(options: Waiting & { readonly now: Date; readonly leaseMs: number }): Promise<readonly Garbage[]>;
  /**
   * Removes garbage, unless a manifest came in the meantime. Gives the bytes that were freed; fails with the first error
   * once everything else was tried.
   */
  removeGarbage(garbage: readonly Garbage[], options: Waiting): Promise<number>;
}

export interface RepositoryOptions {
  readonly cache?: SummaryCache | undefined;
  /** Opens encrypted snapshots; without it they are listed as locked. */
  readonly keys?: KeyRing | undefined;
  /** Lists locked ones only after comparing the bytes of their manifests with the hash in the envelope, for who removes. */
  readonly checksLocked?: boolean | undefined;
}

/** Opens the snapshots below `prefix` (`<job>/<database>`); touches nothing yet. */
export function openRepository(destination: Destination, prefix: string, options: RepositoryOptions = {}): Repository {
  // An empty prefix would be the whole bucket.
  if (prefix.split("/").some((segment) => segment === ""))
    throw new RangeError(`not a prefix of snapshots: "${prefix}"`);
  return new ObjectRepository(destination, prefix, options);
}

/** The only objects that rowkeep writes below a snapshot's folder, and so the only ones that it ever removes. */
export const OWN_OBJECT =
  /^(?:volume-\d{4,9}\.tar|manifest\.json(?:\.age)?|key\.age|envelope\.json|verified\.json|pinned\.json|removing-[0-9a-f]{16}\.json)$/;

const MANIFESTS_AT_ONCE = 8;

/** What a list tells of the folder of one snapshot. */
interface ListedFolder {
  readonly id: string;
  manifest?: ObjectInfo;
  marks?: ObjectInfo;
  pinned?: boolean;
  volumeBytes: number;
}

/** What is known of a snapshot that is about to be opened. */
interface Opening extends Waiting {
  readonly info?: ObjectInfo | undefined;
  /** Null where there is none. */
  readonly envelope?: ReadEnvelope | null | undefined;
}

interface FoundSnapshots {
  readonly snapshots: SnapshotSummary[];
  readonly damaged: DamagedSnapshot[];
  readonly locked: LockedSnapshot[];
}

class ObjectRepository implements Repository {
  readonly destination: Destination;
  readonly prefix: string;
  readonly #options: RepositoryOptions;

  constructor(destination: Destination, prefix: string, options: RepositoryOptions) {
    this.destination = destination;
    this.prefix = prefix;
    this.#options = options;
  }

  async list(options: Waiting): Promise<SnapshotList> {
    const byId = new Map<string, ListedFolder>();
    for await (const { id, name, info } of this.#objects("", options)) {
      const entry = byId.get(id) ?? { id, volumeBytes: 0 };
      byId.set(id, entry);
      if (name === ENCRYPTED_MANIFEST_NAME) entry.manifest = info;
      else if (name === MANIFEST_NAME) entry.manifest ??= info;
      else if (name === MARKS_NAME) entry.marks = info;
      else if (name === PIN_NAME) entry.pinned = true;
      else if (name.startsWith("volume-")) entry.volumeBytes += info.size;
    }
    const found: FoundSnapshots = { snapshots: [], damaged: [], locked: [] };
    const queue = [...byId.values()];
    const read = async () => {
      for (let next = queue.pop(); next; next = queue.pop()) await this.#read(next, found, options);
    };
    await Promise.all(Array.from({ length: MANIFESTS_AT_ONCE }, read));
    const { snapshots, damaged, locked } = found;
    return { snapshots: sortByTime(snapshots), damaged: sortByTime(damaged), locked: sortByTime(locked) };
  }

  async #read(folder: ListedFolder, found: FoundSnapshots, options: Waiting): Promise<void> {
    const { id, manifest, volumeBytes } = folder;
    if (manifest === undefined) return;
    const pinned = folder.pinned ? { pinned: true } : {};
    const marks = { ...(folder.marks ? await readMarks(this.#marksOf(id, options)) : {}), ...pinned };
    const envelope = isEncrypted(manifest) ? await this.#readEnvelope(id, options) : undefined;
    try {
      const summary = await this.#summaryTwice(id, manifest, { ...options, envelope });
      const isIncomplete = volumeBytes < summary.storedBytes ? { isIncomplete: true } : {};
      found.snapshots.push({ ...summary, ...marks, ...isIncomplete });
    } catch (error) {
      if (!isDamage(error)) throw error;
      if (isLocked(error)) {
        const isIntact = !envelope || !this.#options.checksLocked || (await this.#isIntact(folder, envelope, options));
        const known = envelope ? closedOf(envelope, folder) : {};
        const isIncomplete = isIntact ? {} : { isIncomplete: true };
        found.locked.push({ id, storedBytes: volumeBytes, error, ...known, ...isIncomplete, ...marks });
      }
      // Removed between the listing and now.
      else if (error.code !== "not-found") found.damaged.push({ id, error, ...pinned });
    }
  }

  async #readEnvelope(id: string, { signal }: Waiting): Promise<ReadEnvelope | null> {
    return (await readEnvelope({ destination: this.destination, prefix: this.prefix, id, signal })) ?? null;
  }

  async #isIntact({ id, manifest: listed }: ListedFolder, envelope: ReadEnvelope, { signal }: Waiting) {
    const { size, sha256 } = envelope.manifest;
    if (listed?.size !== size) return false;
    try {
      const bytes = this.destination.get(listed.key, { size, signal });
      return hash("sha256", await collectBytes(bytes, MAX_MANIFEST_BYTES, id)) === sha256;
    } catch (error) {
      // Removed since it was listed, or not what it was.
      if (isDamage(error) || codeOf(error) === "not-found") return false;
      throw error;
    }
  }

  /** A bit that was flipped on the way is not damage: what cannot be used is read again before that is said. */
  async #summaryTwice(id: string, info: ObjectInfo, options: Opening): Promise<SnapshotSummary> {
    try {
      return await this.#summary(id, info, options);
    } catch (error) {
      if (!isDamage(error) || error.code === "not-found" || error.code === "key-needed") throw error;
      return this.#summary(id, info, options);
    }
  }

  async #summary(id: string, info: ObjectInfo, options: Opening): Promise<SnapshotSummary> {
    // What an encrypted manifest says is written nowhere in clear, and is told to nobody without its key.
    const cache = isEncrypted(info) ? undefined : this.#options.cache;
    const key = `${this.destination.name}/${info.key}`;
    const known = await cache?.get(key, info.size, info.modifiedAt);
    if (known) return known;
    const { signal } = options;
    const seen = cache && (await readSummary(this.destination, info, { id, signal }));
    const summary = seen ?? summaryOf((await this.#open(id, { ...options, info })).manifest);
    await cache?.put(key, info.size, info.modifiedAt, summary);
    return summary;
  }

  async readManifest(id: string, options: Waiting): Promise<Manifest> {
    return (await this.open(id, options)).manifest;
  }

  open(id: string, options: Waiting): Promise<OpenedManifest> {
    return this.#open(id, options);
  }

  async #open(id: string, { info, envelope, signal }: Opening): Promise<OpenedManifest> {
    assertId(id);
    const { destination, prefix } = this;
    const known = info ? { isEncrypted: isEncrypted(info), size: info.size, envelope } : {};
    return openManifest({ destination, prefix, id, keys: this.#options.keys, ...known, signal });
  }

  async find(choice: SnapshotChoice, options: Waiting): Promise<string> {
    return findSnapshot(await this.list(options), choice);
  }

  async ids(options: Waiting): Promise<readonly string[]> {
    const found = new Set<string>();
    for await (const { id, name } of this.#objects("", options)) if (MANIFEST_NAMES.includes(name)) found.add(id);
    return sortByTime([...found].map((id) => ({ id }))).map(({ id }) => id);
  }

  async remove(id: string, options: Waiting): Promise<readonly OperationalError[]> {
    // A listing may be older than the truth, or cut short; an object asked for by name is not.
    if (await this.destination.stat(this.#key(id, PIN_NAME), options)) throw isPinned(id, this.destination.name);
    for (const name of MANIFEST_NAMES) await this.destination.remove(this.#key(id, name), options);
    const errors: OperationalError[] = [];
    const keys: string[] = [];
    await unlessFailed(options, errors, async () => {
      for await (const { info } of this.#objects(`${id}/`, options)) keys.push(info.key);
    });
    await this.#removeAll(keys, options, errors);
    return errors;
  }

  /** Removes what it can: one object that cannot go keeps no other from going. */
  async #removeAll(keys: readonly string[], options: Waiting, errors: OperationalError[]): Promise<void> {
    for (const key of keys) await unlessFailed(options, errors, () => this.destination.remove(key, options));
  }

  async setPinned(id: string, pinned: boolean, options: Waiting & { readonly now: Date }): Promise<void> {
    const key = this.#key(id, PIN_NAME);
    if (!pinned) return this.destination.remove(key, options);
    const bytes = renderPin(options.now.toISOString());
    return this.destination.put(key, () => bytesOf(bytes), { size: bytes.length, signal: options.signal });
  }

  async mark(id: string, marks: Marks, options: Waiting): Promise<void> {
    const known = await readMarksToReplace(this.#marksOf(id, options));
    const bytes = renderMarks({ ...known, ...marks });
    await this.destination.put(this.#key(id, MARKS_NAME), () => bytesOf(bytes), {
      size: bytes.length,
      signal: options.signal,
    });
  }

  #marksOf(id: string, { signal }: Waiting): MarksPlace {
    return { destination: this.destination, key: this.#key(id, MARKS_NAME), signal };
  }

  async findGarbage(options: Waiting & { readonly now: Date; readonly leaseMs: number }): Promise<readonly Garbage[]> {
    return garbageAmong(this.#objects("", options), options.now.getTime() - options.leaseMs);
  }

  async removeGarbage(garbage: readonly Garbage[], options: Waiting): Promise<number> {
    let freed = 0;
    const errors: OperationalError[] = [];
    for (const { id, keys, bytes, isMarks } of garbage) {
      // A listing may be older than the truth; a manifest asked for by name is not.
      if (!isMarks && (await this.#hasManifest(id, options))) continue;
      await this.#removeAll(keys, options, errors);
      freed += bytes;
    }
    if (errors[0]) throw errors[0];
    return freed;
  }

  async #hasManifest(id: string, options: Waiting): Promise<boolean> {
    for (const name of MANIFEST_NAMES) if (await this.destination.stat(this.#key(id, name), options)) return true;
    return false;
  }

  /** Gives what rowkeep itself wrote below the prefix, and nothing else that lies there. */
  async *#objects(start: string, options: Waiting): AsyncIterable<{ id: string; name: string; info: ObjectInfo }> {
    const folder = `${this.prefix}/`;
    for await (const info of this.destination.list(folder + start, options)) {
      if (!info.key.startsWith(folder)) continue;
      const [id = "", name = "", ...deeper] = info.key.slice(folder.length).split("/");
      if (deeper.length === 0 && OWN_OBJECT.test(name) && parseSnapshotId(id)) yield { id, name, info };
    }
  }

  #key(id: string, name: string): string {
    assertId(id);
    return `${this.prefix}/${id}/${name}`;
  }
}

/** Puts a failure of the destination aside so that the rest can be tried; an abort ends everything. */
async function unlessFailed({ signal }: Waiting, errors: OperationalError[], act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof OperationalError)) throw error;
    errors.push(error);
  }
}

function isPinned(id: string, place: string): OperationalError {
  return new OperationalError(`cannot remove ${id} from ${place}: it is pinned`, {
    kind: "refused",
    code: "pinned",
    hint: "Take the pin away with rowkeep unpin.",
  });
}

function assertId(id: string): void {
  if (parseSnapshotId(id)) return;
  throw archiveError(`cannot find the snapshot ${JSON.stringify(id)}: it is not an id`, "not-found", {
    hint: "List the snapshots of this job.",
  });
}

function isEncrypted({ key }: ObjectInfo): boolean {
  return key.endsWith(`/${ENCRYPTED_MANIFEST_NAME}`);
}

/** Gives what an envelope tells of a closed snapshot, compared with what is listed of it. */
function closedOf(
  { sha256, keyIds, retention, volumes, manifest }: ReadEnvelope,
  folder: ListedFolder,
): Pick<LockedSnapshot, "envelope" | "isIncomplete"> {
  const facts = retention && fitsId(retention, folder.id) ? { facts: retention } : {};
  const named = volumes.reduce((sum, { size }) => sum + size, 0);
  const isIncomplete = folder.volumeBytes < named || folder.manifest?.size !== manifest.size;
  return { envelope: { sha256, keyIds, ...facts }, ...(isIncomplete ? { isIncomplete } : {}) };
}

/** Tells a snapshot that is good as far as one can see, but closed. */
function isLocked(error: OperationalError): boolean {
  return error.code === "key-needed" || error.code === "wrong-key";
}

/** Tells a snapshot that cannot be used from a destination that cannot be read: the latter hides everything. */
function isDamage(error: unknown): error is OperationalError {
  return error instanceof OperationalError && error.kind === "archive";
}

/** Puts what has an id in the order of time; each id is read once, for reading costs more than comparing. */
function sortByTime<T extends { readonly id: string }>(items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, id: parseSnapshotId(item.id) }))
    .sort((left, right) => (left.id && right.id ? compareSnapshotIds(left.id, right.id) : 0))
    .map(({ item }) => item);
}
