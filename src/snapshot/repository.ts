import { hash } from "node:crypto";
import { archiveError } from "../archive/archive-error.ts";
import { codeOf, OperationalError } from "../base/errors.ts";
import type { Destination, ObjectInfo } from "../destinations/destination.ts";
import { ENVELOPE_NAME, type ReadEnvelope } from "./envelope-text.ts";
import { findSnapshot, type SnapshotChoice } from "./find-snapshot.ts";
import { type Garbage, garbageAmong } from "./garbage.ts";
import { closedOf, isEncrypted, type ListedFolder, listedFolders, type OwnObject } from "./listed-folder.ts";
import type { Manifest } from "./manifest.ts";
import { MANIFEST_NAMES, MAX_MANIFEST_BYTES } from "./manifest-text.ts";
import { MARKS_NAME, PIN_NAME, renderMarks, renderPin } from "./marks-text.ts";
import { bytesOf, collectBytes } from "./object-bytes.ts";
import { type OpenedManifest, openManifest, readEnvelope } from "./open-manifest.ts";
import { readAhead } from "./read-ahead.ts";
import { readSummary } from "./read-summary.ts";
import { compareIdTexts, parseSnapshotId } from "./snapshot-id.ts";
import { KEY_NAME, type KeyRing } from "./snapshot-key.ts";
import { type ListedManifest, SummaryThread } from "./summary-thread.ts";
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
  /** Adds to the marks of a snapshot, or takes those away that are given as undefined; see stored-marks.ts for when it refuses to replace them. */
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

/** Where each object is asked for by itself. */
const FOLDERS_AT_ONCE = 8;
/** Where a destination reads many small objects in one go: so many folders each time, and so often at once. */
const FOLDERS_PER_READ = 64;
const READS_AT_ONCE = 2;
/** From so many manifests on a thread is worth its start. */
const WORTH_A_THREAD = 500;

interface Reading extends Waiting {
  /** The destination, or what was read ahead of it. */
  readonly source?: Destination | undefined;
}

/** What is known of a snapshot that is about to be opened. */
interface Opening extends Reading {
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
    const found: FoundSnapshots = { snapshots: [], damaged: [], locked: [] };
    const queue = await listedFolders(this.#objects("", options));
    const [perRead, atOnce] = this.destination.getSmall ? [FOLDERS_PER_READ, READS_AT_ONCE] : [1, FOLDERS_AT_ONCE];
    const isWorthThread = this.destination.getSmall && this.#options.cache && queue.length >= WORTH_A_THREAD;
    using thread = isWorthThread ? new SummaryThread() : undefined;
    const read = async () => {
      for (let next = queue.splice(-perRead); next.length > 0; next = queue.splice(-perRead)) {
        await this.#recall(next, thread, options);
        const source = await this.#readAhead(next, options);
        for (const folder of next) await this.#read(folder, found, { ...options, source });
      }
    };
    await Promise.all(Array.from({ length: atOnce }, read));
    const { snapshots, damaged, locked } = found;
    return { snapshots: sortByTime(snapshots), damaged: sortByTime(damaged), locked: sortByTime(locked) };
  }

