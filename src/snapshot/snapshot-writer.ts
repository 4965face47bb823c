import { hash } from "node:crypto";
import { keyIdOf } from "../archive/age-keys.ts";
import { archiveError } from "../archive/archive-error.ts";
import { type Compression, MAX_CHUNK_BYTES } from "../archive/chunk-codec.ts";
import { ChunkCompressor } from "../archive/chunk-compressor.ts";
import { type ChunkEntry, entryNameOf, extensionOf } from "../archive/entry-name.ts";
import type { Lane } from "../archive/volume-fanout.ts";
import { openVolumeWriter, type VolumeWriter } from "../archive/volume-writer.ts";
import { codeOf, type OperationalError } from "../base/errors.ts";
import { type Destination, destinationError } from "../destinations/destination.ts";
import { ENVELOPE_NAME, type Envelope, renderEnvelope } from "./envelope-text.ts";
import { findLostReference } from "./find-missing-reference.ts";
import type { ChunkRef, Manifest, Volume } from "./manifest.ts";
import { ENCRYPTED_MANIFEST_NAME, MANIFEST_NAME, renderManifest } from "./manifest-text.ts";
import { parseManifest } from "./parse-manifest.ts";
import { bytesOf, collectBytes } from "./object-bytes.ts";
import { retentionFactsOf } from "./retention-facts.ts";
import { KEY_NAME, type SnapshotKey } from "./snapshot-key.ts";

export interface SnapshotWriterOptions {
  readonly destinations: readonly Destination[];
  /** `<job>/<database>`, as keys allow it. */
  readonly prefix: string;
  /** See snapshot-id.ts. */
  readonly id: string;
  readonly compression: Compression;
  /** Encrypts chunks, texts and the manifest; undefined: nothing is encrypted. */
  readonly key?: SnapshotKey | undefined;
  /** The instant of the snapshot: the time of every tar entry. */
  readonly createdAt: Date;
  /** Folder on a local disk in which the spool makes a folder of its own. */
  readonly spoolFolder: string;
  readonly volumeBytes?: number | undefined;
  readonly signal: AbortSignal;
}

/** What became of the snapshot at one destination. */
export interface DestinationFate {
  readonly name: string;
  readonly status: "stored" | "failed";
  readonly error?: OperationalError | undefined;
}

/**
 * Writes one snapshot to several destinations. It exists from the moment `commit` stored its manifest; disposed before
 * that, it leaves nothing behind at the destinations that answer, and nothing in the spool ever.
 */
export interface SnapshotWriter extends AsyncDisposable {
  /**
   * Compresses and appends one chunk; the entry's name gets the codec's extension. May be called concurrently; `raw` may
   * be reused when it resolves. Waits while the spool is full. Fails with kind `destination` when the spool cannot be written or every destination failed.
   */
  addChunk(entry: ChunkEntry | string, raw: Uint8Array, rows: number): Promise<ChunkRef>;
  /**
   * Appends bytes for people as they are: `RECOVER.md`, `schema.sql`. The first ones lie in the first volume. In an encrypted
   * snapshot they are encrypted, all but `RECOVER.md`.
   */
  addPlain(entry: string, bytes: Uint8Array): Promise<void>;
  /** How the destinations do so far: one that failed gets nothing more. */
  readonly fates: readonly DestinationFate[];
  /**
   * Stores everything, then the manifest, reads it back at each destination and compares. Resolves when at least one
   * destination has the snapshot; otherwise fails with kind `destination`, or with code `missing-reference` when an earlier
   * snapshot that it needs was removed meanwhile.
   */
  commit(build: (volumes: readonly Volume[]) => Manifest): Promise<Committed>;
}

export interface Committed {
  readonly manifest: Manifest;
  /** SHA-256 of the envelope of an encrypted snapshot. */
  readonly envelopeSha256?: string | undefined;
  readonly destinations: readonly DestinationFate[];
}

