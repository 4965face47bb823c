import type { OperationalError } from "../base/errors.ts";
import {
  type Destination,
  destinationError,
  type GetOptions,
  type ObjectInfo,
  type OpenBytes,
  type PutOptions,
} from "./destination.ts";
import { slicesOf } from "./throttled-destination.ts";

export interface WatchdogLimits {
  /** A transfer may move no byte for so long while it is the destination's turn. */
  readonly stallMs: number;
  /** Everything that moves no bytes must be answered within: the begin and the end of a put, a stat, each step of a list. */
  readonly answerMs: number;
  /** How long a put that was given up may take to remove what it left. */
  readonly graceMs: number;
}

interface Waiting {
  readonly signal: AbortSignal;
}

/** What a put must move within `stallMs`, unless its line is known to be slower. */
const SLICE_BYTES = 1024 * 1024;

/**
 * Gives up what stands still and reports it as `unreachable`, whether the destination heeds its signal or not.
 * The clock stands while the consumer of a get or a list, or the source of a put, takes its time.
 */
export class WatchdogDestination implements Destination {
  readonly name: string;
  readonly removeUnfinished?: NonNullable<Destination["removeUnfinished"]>;
  readonly getSmall?: NonNullable<Destination["getSmall"]>;
  readonly listFolders?: NonNullable<Destination["listFolders"]>;
  readonly thaw?: NonNullable<Destination["thaw"]>;
  readonly #inner: Destination;
  readonly #limits: WatchdogLimits;
  readonly #sliceBytes: number;

