import { hash } from "node:crypto";
import type { OpenFile } from "../archive/age-keys.ts";
import { archiveError } from "../archive/archive-error.ts";
import { decompressChunk } from "../archive/chunk-codec.ts";
import { TAR_BLOCK } from "../archive/tar-entry.ts";
import { codeOf, isAbort, OperationalError } from "../base/errors.ts";
import { freeBytes } from "../base/free-bytes.ts";
import type { Destination } from "../destinations/destination.ts";
import { readVolumeStates, type VolumeStates, volumesOf } from "./archived-volumes.ts";
import type { ChunkRef, Manifest, SnapshotReference, Volume } from "./manifest.ts";
import { MANIFEST_NAMES } from "./manifest-text.ts";
import { openSnapshotKey } from "./open-manifest.ts";
import { volumeOf } from "./parse-manifest.ts";
import type { KeyRing } from "./snapshot-key.ts";
import type { SnapshotReader } from "./snapshot-reader.ts";

export interface OpenSnapshotReaderOptions {
  /** Where the snapshot is read, the preferred one first; the others are asked when it fails or gives wrong bytes. */
  readonly destinations: readonly Destination[];
  readonly prefix: string;
  readonly manifest: Manifest;
  /** Decrypts the chunks of an encrypted snapshot: see open-manifest.ts. */
  readonly decrypt?: OpenFile | undefined;
  /** Opens the keys of the encrypted snapshots that this one refers to. */
  readonly keys?: KeyRing | undefined;
  readonly signal: AbortSignal;
}

/** Stored bytes that one ranged read fetches at most, unless a single chunk is larger. */
const RUN_BYTES = 8 * 1024 * 1024;

/** Opens the content of a snapshot. Disposal ends every read that is under way. */
export function openSnapshotReader(options: OpenSnapshotReaderOptions): SnapshotReader {
  if (options.destinations.length === 0) throw new RangeError("a snapshot is read from a destination");
  return new RangeReader(options);
}

/** Neighbouring chunks of one volume that are fetched together. */
interface Run {
  /** Index of the reference; undefined: the snapshot itself. */
  readonly snapshot: number | undefined;
  readonly volume: Volume;
  readonly start: number;
  end: number;
  readonly chunks: ChunkRef[];
}

class RangeReader implements SnapshotReader {
  readonly manifest: Manifest;
  readonly #options: OpenSnapshotReaderOptions;
  readonly #closed = new AbortController();
  readonly #referenceKeys = new Map<number, Promise<OpenFile>>();
  readonly #passedOver = new Map<Destination, string>();
  /** They gave no answer once: asked again last, since each try may take a minute. */
  readonly #silent = new Set<Destination>();
  #states: VolumeStates | undefined;

  constructor(options: OpenSnapshotReaderOptions) {
    this.manifest = options.manifest;
    this.#options = options;
  }

