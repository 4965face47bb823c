import { archiveError } from "../archive/archive-error.ts";
import { codeOf, OperationalError } from "../base/errors.ts";
import type { Destination, ObjectInfo } from "../destinations/destination.ts";
import { findSnapshot, type SnapshotChoice } from "./find-snapshot.ts";
import type { Manifest } from "./manifest.ts";
import { ENCRYPTED_MANIFEST_NAME, MANIFEST_NAME } from "./manifest-text.ts";
import { MARKS_NAME, MAX_MARKS_BYTES, parseMarks, renderMarks } from "./marks-text.ts";
import { bytesOf, collectBytes } from "./object-bytes.ts";
import { type OpenedManifest, openManifest } from "./open-manifest.ts";
import { compareSnapshotIds, parseSnapshotId } from "./snapshot-id.ts";
import type { KeyRing } from "./snapshot-key.ts";
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

/** Objects of a run that never stored its manifest. */
export interface Garbage {
  readonly id: string;
  readonly keys: readonly string[];
  readonly bytes: number;
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
  /** Removes a snapshot, its manifest first: interrupted, it leaves garbage and never a snapshot with holes. */
  remove(id: string, options: Waiting): Promise<void>;
  /** Adds to the marks of a snapshot. */
  mark(id: string, marks: Marks, options: Waiting): Promise<void>;
  /** Finds what runs left behind, once nothing was added for `leaseMs` by the destination's clock. */
  findGarbage(options: Waiting & { readonly now: Date; readonly leaseMs: number }): Promise<readonly Garbage[]>;
  /** Removes garbage, unless a manifest came in the meantime. Gives the bytes that were freed. */
  removeGarbage(garbage: readonly Garbage[], options: Waiting): Promise<number>;
}

export interface RepositoryOptions {
  readonly cache?: SummaryCache | undefined;
  /** Opens encrypted snapshots; without it they are listed as locked. */
  readonly keys?: KeyRing | undefined;
}

/** Opens the snapshots below `prefix` (`<job>/<database>`); touches nothing yet. */
export function openRepository(destination: Destination, prefix: string, options: RepositoryOptions = {}): Repository {
  // An empty prefix would be the whole bucket.
  if (prefix.split("/").some((segment) => segment === ""))
    throw new RangeError(`not a prefix of snapshots: "${prefix}"`);
  return new ObjectRepository(destination, prefix, options);
}

/** The only objects that rowkeep writes below a snapshot's folder, and so the only ones that it ever removes. */
export const OWN_OBJECT = /^(?:volume-\d{4,9}\.tar|manifest\.json(?:\.age)?|key\.age|envelope\.json|verified\.json)$/;

/** With one of them a folder is a snapshot. */
const MANIFEST_NAMES: readonly string[] = [MANIFEST_NAME, ENCRYPTED_MANIFEST_NAME];

