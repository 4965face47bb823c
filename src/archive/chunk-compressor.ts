import { hash } from "node:crypto";
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { threadUrl } from "../base/asked-thread.ts";
import { freeBytes } from "../base/free-bytes.ts";
import type { Compression } from "./chunk-codec.ts";
import type { FileSeal } from "./chunk-encryption.ts";
import type { ChunkAnswer, ChunkRequest } from "./chunk-worker.ts";
import { makeChunk } from "./make-chunk.ts";
import { SpareTime } from "./spare-time.ts";

export interface StoredChunk {
  readonly stored: Uint8Array;
  /** Lower-case hex SHA-256 of the stored bytes. */
  readonly sha256: string;
}

/** Chunks below this size are compressed where they are: handing them over would take longer. */
const WORTH_A_THREAD_BYTES = 64 * 1024;
/** A chunk up to this size keeps the caller's thread busy for some ten milliseconds, when the compression is a quick one. */
const MAX_HERE_BYTES = 16 * 1024 * 1024;
const MAX_QUICK_ZSTD_LEVEL = 3;
/** More than there are cores would only take turns. */
const MAX_THREADS = Math.min(4, Math.max(2, availableParallelism()));

const WORKER = threadUrl("chunk-worker", import.meta.url);

/** Bytes that a compressor and encryption add at most to bytes that they cannot make smaller. */
const outputBoundOf = (rawBytes: number) => rawBytes + (rawBytes >> 7) + 4096;

interface Thread {
  readonly worker: Worker;
  output: Buffer;
  settle: PromiseWithResolvers<ChunkAnswer> | undefined;
}

/**
 * Compresses chunks where it is called for as long as that thread has time left, which costs least: it waits for the source then,
 * and finds more to read when it looks again. What is beyond that goes to threads of their own, so that sockets never
 * wait. Node's asynchronous zstd would do so too, but feeds the compressor piece by piece, which takes it a third longer
 * than whole chunks at once.
 *
 * Bytes in a SharedArrayBuffer are read where they are; others are copied to the thread. A thread's output is memory
 * that is used again for the next chunk: nothing of a chunk's size is left to the garbage collector.
 */
export class ChunkCompressor implements AsyncDisposable {
  readonly #compression: Compression;
  readonly #makeSeal: (() => Promise<FileSeal>) | undefined;
  readonly #spareTime: Pick<SpareTime, "hasSome">;
  readonly #idle: Thread[] = [];
  readonly #all = new Set<Thread>();
  readonly #queue: PromiseWithResolvers<Thread>[] = [];

  /** With `makeSeal` each chunk is encrypted too, with a seal of its own. */
  constructor(
    compression: Compression,
    makeSeal?: () => Promise<FileSeal>,
    spareTime: Pick<SpareTime, "hasSome"> = new SpareTime(),
  ) {
    this.#compression = compression;
    this.#makeSeal = makeSeal;
    this.#spareTime = spareTime;
  }

  /**
   * Compresses one chunk and gives what `use` makes of it. `raw` must not change before it resolves; the stored bytes
   * are valid until `use` resolves. May be called concurrently.
   */
  async compress<T>(raw: Uint8Array, use: (chunk: StoredChunk) => Promise<T>): Promise<T> {
    const seal = await this.#makeSeal?.();
    const isTrifle = raw.length < WORTH_A_THREAD_BYTES || (this.#compression.codec === "none" && !seal);
    if (isTrifle || this.#hasTimeFor(raw)) return await this.#compressHere(raw, seal, use);
    const thread = await this.#acquire();
    try {
      const answer = await this.#ask(thread, raw, seal);
      if ("failure" in answer) throw new Error(`cannot compress a chunk: ${answer.failure}`);
      return await use({ stored: thread.output.subarray(0, answer.size), sha256: answer.sha256 });
    } finally {
      this.#release(thread);
    }
  }

  /** Timers, signals and sockets wait meanwhile: what takes long is never done here. */
  #hasTimeFor(raw: Uint8Array): boolean {
    const { codec, level } = this.#compression;
    const isQuick = codec === "none" || (codec === "zstd" && level <= MAX_QUICK_ZSTD_LEVEL);
    return isQuick && raw.length <= MAX_HERE_BYTES && this.#spareTime.hasSome;
  }

  async #compressHere<T>(
    raw: Uint8Array,
    seal: FileSeal | undefined,
    use: (chunk: StoredChunk) => Promise<T>,
  ): Promise<T> {
    const stored = makeChunk(raw, this.#compression, seal);
    try {
      return await use({ stored, sha256: hash("sha256", stored) });
    } finally {
      if (stored.buffer !== raw.buffer) freeBytes(stored);
    }
  }

  async #ask(thread: Thread, raw: Uint8Array, seal: FileSeal | undefined): Promise<ChunkAnswer> {
    const bound = outputBoundOf(raw.length);
    if (thread.output.length < bound) thread.output = Buffer.from(new SharedArrayBuffer(bound));
    const settle = Promise.withResolvers<ChunkAnswer>();
    thread.settle = settle;
    thread.worker.ref();
    const request: ChunkRequest = { raw, compression: this.#compression, seal, output: thread.output };
    thread.worker.postMessage(request);
    try {
      return await settle.promise;
    } finally {
      thread.worker.unref();
    }
  }

  async #acquire(): Promise<Thread> {
    const idle = this.#idle.pop();
    if (idle) return idle;
    if (this.#all.size < MAX_THREADS) return this.#start();
    const turn = Promise.withResolvers<Thread>();
    this.#queue.push(turn);
    return turn.promise;
  }

  #release(thread: Thread): void {
    if (!this.#all.has(thread)) return;
    const next = this.#queue.shift();
    if (next) next.resolve(thread);
    else this.#idle.push(thread);
  }

  #start(): Thread {
    // The command's own flags (an inspector, a profile) are not meant for the threads.
    const worker = new Worker(WORKER, { execArgv: [], name: "rowkeep-compress" });
    const thread: Thread = { worker, output: Buffer.alloc(0), settle: undefined };
    const fail = (error: Error) => {
      this.#all.delete(thread);
      thread.settle?.reject(error);
      for (const turn of this.#queue.splice(0)) turn.reject(error);
    };
    worker.unref();
    worker.on("message", (answer: ChunkAnswer) => thread.settle?.resolve(answer));
    worker.on("error", fail);
    worker.on("exit", () => fail(new Error("the compressing thread ended")));
    this.#all.add(thread);
    return thread;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#all].map(({ worker }) => worker.terminate()));
  }
}