export async function openSnapshotWriter(options: SnapshotWriterOptions): Promise<SnapshotWriter> {
  const folder = `${options.prefix}/${options.id}`;
  await using opened = new AsyncDisposableStack();
  const writing = await openVolumeWriter({
    destinations: options.destinations,
    folder,
    spoolFolder: options.spoolFolder,
    volumeBytes: options.volumeBytes,
    modifiedAt: options.createdAt,
    signal: options.signal,
  });
  const volumes = opened.use(writing);
  // A second copy: without this small file the whole snapshot would be lost.
  if (options.key) await volumes.append(KEY_NAME, options.key.file);
  opened.move();
  return new VolumeSnapshotWriter(volumes, folder, options);
}

class VolumeSnapshotWriter implements SnapshotWriter {
  readonly #volumes: VolumeWriter;
  readonly #folder: string;
  readonly #id: string;
  readonly #compression: Compression;
  readonly #key: SnapshotKey | undefined;
  readonly #compressor: ChunkCompressor;
  /** Where the manifest may be, or may still come to be, although it was not acknowledged. */
  readonly #unsettled = new Set<Destination>();
  #committed = false;

  constructor(volumes: VolumeWriter, folder: string, { id, compression, key }: SnapshotWriterOptions) {
    this.#volumes = volumes;
    this.#folder = folder;
    this.#id = id;
    this.#compression = compression;
    this.#key = key;
    this.#compressor = new ChunkCompressor(compression, key?.makeSeal);
  }

