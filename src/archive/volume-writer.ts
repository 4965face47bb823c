import { isAbort, OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import { openSpool, type Spool, spoolError } from "./spool.ts";
import { openSpoolVolume, type SealedVolume, type SpoolVolume } from "./spool-volume.ts";
import { TAR_BLOCK, tarPaddingOf } from "./tar-entry.ts";
import { type Lane, VolumeFanout } from "./volume-fanout.ts";

/** Where a volume is full, unless the caller says otherwise. */
export const DEFAULT_VOLUME_BYTES = 128 * 1024 * 1024;

export interface VolumeWriterOptions {
  readonly destinations: readonly Destination[];
  /** Key of the snapshot's folder, without a slash at the end. */
  readonly folder: string;
  /** Folder in which the spool's own folder is made. */
  readonly spoolFolder: string;
  /** A volume is sealed before the entry that would make it larger; only a single entry may exceed it. */
  readonly volumeBytes?: number | undefined;
  /** Time of every entry. */
  readonly modifiedAt: Date;
  readonly signal: AbortSignal;
}

export interface Place {
  /** Index of the volume, from 0. */
  readonly volume: number;
  /** Offset of the entry's content in the volume. */
  readonly offset: number;
}

/** Opens the spool and the lanes. Fails with kind `destination` when the spool folder cannot be used. */
export async function openVolumeWriter(options: VolumeWriterOptions): Promise<VolumeWriter> {
  if (options.destinations.length === 0) throw new RangeError("a snapshot needs a destination");
  options.signal.throwIfAborted();
  return new VolumeWriter(options, await openSpool(options.spoolFolder));
}

/**
 * Writes entries into volumes of bounded size and stores each sealed volume at every destination while the next one
 * grows. At most a few volumes lie in the spool: `append` waits when the slowest destination is that far behind.
 */
export class VolumeWriter implements AsyncDisposable {
  readonly fanout: VolumeFanout;
  readonly #options: VolumeWriterOptions;
  readonly #volumeBytes: number;
  readonly #spool: Spool;
  readonly #sealed: SealedVolume[] = [];
  readonly #stores = new Set<Promise<void>>();
  #current: SpoolVolume | undefined;
  #opened = 0;
  #turn: Promise<void> | undefined;

  constructor(options: VolumeWriterOptions, spool: Spool) {
    this.#options = options;
    this.#volumeBytes = options.volumeBytes ?? DEFAULT_VOLUME_BYTES;
    this.#spool = spool;
    this.fanout = new VolumeFanout(options.destinations, options.folder, options.signal);
  }

  /** Appends one entry; `bytes` may be reused when it resolves. May be called concurrently. */
  async append(name: string, bytes: Uint8Array): Promise<Place> {
    const needed = TAR_BLOCK + bytes.length + tarPaddingOf(bytes.length);
    let volume = this.#current;
    while (!volume || (volume.size > 0 && volume.size + needed > this.#volumeBytes)) {
      this.#turn ??= this.#turnOver().finally(() => {
        this.#turn = undefined;
      });
      await this.#turn;
      volume = this.#current;
    }
    this.fanout.signal.throwIfAborted();
    const index = this.#opened - 1;
    const { offset, written } = volume.append(name, bytes);
    try {
      await written;
    } catch (cause) {
      throw this.#fail(spoolError(this.#spool.folder, cause));
    }
    return { volume: index, offset };
  }

  /** Seals the last volume and waits until every destination has everything or dropped out. */
  async finish(): Promise<readonly SealedVolume[]> {
    await this.#turn;
    this.fanout.signal.throwIfAborted();
    const last = this.#current;
    this.#current = undefined;
    if (last) this.#sealAndStore(last);
    await Promise.all(this.#stores);
    this.fanout.signal.throwIfAborted();
    return this.#sealed;
  }

  get lanes(): readonly Lane[] {
    return this.fanout.lanes;
  }

  async #turnOver(): Promise<void> {
    const full = this.#current;
    this.#current = undefined;
    if (full) this.#sealAndStore(full);
    await this.#spool.acquire({ signal: this.fanout.signal });
    const name = `volume-${String(this.#opened + 1).padStart(4, "0")}.tar`;
    try {
      this.#current = await openSpoolVolume({
        folder: this.#spool.folder,
        name,
        modifiedAt: this.#options.modifiedAt,
      });
    } catch (cause) {
      throw this.#fail(spoolError(this.#spool.folder, cause));
    }
    this.#opened++;
  }

  #sealAndStore(volume: SpoolVolume): void {
    const index = this.#opened - 1;
    const done = this.#sealThenStore(volume, index).finally(() => this.#stores.delete(done));
    this.#stores.add(done);
  }

  /** Never rejects: a failure ends the run by the fan-out's signal, which every waiting call sees. */
  async #sealThenStore(volume: SpoolVolume, index: number): Promise<void> {
    try {
      const sealed = await volume.seal();
      this.#sealed[index] = sealed;
      await this.fanout.store(sealed);
      await volume.discard();
      this.#spool.release();
    } catch (cause) {
      this.#fail(isAbort(cause) || cause instanceof OperationalError ? cause : spoolError(this.#spool.folder, cause));
    }
  }

  #fail(error: unknown): unknown {
    this.fanout.stop(error);
    return this.fanout.signal.reason;
  }

  /** Ends every transfer and deletes the spool. What is stored at the destinations stays: see `lanes`. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.fanout.stop(new DOMException("the snapshot is closed", "AbortError"));
    await withinMs(GIVE_UP_MS, Promise.allSettled([this.#turn, ...this.#stores, this.fanout.settle()]));
    await this.#current?.discard();
    await this.#spool[Symbol.asyncDispose]();
  }
}

/** A transfer that ignores its signal for so long is left behind: it must not keep the process from ending. */
const GIVE_UP_MS = 10_000;

async function withinMs(timeoutMs: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, timeoutMs);
  });
  await Promise.race([work, timeout]);
  clearTimeout(timer);
}