const MANIFESTS_AT_ONCE = 8;

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
    const byId = new Map<string, { id: string; bytes: number; manifest?: ObjectInfo; marks?: ObjectInfo }>();
    for await (const { id, name, info } of this.#objects("", options)) {
      const entry = byId.get(id) ?? { id, bytes: 0 };
      byId.set(id, entry);
      if (name === MARKS_NAME) entry.marks = info;
      else if (name === ENCRYPTED_MANIFEST_NAME) entry.manifest = info;
      else if (name === MANIFEST_NAME) entry.manifest ??= info;
      else if (name.startsWith("volume-")) entry.bytes += info.size;
    }
    const snapshots: SnapshotSummary[] = [];
    const damaged: DamagedSnapshot[] = [];
    const locked: LockedSnapshot[] = [];
    const queue = [...byId.values()];
    const read = async () => {
      for (let next = queue.pop(); next; next = queue.pop()) {
        if (next.manifest === undefined) continue;
        const marks = next.marks ? await this.#readMarks(next.id, options) : {};
        try {
          snapshots.push({ ...(await this.#summary(next.id, next.manifest, options)), ...marks });
        } catch (error) {
          if (!isDamage(error)) throw error;
          if (isLocked(error)) locked.push({ id: next.id, storedBytes: next.bytes, error, ...marks });
          // Removed between the listing and now.
          else if (error.code !== "not-found") damaged.push({ id: next.id, error });
        }
      }
    };
    await Promise.all(Array.from({ length: MANIFESTS_AT_ONCE }, read));
    return { snapshots: snapshots.sort(byTime), damaged: damaged.sort(byTime), locked: locked.sort(byTime) };
  }

  async #summary(id: string, info: ObjectInfo, options: Waiting): Promise<SnapshotSummary> {
    const key = `${this.destination.name}/${info.key}`;
    const known = await this.#options.cache?.get(key, info.size, info.modifiedAt);
    if (known) return known;
    const summary = summaryOf((await this.#open(id, options, info)).manifest);
    await this.#options.cache?.put(key, info.size, info.modifiedAt, summary);
    return summary;
  }

  async readManifest(id: string, options: Waiting): Promise<Manifest> {
    return (await this.open(id, options)).manifest;
  }

  open(id: string, options: Waiting): Promise<OpenedManifest> {
    return this.#open(id, options);
  }

  async #open(id: string, { signal }: Waiting, info?: ObjectInfo): Promise<OpenedManifest> {
    assertId(id);
    const { destination, prefix } = this;
    const known = info ? { isEncrypted: info.key.endsWith(".age"), size: info.size } : {};
    return openManifest({ destination, prefix, id, keys: this.#options.keys, ...known, signal });
  }

  async find(choice: SnapshotChoice, options: Waiting): Promise<string> {
    return findSnapshot(await this.list(options), choice);
  }

  async remove(id: string, options: Waiting): Promise<void> {
    for (const name of MANIFEST_NAMES) await this.destination.remove(this.#key(id, name), options);
    const keys: string[] = [];
    for await (const { info } of this.#objects(`${id}/`, options)) keys.push(info.key);
    for (const key of keys) await this.destination.remove(key, options);
  }

  async mark(id: string, marks: Marks, options: Waiting): Promise<void> {
    const bytes = renderMarks({ ...(await this.#readMarks(id, options)), ...marks });
    await this.destination.put(this.#key(id, MARKS_NAME), () => bytesOf(bytes), {
      size: bytes.length,
      signal: options.signal,
    });
  }

  /** Marks that are missing or unreadable are none: they are only ever good news. */
  async #readMarks(id: string, { signal }: Waiting): Promise<Marks> {
    try {
      const key = this.#key(id, MARKS_NAME);
      return parseMarks(await collectBytes(this.destination.get(key, { signal }), MAX_MARKS_BYTES, key));
    } catch (error) {
      if (isDamage(error) || codeOf(error) === "not-found") return {};
      throw error;
    }
  }

  async findGarbage(options: Waiting & { readonly now: Date; readonly leaseMs: number }): Promise<readonly Garbage[]> {
    const folders = new Map<string, { id: string; keys: string[]; bytes: number; newest: number; complete: boolean }>();
    for await (const { id, name, info } of this.#objects("", options)) {
      const folder = folders.get(id) ?? { id, keys: [], bytes: 0, newest: 0, complete: false };
      folders.set(id, folder);
      folder.complete ||= MANIFEST_NAMES.includes(name);
      folder.keys.push(info.key);
      folder.bytes += info.size;
      folder.newest = Math.max(folder.newest, info.modifiedAt.getTime());
    }
    return [...folders.values()]
      .filter(({ complete, newest }) => !complete && newest + options.leaseMs <= options.now.getTime())
      .map(({ id, keys, bytes }) => ({ id, keys, bytes }));
  }

  async removeGarbage(garbage: readonly Garbage[], options: Waiting): Promise<number> {
    let freed = 0;
    for (const { id, keys, bytes } of garbage) {
      // A listing may be older than the truth; a manifest asked for by name is not.
      if (await this.#hasManifest(id, options)) continue;
      for (const key of keys) await this.destination.remove(key, options);
      freed += bytes;
    }
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

function byTime(left: { readonly id: string }, right: { readonly id: string }): number {
  const [a, b] = [parseSnapshotId(left.id), parseSnapshotId(right.id)];
  return a && b ? compareSnapshotIds(a, b) : 0;
}