  /** Asks the memory about each folder, and the thread about those that it does not know. */
  async #recall(folders: readonly ListedFolder[], thread: SummaryThread | undefined, options: Waiting): Promise<void> {
    const { cache } = this.#options;
    const unknown: (ListedFolder & ListedManifest)[] = [];
    for (const folder of folders) {
      const { manifest } = folder;
      if (!manifest || isEncrypted(manifest)) continue;
      folder.known = await cache?.get(this.#cacheKey(manifest), manifest.size, manifest.modifiedAt);
      if (!folder.known) unknown.push(folder as ListedFolder & ListedManifest);
    }
    const read = (await thread?.read(this.destination, unknown, options)) ?? [];
    for (const [index, folder] of unknown.entries()) {
      const summary = read[index];
      folder.known = summary;
      const { manifest } = folder;
      if (summary) await cache?.put(this.#cacheKey(manifest), manifest.size, manifest.modifiedAt, summary);
    }
  }

  /** Reads in one go what is not known of these folders. */
  async #readAhead(folders: readonly ListedFolder[], options: Waiting): Promise<Destination> {
    const { keys: ring, checksLocked } = this.#options;
    const keys: string[] = [];
    for (const { id, manifest, marks, known } of folders) {
      if (manifest === undefined) continue;
      if (marks) keys.push(marks.key);
      if (isEncrypted(manifest)) {
        keys.push(this.#key(id, ENVELOPE_NAME), this.#key(id, KEY_NAME));
        if (ring || checksLocked) keys.push(manifest.key);
      } else if (!known) keys.push(manifest.key);
    }
    return readAhead(this.destination, keys, options);
  }

  async #read(folder: ListedFolder, found: FoundSnapshots, options: Reading): Promise<void> {
    const { id, manifest, volumeBytes } = folder;
    if (manifest === undefined) return;
    const pinned = folder.pinned ? { pinned: true } : {};
    const { damagedAt, ...proofs } = folder.marks ? await readMarks(this.#marksOf(id, options)) : {};
    const marks = { ...proofs, ...pinned };
    const isDamaged = damagedAt !== undefined;
    const envelope = isEncrypted(manifest) ? await this.#readEnvelope(id, options) : undefined;
    try {
      const summary = folder.known ?? (await this.#summaryTwice(id, manifest, { ...options, envelope }));
      const isIncomplete = isDamaged || volumeBytes < summary.storedBytes ? { isIncomplete: true } : {};
      found.snapshots.push({ ...summary, ...marks, ...isIncomplete });
    } catch (error) {
      if (!isDamage(error)) throw error;
      if (isLocked(error)) {
        const isIntact = !envelope || !this.#options.checksLocked || (await this.#isIntact(folder, envelope, options));
        const known = envelope ? closedOf(envelope, folder) : {};
        const isIncomplete = isIntact && !isDamaged ? {} : { isIncomplete: true };
        found.locked.push({ id, storedBytes: volumeBytes, error, ...known, ...isIncomplete, ...marks });
      }
      // Removed between the listing and now.
      else if (error.code !== "not-found") found.damaged.push({ id, error, ...pinned });
    }
  }

  async #readEnvelope(id: string, { source, signal }: Reading): Promise<ReadEnvelope | null> {
    return (await readEnvelope({ destination: source ?? this.destination, prefix: this.prefix, id, signal })) ?? null;
  }

  async #isIntact({ id, manifest: listed }: ListedFolder, envelope: ReadEnvelope, options: Reading) {
    const { size, sha256 } = envelope.manifest;
    if (listed?.size !== size) return false;
    try {
      const bytes = (options.source ?? this.destination).get(listed.key, { size, signal: options.signal });
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
    const { source = this.destination, signal } = options;
    const seen = cache && (await readSummary(source, info, { id, signal }));
    const summary = seen ?? summaryOf((await this.#open(id, { ...options, info })).manifest);
    await cache?.put(this.#cacheKey(info), info.size, info.modifiedAt, summary);
    return summary;
  }

  #cacheKey({ key }: ObjectInfo): string {
    return `${this.destination.name}/${key}`;
  }

  async readManifest(id: string, options: Waiting): Promise<Manifest> {
    return (await this.open(id, options)).manifest;
  }

  open(id: string, options: Waiting): Promise<OpenedManifest> {
    return this.#open(id, options);
  }

  async #open(id: string, { info, envelope, source, signal }: Opening): Promise<OpenedManifest> {
    assertId(id);
    const destination = source ?? this.destination;
    const { prefix } = this;
    const known = info ? { isEncrypted: isEncrypted(info), size: info.size, envelope } : {};
    return openManifest({ destination, prefix, id, keys: this.#options.keys, ...known, signal });
  }

  async find(choice: SnapshotChoice, options: Waiting): Promise<string> {
    return findSnapshot(await this.list(options), choice);
  }

  async ids(options: Waiting): Promise<readonly string[]> {
    const found = new Set<string>();
    for await (const { id, name } of this.#objects("", options)) if (MANIFEST_NAMES.includes(name)) found.add(id);
    return [...found].sort(compareIdTexts);
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
    const all = { ...known, ...marks };
    const key = this.#key(id, MARKS_NAME);
    if (Object.values(all).every((mark) => mark === undefined)) return this.destination.remove(key, options);
    const bytes = renderMarks(all);
    await this.destination.put(key, () => bytesOf(bytes), {
      size: bytes.length,
      signal: options.signal,
    });
  }

  #marksOf(id: string, { source, signal }: Reading): MarksPlace {
    return { destination: source ?? this.destination, key: this.#key(id, MARKS_NAME), signal };
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
  async *#objects(start: string, options: Waiting): AsyncIterable<OwnObject> {
    const folder = `${this.prefix}/`;
    let lastId: string | undefined;
    for await (const info of this.destination.list(folder + start, options)) {
      if (!info.key.startsWith(folder)) continue;
      const [id = "", name = "", ...deeper] = info.key.slice(folder.length).split("/");
      if (deeper.length > 0 || !OWN_OBJECT.test(name)) continue;
      // Objects of one folder mostly come one after the other.
      if (id !== lastId && !parseSnapshotId(id)) continue;
      lastId = id;
      yield { id, name, info };
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

/** Tells a snapshot that is good as far as one can see, but closed. */
function isLocked(error: OperationalError): boolean {
  return error.code === "key-needed" || error.code === "wrong-key";
}

/** Tells a snapshot that cannot be used from a destination that cannot be read: the latter hides everything. */
function isDamage(error: unknown): error is OperationalError {
  return error instanceof OperationalError && error.kind === "archive";
}

/** Puts what has an id in the order of time. */
function sortByTime<T extends { readonly id: string }>(items: readonly T[]): T[] {
  return items.toSorted((left, right) => compareIdTexts(left.id, right.id));
}
