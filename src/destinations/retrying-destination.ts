import { createHash } from "node:crypto";
import { codeOf } from "../base/errors.ts";
import {
  type Destination,
  destinationError,
  type GetOptions,
  type ObjectInfo,
  type OpenBytes,
  type PutOptions,
} from "./destination.ts";
import { ListedKeys } from "./listed-keys.ts";
import {
  Attempts,
  type Circuit,
  knownError,
  type RetryClock,
  type RetryLimits,
  SYSTEM_CLOCK,
} from "./retry-attempts.ts";

/** Keys of one listing that are remembered at most, so that it can be started anew: some 20 MB. */
const REMEMBERED_KEYS = 100_000;
/** A transfer that came so much further since it last failed may fail as often again. */
const PROGRESS_BYTES = 1024 * 1024;

export interface RetryingOptions {
  readonly clock?: RetryClock | undefined;
  /** Keys of one listing that are kept, so that it can be started anew. */
  readonly rememberedKeys?: number | undefined;
}

interface Waiting {
  readonly signal: AbortSignal;
}

/**
 * Tries again what failed as `unreachable`, `busy` or `failed`, within bounds and with growing, random waits.
 *
 * - `put` begins at byte 0 by another `open()`; never again when the source itself failed or gave the wrong size, or, where
 *   nobody knows the size, once it was opened: such a source can be read once.
 *   When a second try of an exclusive put finds the key taken, the stored bytes are read back: they are ours if they are the
 *   same, for then only the acknowledgement of the first try was lost.
 * - `get` goes on at the byte that it reached. It fails when the object has another size by then.
 * - `list` begins anew and leaves out what it gave already; see ListedKeys for its memory.
 * - After the last try the error tells how often and for how long it was tried. When the destination could not be reached
 *   in all tries, everything else is tried once there until it answers again.
 */
export class RetryingDestination implements Destination {
  readonly name: string;
  readonly removeUnfinished?: NonNullable<Destination["removeUnfinished"]>;
  readonly getSmall?: NonNullable<Destination["getSmall"]>;
  readonly listFolders?: NonNullable<Destination["listFolders"]>;
  readonly thaw?: NonNullable<Destination["thaw"]>;
  readonly #inner: Destination;
  readonly #limits: RetryLimits;
  readonly #clock: RetryClock;
  readonly #circuit: Circuit = { isOpen: false };
  readonly #rememberedKeys: number;