  get passedOver(): readonly string[] {
    return [...this.#passedOver.values()];
  }

  async *chunks(refs: readonly ChunkRef[], options: { readonly signal: AbortSignal }): AsyncIterable<Uint8Array> {
    const left = new AbortController();
    const signal = AbortSignal.any([options.signal, this.#options.signal, this.#closed.signal, left.signal]);
    const runs = runsOf(this.manifest, refs);
    let ahead = startFetch(runs.next(), (run) => this.#fetch(run, signal));
    try {
      while (ahead) {
        const { run, bytes } = await ahead;
        ahead = startFetch(runs.next(), (next) => this.#fetch(next, signal));
        for (const chunk of run.chunks) {
          signal.throwIfAborted();
          const at = chunk.offset - run.start;
          const stored = bytes.subarray(at, at + chunk.size);
          const raw = await readChunk(await this.#contentOf(run.snapshot, signal), stored, chunk.rawSize);
          yield raw.buffer === bytes.buffer ? Buffer.from(raw) : raw;
        }
        freeBytes(bytes);
      }
    } finally {
      left.abort(new DOMException("the reader was left", "AbortError"));
      await ahead?.catch(() => {});
    }
  }

  async readStates(refs: Iterable<ChunkRef>, options: { readonly signal: AbortSignal }): Promise<VolumeStates> {
    const signal = AbortSignal.any([options.signal, this.#options.signal, this.#closed.signal]);
    this.#states = await readVolumeStates({ ...this.#options, signal }, volumesOf(this.manifest, refs));
    return this.#states;
  }

  /** Those that are known to have no readable copy of a volume come last, and so do those that do not answer. */
  #placesOf(key: string): readonly Destination[] {
    const closed = this.#states?.closed.get(key);
    const isLast = (one: Destination) => closed?.has(one) === true || this.#silent.has(one);
    const { true: last = [], false: first = [] } = Object.groupBy(
      this.#options.destinations,
      (one) => `${isLast(one)}`,
    );
    return [...first, ...last];
  }

  #keyOf({ snapshot, volume }: Run): string {
    const id = snapshot === undefined ? this.manifest.id : this.manifest.references?.[snapshot]?.id;
    return `${this.#options.prefix}/${id}/${volume.name}`;
  }

  /** How the chunks of this snapshot, or of one that it refers to, are encoded. */
  async #contentOf(index: number | undefined, signal: AbortSignal): Promise<ChunkContent> {
    const { manifest, decrypt } = this.#options;
    const reference = index === undefined ? undefined : manifest.references?.[index];
    if (index === undefined || !reference) return { ...codingOf(manifest), decrypt };
    const { codec, encryption } = reference;
    if (!encryption) return { codec };
    let key = this.#referenceKeys.get(index);
    if (!key) {
      key = this.#openKey(reference.id, signal);
      this.#referenceKeys.set(index, key);
      // Who asks again after a failure tries again: it may have been an abort that concerned others.
      key.catch(() => this.#referenceKeys.delete(index));
    }
    return { codec, encryption, decrypt: await key };
  }

  async #openKey(id: string, signal: AbortSignal): Promise<OpenFile> {
    const { destinations, prefix, keys } = this.#options;
    let first: unknown;
    for (const destination of destinations) {
      try {
        return await openSnapshotKey({ destination, prefix, id, keys, signal });
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof OperationalError) || isAbort(error)) throw error;
        first ??= error;
      }
    }
    throw first;
  }

  /** Fetches a run from the first destination that gives the right bytes. */
  async #fetch(run: Run, signal: AbortSignal): Promise<{ readonly run: Run; readonly bytes: Buffer }> {
    let first: unknown;
    const failed = new Map<Destination, OperationalError>();
    for (const destination of this.#placesOf(this.#keyOf(run))) {
      try {
        const bytes = await this.#fetchFrom(destination, run, signal);
        this.#remember(failed, destination);
        return { run, bytes };
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof OperationalError) || isAbort(error)) throw error;
        failed.set(destination, error);
        first ??= error;
      }
    }
    if (codeOf(first) === "missing-volume" && !(await this.#isThere(run, signal)))
      throw removedMeanwhile(this.#keyOf(run), first);
    throw first;
  }

  #remember(failed: ReadonlyMap<Destination, OperationalError>, good: Destination): void {
    for (const [destination, error] of failed) {
      if (error.kind === "destination") this.#silent.add(destination);
      if (this.#passedOver.has(destination) || codeOf(error) === "archived") continue;
      this.#passedOver.set(destination, `${error.message}; it was read at ${good.name} instead`);
    }
  }

  /** A manifest goes before its volumes: whether it was removed, or lost a volume, is what the manifest tells. */
  async #isThere(run: Run, signal: AbortSignal): Promise<boolean> {
    const folder = this.#keyOf(run).slice(0, -run.volume.name.length);
    for (const destination of this.#options.destinations) {
      for (const name of MANIFEST_NAMES) {
        if (await destination.stat(folder + name, { signal }).catch(() => true)) return true;
      }
    }
    return false;
  }

  async #fetchFrom(destination: Destination, run: Run, signal: AbortSignal): Promise<Buffer> {
    const key = this.#keyOf(run);
    const place = `${destination.name}/${key}`;
    const bytes = await readRange({ destination, key, size: run.volume.size }, run.start, run.end, signal);
    for (const chunk of run.chunks) {
      const at = chunk.offset - run.start;
      if (hash("sha256", bytes.subarray(at, at + chunk.size)) !== chunk.sha256) {
        throw archiveError(
          `cannot read ${place}: the chunk at byte ${chunk.offset} is damaged (its SHA-256 is not the one recorded)`,
          "hash-mismatch",
          { hint: "Restore from another destination, or from another snapshot." },
        );
      }
    }
    return bytes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort(new DOMException("the snapshot reader is closed", "AbortError"));
  }
}

function removedMeanwhile(key: string, cause: unknown): OperationalError {
  const id = key.split("/").at(-2);
  return archiveError(`cannot read ${key}: ${id} was removed while it was read`, "removed", {
    hint: "A prune on another machine removed it: take another snapshot, and pin what must stay (rowkeep pin).",
    cause,
  });
}

/** Gives the raw bytes of a chunk that lies in memory as it is stored; with codec `none` these are the same. */
export async function readChunk(
  { codec, encryption, decrypt }: ChunkContent,
  stored: Uint8Array,
  rawSize: number,
): Promise<Buffer> {
  if (encryption !== undefined && !decrypt) throw new RangeError("an encrypted snapshot is read with its key");
  if (!decrypt) return decompressChunk(stored, rawSize, codec);
  const opened = await openChunk(stored, decrypt);
  const raw = decompressChunk(opened, rawSize, codec);
  if (raw.buffer !== opened.buffer) freeBytes(opened);
  return raw;
}

/** How the chunks of one snapshot are encoded. */
export interface ChunkContent extends Pick<SnapshotReference, "codec" | "encryption"> {
  readonly decrypt?: OpenFile | undefined;
}

/** Gives the coding of a snapshot's own chunks. */
export function codingOf({ compression, encryption }: Manifest): Omit<ChunkContent, "decrypt"> {
  return { codec: compression.codec, encryption };
}

/** The manifest was opened with this key, so a chunk that it does not open is another one, not one of another key. */
async function openChunk(stored: Uint8Array, decrypt: OpenFile): Promise<Uint8Array> {
  try {
    return await decrypt(stored);
  } catch (cause) {
    if (codeOf(cause) !== "wrong-key") throw cause;
    throw archiveError("cannot decrypt a chunk: it is not one of this snapshot, or its header is damaged", "damaged");
  }
}

type Fetched = Promise<{ readonly run: Run; readonly bytes: Buffer }>;

function startFetch(next: IteratorResult<Run, void>, fetch: (run: Run) => Fetched): Fetched | undefined {
  if (next.done) return undefined;
  const fetched = fetch(next.value);
  // It is awaited later: until then a failure must not count as one that nobody handles.
  fetched.catch(() => {});
  return fetched;
}

/** Joins chunks that lie one behind the other in a volume, with no more than their tar headers between them. */
function* runsOf(manifest: Manifest, refs: Iterable<ChunkRef>): Generator<Run, void> {
  let run: Run | undefined;
  for (const chunk of refs) {
    const volume = volumeOf(manifest, chunk);
    if (volume === undefined) throw new RangeError("the chunk is not one of this snapshot");
    const end = chunk.offset + chunk.size;
    const gap = run ? chunk.offset - run.end : 0;
    if (run && run.volume === volume && gap >= 0 && gap < 2 * TAR_BLOCK && end - run.start <= RUN_BYTES) {
      run.end = end;
      run.chunks.push(chunk);
      continue;
    }
    if (run) yield run;
    run = { snapshot: chunk.snapshot, volume, start: chunk.offset, end, chunks: [chunk] };
  }
  if (run) yield run;
}

export interface StoredObject {
  readonly destination: Destination;
  readonly key: string;
  /** The size that the object must have. */
  readonly size: number;
}

/**
 * Reads bytes `start` to `end` of a stored object, exactly so many. Fails with kind `archive`: `missing-volume`,
 * `truncated` when the object is not as large as it must be; or `destination`.
 */
export async function readRange(
  object: StoredObject,
  start: number,
  end: number,
  signal: AbortSignal,
): Promise<Buffer> {
  const bytes = Buffer.allocUnsafeSlow(end - start);
  if (bytes.length === 0) return bytes;
  let filled = 0;
  try {
    const how = { range: { start, end }, size: object.size, reuse: true, signal };
    for await (const part of object.destination.get(object.key, how)) {
      if (filled + part.length > bytes.length) throw await explain(object, signal, undefined);
      bytes.set(part, filled);
      filled += part.length;
    }
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof OperationalError) || error.kind === "archive") throw error;
    throw await explain(object, signal, error);
  }
  if (filled < bytes.length) throw await explain(object, signal, undefined);
  return bytes;
}

/** Tells a volume that is missing or has another size from a destination that does not work. */
async function explain(object: StoredObject, signal: AbortSignal, cause: OperationalError | undefined): Promise<Error> {
  const place = `${object.destination.name}/${object.key}`;
  const hint = "Restore from another destination, or from another snapshot.";
  if (codeOf(cause) === "not-found")
    return archiveError(`cannot read ${place}: it is missing`, "missing-volume", { hint });
  let size: number | undefined = object.size;
  try {
    size = (await object.destination.stat(object.key, { signal }))?.size;
  } catch {
    signal.throwIfAborted();
  }
  if (size === undefined) return archiveError(`cannot read ${place}: it is missing`, "missing-volume", { hint });
  if (size !== object.size) {
    return archiveError(`cannot read ${place}: it has ${size} bytes, not ${object.size}`, "truncated", { hint, cause });
  }
  return cause ?? archiveError(`cannot read ${place}: it gave another number of bytes`, "truncated", { hint });
}