  constructor(inner: Destination, limits: WatchdogLimits, sliceBytes = SLICE_BYTES) {
    this.name = inner.name;
    this.#inner = inner;
    this.#limits = limits;
    this.#sliceBytes = sliceBytes;
    if (inner.removeUnfinished) {
      this.removeUnfinished = (prefix, options) =>
        this.#answer(
          `tidy up ${this.name}/${prefix}`,
          async (signal) => (await inner.removeUnfinished?.(prefix, { ...options, signal })) ?? 0,
          options,
        );
    }
    const getSmall = inner.getSmall?.bind(inner);
    if (getSmall) {
      this.getSmall = (keys, options) =>
        this.#answer(`read ${this.name}`, (signal) => getSmall(keys, { ...options, signal }), options);
    }
    const listFolders = inner.listFolders?.bind(inner);
    if (listFolders) {
      this.listFolders = (folder, options) =>
        this.#answer(`list ${this.name}/${folder}`, (signal) => listFolders(folder, { signal }), options);
    }
    const thaw = inner.thaw?.bind(inner);
    if (thaw) {
      this.thaw = (key, options) =>
        this.#answer(`thaw ${this.name}/${key}`, (signal) => thaw(key, { ...options, signal }), options);
    }
  }

  async put(key: string, open: OpenBytes, options: PutOptions): Promise<void> {
    const { stallMs, answerMs, graceMs } = this.#limits;
    const sliceBytes = this.#sliceBytes;
    options.signal.throwIfAborted();
    using watch = new Watch(`write ${this.name}/${key}`, options.signal);
    let isRead = false;
    async function* watched() {
      watch.stop();
      for await (const part of open()) {
        for (const slice of slicesOf(part, sliceBytes)) {
          watch.start(stallMs);
          yield slice;
          watch.stop();
        }
      }
      isRead = true;
      watch.start(answerMs);
    }
    watch.start(answerMs);
    const onMoved = () => watch.start(isRead ? answerMs : stallMs);
    const work = this.#inner.put(key, watched, { ...options, onMoved, signal: watch.signal });
    try {
      await watch.settle(work);
    } catch (error) {
      if (!watch.signal.aborted) throw error;
      const isStored = await endsWell(work, graceMs);
      options.signal.throwIfAborted();
      if (!isStored) throw watch.signal.reason;
    }
  }

  async *get(key: string, options: GetOptions): AsyncIterable<Uint8Array> {
    yield* watchEach(
      { action: `read ${this.name}/${key}`, stepMs: this.#limits.stallMs, signal: options.signal },
      (signal) => this.#inner.get(key, { ...options, signal }),
    );
  }

  stat(key: string, options: Waiting): Promise<ObjectInfo | undefined> {
    return this.#answer(`look at ${this.name}/${key}`, (signal) => this.#inner.stat(key, { signal }), options);
  }

  async *list(prefix: string, { signal }: Waiting): AsyncIterable<ObjectInfo> {
    yield* watchEach({ action: `list ${this.name}/${prefix}`, stepMs: this.#limits.answerMs, signal }, (watched) =>
      this.#inner.list(prefix, { signal: watched }),
    );
  }

  remove(key: string, options: Waiting): Promise<void> {
    return this.#answer(`remove ${this.name}/${key}`, (signal) => this.#inner.remove(key, { signal }), options);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve(this.#inner[Symbol.asyncDispose]());
  }

  async #answer<T>(action: string, ask: (signal: AbortSignal) => Promise<T>, options: Waiting): Promise<T> {
    options.signal.throwIfAborted();
    using watch = new Watch(action, options.signal);
    watch.start(this.#limits.answerMs);
    try {
      return await watch.settle(ask(watch.signal));
    } catch (error) {
      throw watch.explain(error);
    }
  }
}

interface Steps extends Waiting {
  readonly action: string;
  readonly stepMs: number;
}

/** Passes items on; each must come within `stepMs` of being asked for. */
async function* watchEach<T>(steps: Steps, begin: (signal: AbortSignal) => AsyncIterable<T>): AsyncIterable<T> {
  steps.signal.throwIfAborted();
  using watch = new Watch(steps.action, steps.signal);
  const items = begin(watch.signal)[Symbol.asyncIterator]();
  let isEnded = false;
  try {
    while (true) {
      watch.start(steps.stepMs);
      const next = await watch.settle(items.next());
      watch.stop();
      isEnded = next.done === true;
      if (next.done) return;
      yield next.value;
    }
  } catch (error) {
    throw watch.explain(error);
  } finally {
    if (!isEnded) {
      // What is stuck is told to stop, not waited for.
      watch.start(steps.stepMs);
      const stopped = Promise.resolve(items.return?.()).catch(() => undefined);
      await watch.settle(stopped).catch(() => undefined);
    }
  }
}

/**
 * A clock that can stand, and a signal that is aborted when it ran out or when the caller's is. A list takes a step for each
 * of a hundred thousand objects, so a step makes neither a timer nor a listener of its own.
 */
class Watch {
  readonly signal: AbortSignal;
  readonly #action: string;
  readonly #caller: AbortSignal;
  readonly #stalled = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #timeoutMs = 0;
  #isRunning = false;
  #giveUp: ((reason: unknown) => void) | undefined;
  readonly #onAbort = () => this.#giveUp?.(this.signal.reason);

  constructor(action: string, caller: AbortSignal) {
    this.#action = action;
    this.#caller = caller;
    this.signal = AbortSignal.any([caller, this.#stalled.signal]);
    this.signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  start(timeoutMs: number): void {
    this.#isRunning = true;
    if (this.#timer && timeoutMs === this.#timeoutMs) {
      this.#timer.ref().refresh();
      return;
    }
    clearTimeout(this.#timer);
    this.#timeoutMs = timeoutMs;
    this.#timer = setTimeout(() => {
      if (this.#isRunning) this.#stalled.abort(stalled(this.#action, timeoutMs));
    }, timeoutMs);
  }

  stop(): void {
    this.#isRunning = false;
    this.#timer?.unref();
  }

  /** Settles like `step`, or rejects once the signal is aborted. One step at a time. */
  settle<T>(step: Promise<T>): Promise<T> {
    if (this.signal.aborted) {
      step.catch(() => undefined);
      return Promise.reject(this.signal.reason);
    }
    return new Promise((resolve, reject) => {
      this.#giveUp = reject;
      step.then(resolve, reject);
    });
  }

  /** Gives what to report instead of an error that only says that the signal was heeded. */
  explain(error: unknown): unknown {
    if (this.#caller.aborted) return this.#caller.reason;
    return this.#stalled.signal.aborted ? this.#stalled.signal.reason : error;
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#isRunning = false;
    this.signal.removeEventListener("abort", this.#onAbort);
  }
}

function stalled(action: string, timeoutMs: number): OperationalError {
  const span = timeoutMs < 1000 ? `${timeoutMs} ms` : `${Math.round(timeoutMs / 1000)} s`;
  return destinationError(`cannot ${action}: nothing moved for ${span}`, "unreachable", {
    hint: "Check the network and whether the server still answers.",
  });
}

/** Waits for work that was told to stop, but not for ever. Tells whether it succeeded all the same. */
async function endsWell(work: Promise<unknown>, graceMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const patience = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), graceMs);
  });
  const outcome = work.then(
    () => true,
    () => false,
  );
  try {
    return await Promise.race([outcome, patience]);
  } finally {
    clearTimeout(timer);
  }
}