  constructor(
    inner: Destination,
    limits: RetryLimits,
    { clock = SYSTEM_CLOCK, rememberedKeys = REMEMBERED_KEYS }: RetryingOptions = {},
  ) {
    this.name = inner.name;
    this.#inner = inner;
    this.#limits = limits;
    this.#clock = clock;
    this.#rememberedKeys = rememberedKeys;
    if (inner.removeUnfinished) {
      this.removeUnfinished = (prefix, options) =>
        this.#retry(
          `tidy up ${this.name}/${prefix}`,
          async () => (await inner.removeUnfinished?.(prefix, options)) ?? 0,
          options,
        );
    }
    const getSmall = inner.getSmall?.bind(inner);
    if (getSmall) {
      this.getSmall = (keys, options) => this.#retry(`read ${this.name}`, () => getSmall(keys, options), options);
    }
    const listFolders = inner.listFolders?.bind(inner);
    if (listFolders) {
      this.listFolders = (folder, options) =>
        this.#retry(`list ${this.name}/${folder}`, () => listFolders(folder, options), options);
    }
    const thaw = inner.thaw?.bind(inner);
    if (thaw) {
      this.thaw = (key, options) => this.#retry(`thaw ${this.name}/${key}`, () => thaw(key, options), options);
    }
  }

  async put(key: string, open: OpenBytes, options: PutOptions): Promise<void> {
    const attempts = this.#attempts();
    let isUncertain = false;
    while (true) {
      const source = new WatchedSource(open, options.size);
      try {
        await this.#inner.put(key, () => source.read(), options);
        attempts.succeed();
        return;
      } catch (error) {
        options.signal.throwIfAborted();
        if (source.isAtFault) throw error;
        let known = knownError(error, `write ${this.name}/${key}`, options.signal);
        if (options.size === undefined && source.isOpened) throw known;
        if (isUncertain && options.exclusive && codeOf(known) === "exists") {
          const stored = await this.#compare(key, open, options);
          if (stored === "same") return;
          // A server that shows its objects late: whether it is ours cannot be told yet.
          if (stored === "missing") known = destinationError(messageOfLate(this.name, key), "busy", { cause: error });
        }
        await attempts.again(known, options);
        isUncertain = true;
      }
    }
  }

  async *get(key: string, options: GetOptions): AsyncIterable<Uint8Array> {
    const { range, signal } = options;
    const attempts = this.#attempts();
    // Without it nobody could tell, after a cut, whether the rest belongs to the same object.
    let size = options.size ?? (range ? undefined : (await this.stat(key, options))?.size);
    let position = range?.start ?? 0;
    let failedAt = position;
    for (let isFirst = true; ; isFirst = false) {
      const end = range?.end ?? size;
      const rest = isFirst || end === undefined ? range : { start: position, end };
      try {
        for await (const part of this.#inner.get(key, { ...options, range: rest })) {
          position += part.length;
          yield part;
        }
        attempts.succeed();
        return;
      } catch (error) {
        const known = knownError(error, `read ${this.name}/${key}`, signal);
        if (position - failedAt >= PROGRESS_BYTES) attempts.progress();
        failedAt = position;
        await attempts.again(known, { signal });
      }
      size = await this.#sizeStill(size, key, options);
    }
  }

  stat(key: string, options: Waiting): Promise<ObjectInfo | undefined> {
    return this.#retry(`look at ${this.name}/${key}`, () => this.#inner.stat(key, options), options);
  }

  async *list(prefix: string, { signal }: Waiting): AsyncIterable<ObjectInfo> {
    const attempts = this.#attempts();
    const keys = new ListedKeys(this.#rememberedKeys);
    const object = `${this.name}/${prefix}`;
    while (true) {
      try {
        for await (const info of this.#inner.list(prefix, { signal })) {
          const isNew = keys.admit(info.key);
          if (isNew === undefined) throw destinationError(`cannot list ${object}: its order changed meanwhile`, "busy");
          if (isNew) yield info;
        }
        attempts.succeed();
        return;
      } catch (error) {
        const known = knownError(error, `list ${object}`, signal);
        if (!keys.canRestart) throw known;
        await attempts.again(known, { signal });
        keys.restart();
      }
    }
  }

  remove(key: string, options: Waiting): Promise<void> {
    return this.#retry(`remove ${this.name}/${key}`, () => this.#inner.remove(key, options), options);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve(this.#inner[Symbol.asyncDispose]());
  }

  #attempts(): Attempts {
    return new Attempts(this.#limits, this.#clock, this.#circuit);
  }

  async #retry<T>(action: string, act: () => Promise<T>, { signal }: Waiting): Promise<T> {
    const attempts = this.#attempts();
    while (true) {
      try {
        const result = await act();
        attempts.succeed();
        return result;
      } catch (error) {
        await attempts.again(knownError(error, action, signal), { signal });
      }
    }
  }

  /** Compares what is stored under a key with the bytes that were to be put there. */
  async #compare(key: string, open: OpenBytes, options: PutOptions): Promise<"same" | "other" | "missing"> {
    const { signal, size } = options;
    const info = await this.stat(key, { signal });
    if (info === undefined) return "missing";
    if (info.size !== size) return "other";
    const stored = await sha256Of(this.get(key, { size, signal }));
    return stored === (options.sha256 ?? (await sha256Of(open()))) ? "same" : "other";
  }

  /** Gives the object's size; fails when it is not the known one any more. */
  async #sizeStill(known: number | undefined, key: string, options: GetOptions): Promise<number> {
    const info = await this.stat(key, options);
    const object = `${this.name}/${key}`;
    if (info === undefined) throw destinationError(`cannot read ${object}: it was removed meanwhile`, "not-found");
    if (known === undefined || info.size === known) return info.size;
    throw destinationError(
      `cannot read ${object}: it had ${known} bytes and has ${info.size} bytes after the connection was cut`,
      "failed",
      { hint: "Check whether something else changes or cuts this object." },
    );
  }
}

/** Tells a source that fails, which no second try mends, from a destination that does. */
class WatchedSource {
  readonly #open: OpenBytes;
  readonly #size: number | undefined;
  isOpened = false;
  isAtFault = false;

  constructor(open: OpenBytes, size: number | undefined) {
    this.#open = open;
    this.#size = size;
  }

  async *read(): AsyncIterable<Uint8Array> {
    let given = 0;
    this.isOpened = true;
    const bytes = this.#open()[Symbol.asyncIterator]();
    let isEnded = false;
    try {
      while (true) {
        const next = await this.#next(bytes);
        if (next.done) break;
        given += next.value.length;
        if (this.#size !== undefined && given > this.#size) this.isAtFault = true;
        yield next.value;
      }
      isEnded = true;
      if (this.#size !== undefined && given !== this.#size) this.isAtFault = true;
    } finally {
      if (!isEnded) await bytes.return?.();
    }
  }

  async #next(bytes: AsyncIterator<Uint8Array>): Promise<IteratorResult<Uint8Array>> {
    try {
      return await bytes.next();
    } catch (error) {
      this.isAtFault = true;
      throw error;
    }
  }
}

async function sha256Of(bytes: AsyncIterable<Uint8Array>): Promise<string> {
  const hash = createHash("sha256");
  for await (const part of bytes) hash.update(part);
  return hash.digest("hex");
}

function messageOfLate(name: string, key: string): string {
  return `cannot write ${name}/${key}: it exists already and cannot be seen yet`;
}