  get fates(): readonly DestinationFate[] {
    return this.#volumes.lanes.map(({ destination, error }) =>
      error ? { name: destination.name, status: "failed", error } : { name: destination.name, status: "stored" },
    );
  }

  async addChunk(entry: ChunkEntry | string, raw: Uint8Array, rows: number): Promise<ChunkRef> {
    if (raw.length > MAX_CHUNK_BYTES) throw new RangeError(`a chunk of ${raw.length} bytes is beyond the format`);
    const rawSize = raw.length;
    const name = this.#entryName(entry);
    return this.#compressor.compress(raw, async ({ stored, sha256 }) => {
      const { volume, offset } = await this.#volumes.append(name, stored);
      return { volume, offset, size: stored.length, sha256, rawSize, rows };
    });
  }

  async addPlain(entry: string, bytes: Uint8Array): Promise<void> {
    if (!this.#key || entry === "RECOVER.md") await this.#volumes.append(entry, bytes);
    else await this.#volumes.append(`${entry}.age`, await this.#key.encrypt(bytes));
  }

  /** Names in an encrypted snapshot tell nothing of tables: tar headers are never encrypted. */
  #entryName(entry: ChunkEntry | string): string {
    const hidden = this.#key && typeof entry !== "string" && entry.group > 0 ? { ...entry, label: "table" } : entry;
    const plain = (typeof hidden === "string" ? hidden : entryNameOf(hidden)) + extensionOf(this.#compression.codec);
    return this.#key ? `${plain}.age` : plain;
  }

  async commit(build: (volumes: readonly Volume[]) => Manifest): Promise<Committed> {
    const sealed = await this.#volumes.finish();
    const volumes = sealed.map(({ name, size, sha256 }) => ({ name, size, sha256 }));
    const manifest = { ...build(volumes), ...(this.#key ? { encryption: { format: "age" } as const } : {}) };
    const bytes = renderManifest(manifest);
    // What no reader would accept must not be called a backup.
    parseManifest(bytes, `${this.#folder}/${MANIFEST_NAME}`);
    await this.#assertReferences(manifest);
    const envelopeSha256 = this.#key && (await this.#storeEncrypted(this.#key, bytes, manifest));
    if (!this.#key) await this.#store(MANIFEST_NAME, bytes);
    // Again: from now on who removes them sees that they are needed. See removal-mark.ts.
    await this.#assertReferences(manifest);
    this.#volumes.fanout.signal.throwIfAborted();
    this.#committed = true;
    return { manifest, destinations: this.fates, envelopeSha256 };
  }

  /** Another machine may remove what this snapshot refers to while it is made: there it does not come into being. */
  async #assertReferences({ references = [] }: Manifest): Promise<void> {
    const prefix = this.#folder.slice(0, -this.#id.length - 1);
    if (references.length === 0) return;
    await this.#volumes.fanout.check(async (destination, signal) => {
      const problem = await findLostReference({ destination, prefix, references, signal });
      if (problem === undefined) return;
      throw archiveError(`cannot store ${destination.name}/${this.#folder}: ${problem}`, "missing-reference", {
        hint: "Make a full snapshot, and prune on one machine only while another one makes incrementals.",
      });
    });
  }

  /** The manifest last: without it the rest is garbage. Gives the SHA-256 of the envelope. */
  async #storeEncrypted(key: SnapshotKey, bytes: Buffer, manifest: Manifest): Promise<string> {
    const encrypted = await key.encrypt(bytes);
    const whole = (bytes: Buffer) => ({ size: bytes.length, sha256: hash("sha256", bytes) });
    const envelope: Envelope = {
      format: "rowkeep-envelope",
      version: 1,
      id: this.#id,
      keyIds: "recipients" in key.lock ? key.lock.recipients.map(keyIdOf) : [],
      passphrase: "passphrase" in key.lock,
      key: whole(key.file),
      manifest: whole(encrypted),
      volumes: manifest.volumes,
      retention: retentionFactsOf(manifest),
    };
    const sealed = renderEnvelope(envelope);
    await this.#store(KEY_NAME, key.file);
    await this.#store(ENVELOPE_NAME, sealed);
    await this.#store(ENCRYPTED_MANIFEST_NAME, encrypted);
    return hash("sha256", sealed);
  }

  async #store(name: string, bytes: Buffer): Promise<void> {
    const key = `${this.#folder}/${name}`;
    await this.#volumes.fanout.each(key, async ({ destination }, signal) => {
      await this.#put(destination, key, bytes, signal);
      await assertReadsBack(destination, key, bytes, signal);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#compressor[Symbol.asyncDispose]();
    await this.#volumes[Symbol.asyncDispose]();
    const abandoned = this.#volumes.lanes.filter((lane) => !this.#committed || lane.error);
    await Promise.all(abandoned.map((lane) => this.#removeFrom(lane)));
  }

  async #put(destination: Destination, key: string, bytes: Buffer, signal: AbortSignal): Promise<void> {
    if (isManifest(key)) this.#unsettled.add(destination);
    try {
      await destination.put(key, () => bytesOf(bytes), {
        size: bytes.length,
        sha256: hash("sha256", bytes),
        exclusive: true,
        signal,
      });
      this.#unsettled.delete(destination);
    } catch (error) {
      if (REFUSED.has(codeOf(error) ?? "")) this.#unsettled.delete(destination);
      throw error;
    }
  }

  /**
   * Removes what was stored, as far as possible: the rest is garbage, which no command uses and a later run removes. The
   * manifest goes first. Where it cannot be removed, or may still arrive, the volumes stay: never a snapshot with holes.
   * Where nothing is known to be ours, what is there may be of a machine that took the same id.
   */
  async #removeFrom({ destination, keys, isOwned }: Lane): Promise<void> {
    if (!isOwned) return;
    const signal = AbortSignal.timeout(CLEAN_UP_MS);
    const manifest = keys.find(isManifest);
    if (manifest !== undefined && !(await tryRemove(destination, manifest, signal))) return;
    if (this.#unsettled.has(destination)) return;
    for (const key of keys.toReversed()) if (key !== manifest) await tryRemove(destination, key, signal);
  }
}

function isManifest(key: string): boolean {
  return key.endsWith(`/${MANIFEST_NAME}`) || key.endsWith(`/${ENCRYPTED_MANIFEST_NAME}`);
}

/** With these answers to a put nothing was stored, and nothing will be. */
const REFUSED: ReadonlySet<string> = new Set(["denied", "full", "unsupported", "invalid-key", "not-found"]);

async function assertReadsBack(
  destination: Destination,
  key: string,
  bytes: Buffer,
  signal: AbortSignal,
): Promise<void> {
  const size = bytes.length;
  const back = await collectBytes(destination.get(key, { size, signal }), size, `${destination.name}/${key}`);
  if (!back.equals(bytes)) {
    throw destinationError(`cannot store ${destination.name}/${key}: it reads back differently`, "failed", {
      hint: "Check the disk or the service of this destination; nothing there can be trusted.",
    });
  }
}

async function tryRemove(destination: Destination, key: string, signal: AbortSignal): Promise<boolean> {
  try {
    await destination.remove(key, { signal });
    return true;
  } catch {
    return false;
  }
}

const CLEAN_UP_MS = 10_000;
