import {
  assertKey,
  type Destination,
  destinationError,
  type DestinationReason,
  type GetOptions,
  type ObjectInfo,
  type OpenBytes,
  type PutOptions,
} from "../../src/destinations/destination.ts";

export type Operation = "put" | "get" | "stat" | "list" | "remove";

/**
 * What goes wrong in one call. `error` comes half-way in a transfer; `stall` says nothing more, `deaf` not even when it is
 * aborted; `short` stores or gives half and calls it done; `flip` changes one bit on the way; `lost` does the work and then
 * answers `unreachable`; `twice` does the work twice; the others are lies of a listing.
 */
export type Fault =
  | { readonly kind: "error"; readonly code: DestinationReason }
  | { readonly kind: "stall" | "deaf" | "short" | "flip" | "lost" | "twice" | "omit" | "duplicate" | "stale" };

export interface Call {
  readonly operation: Operation;
  /** The key, or the prefix of a list. */
  readonly key: string;
}

/** Decides about one call; called once for each, in the order of the calls. */
export type Schedule = (call: Call) => Fault | undefined;

export interface ScriptLine {
  readonly operation: Operation;
  readonly key?: RegExp;
  readonly fault: Fault;
  /** Calls that go well before. */
  readonly after?: number;
  /** How often; default once. */
  readonly times?: number;
}

/** Plays written lines: each fits so many calls; the first line that fits a call decides. */
export function scripted(...lines: readonly ScriptLine[]): Schedule {
  const counts = lines.map(() => 0);
  return ({ operation, key }) => {
    let chosen: Fault | undefined;
    for (const [index, line] of lines.entries()) {
      if (line.operation !== operation || !(line.key ?? /^/).test(key)) continue;
      const count = counts[index] ?? 0;
      counts[index] = count + 1;
      const after = line.after ?? 0;
      if (count >= after && count < after + (line.times ?? 1)) chosen ??= line.fault;
    }
    return chosen;
  };
}

const ERRORS = (["unreachable", "busy", "failed", "denied", "full"] as const).map((code) => ({
  kind: "error" as const,
  code,
}));

const POSSIBLE: Readonly<Record<Operation, readonly Fault["kind"][]>> = {
  put: ["stall", "deaf", "short", "flip", "lost", "twice"],
  get: ["stall", "deaf", "short", "flip", "lost"],
  stat: ["stall", "deaf"],
  list: ["stall", "deaf", "omit", "duplicate", "stale"],
  remove: ["stall", "deaf", "lost", "twice"],
};

/** Draws one of all possible faults with probability `rate` for each call, the same ones for the same seed. */
export function seeded(seed: number, rate: number): Schedule {
  const random = randomOf(seed);
  return ({ operation }) => {
    const lies = POSSIBLE[operation].map((kind) => ({ kind }) as Fault);
    const faults = random() < 0.5 ? lies : ERRORS;
    const fault = faults[Math.floor(random() * faults.length)];
    return random() < rate ? fault : undefined;
  };
}

/** Answers `busy` to `length` calls in a row, again and again after `calm` calls. */
export function storms(calm: number, length: number): Schedule {
  let calls = 0;
  return () => (calls++ % (calm + length) >= calm ? { kind: "error", code: "busy" } : undefined);
}

export interface FaultOptions {
  readonly schedule?: Schedule;
  /** Bytes that may be stored in all; a put beyond is `full`. */
  readonly quotaBytes?: number;
  readonly seed?: number;
}

interface Waiting {
  readonly signal: AbortSignal;
}

/** A destination that goes wrong as planned; everything else is done by a real one. */
export class FaultDestination implements Destination {
  readonly name: string;
  /** Every call, with what went wrong in it. */
  readonly log: (Call & { readonly fault: Fault | undefined })[] = [];
  /** Keys whose stored bytes are not those that were put. */
  readonly damaged = new Set<string>();
  /** Set to undefined, everything goes well from now on. */
  schedule: Schedule | undefined;
  readonly listFolders?: NonNullable<Destination["listFolders"]>;
  readonly removeUnfinished?: NonNullable<Destination["removeUnfinished"]>;
  readonly thaw?: NonNullable<Destination["thaw"]>;
  readonly #inner: Destination;
  readonly #quotaBytes: number;
  readonly #random: () => number;
  readonly #removed = new Map<string, ObjectInfo>();
  #storedBytes = 0;

  constructor(inner: Destination, { schedule, quotaBytes = Number.POSITIVE_INFINITY, seed = 1 }: FaultOptions) {
    this.name = inner.name;
    Object.assign(this, optionalOf(inner));
    const listFolders = inner.listFolders?.bind(inner);
    if (listFolders) {
      this.listFolders = async (folder, options) => {
        await this.#disturb("list", folder, "list", options);
        return listFolders(folder, options);
      };
    }
    this.#inner = inner;
    this.schedule = schedule;
    this.#quotaBytes = quotaBytes;
    this.#random = randomOf(seed);
  }

  async put(key: string, open: OpenBytes, options: PutOptions): Promise<void> {
    const fault = this.#next("put", key);
    const { size = 0 } = options;
    options.signal.throwIfAborted();
    if (this.#storedBytes + size > this.#quotaBytes) throw this.#error("write", key, "full");
    // Linked files would pass by every fault.
    const plain = { ...options, file: undefined };
    switch (fault?.kind) {
      case "error":
        // Who is busy says so at once.
        if (fault.code !== "busy") await this.#readHalf(open, options);
        throw this.#error("write", key, fault.code);
      case "stall":
      case "deaf":
        await this.#readHalf(open, options);
        return await silence(fault.kind === "deaf" ? undefined : options.signal);
      case "short": {
        const half = Math.floor(size / 2);
        await this.#inner.put(key, () => firstOf(open(), half), { ...plain, size: half, sha256: undefined });
        if (half < size) this.damaged.add(key);
        break;
      }
      case "flip": {
        const at = Math.floor(this.#random() * size);
        await this.#inner.put(key, () => flipped(open(), at), { ...plain, sha256: undefined });
        if (size > 0) this.damaged.add(key);
        break;
      }
      case "twice":
        await this.#inner.put(key, open, plain);
        await this.#inner.put(key, open, plain).catch(() => undefined);
        break;
      case "lost":
        await this.#inner.put(key, open, plain);
        this.#storedBytes += size;
        throw this.#error("write", key, "unreachable");
      default:
        await this.#inner.put(key, open, plain);
    }
    this.#storedBytes += size;
  }

  async *get(key: string, options: GetOptions): AsyncIterable<Uint8Array> {
    const fault = this.#next("get", key);
    options.signal.throwIfAborted();
    const info = fault ? await this.#inner.stat(key, options) : undefined;
    const start = options.range?.start ?? 0;
    const length = info ? Math.max(0, (options.range?.end ?? info.size) - start) : 0;
    const half = { ...options, range: { start, end: start + Math.floor(length / 2) } };
    switch (info ? fault?.kind : undefined) {
      case "error":
        yield* this.#inner.get(key, half);
        throw this.#error("read", key, (fault as { code: DestinationReason }).code);
      case "lost":
        yield* this.#inner.get(key, options);
        throw this.#error("read", key, "unreachable");
      case "stall":
      case "deaf":
        yield* this.#inner.get(key, half);
        await silence(fault?.kind === "deaf" ? undefined : options.signal);
        return;
      case "short":
        yield* this.#inner.get(key, half);
        return;
      case "flip":
        yield* flipped(this.#inner.get(key, options), Math.floor(this.#random() * length));
        return;
      default:
        yield* this.#inner.get(key, options);
    }
  }

  async stat(key: string, options: Waiting): Promise<ObjectInfo | undefined> {
    await this.#disturb("stat", key, "look at", options);
    return this.#inner.stat(key, options);
  }

  async *list(prefix: string, options: Waiting): AsyncIterable<ObjectInfo> {
    const fault = this.#next("list", prefix);
    options.signal.throwIfAborted();
    const found = await Array.fromAsync(this.#inner.list(prefix, options)); // a test's own few objects
    const half = Math.ceil(found.length / 2);
    switch (fault?.kind) {
      case "error":
      case "lost":
        yield* found.slice(0, half);
        throw this.#error("list", prefix, fault.kind === "error" ? fault.code : "unreachable");
      case "stall":
      case "deaf":
        yield* found.slice(0, half);
        return await silence(fault.kind === "deaf" ? undefined : options.signal);
      case "omit":
      case "short":
        yield* found.filter(() => this.#random() < 0.5);
        return;
      case "duplicate":
      case "twice":
        yield* found.flatMap((info) => [info, info]);
        return;
      case "stale":
        yield* found;
        yield* [...this.#removed.values()].filter(({ key }) => key.startsWith(prefix));
        return;
      default:
        yield* found;
    }
  }

  async remove(key: string, options: Waiting): Promise<void> {
    const fault = await this.#disturb("remove", key, "remove", options);
    const info = await this.#inner.stat(key, options);
    await this.#inner.remove(key, options);
    if (info) this.#removed.set(key, info);
    this.damaged.delete(key);
    if (fault?.kind === "twice") await this.#inner.remove(key, options);
    if (fault?.kind === "lost") throw this.#error("remove", key, "unreachable");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]();
  }

  #next(operation: Operation, key: string): Fault | undefined {
    if (operation !== "list") assertKey(key);
    const fault = this.schedule?.({ operation, key });
    this.log.push({ operation, key, fault });
    return fault;
  }

  async #disturb(operation: Operation, key: string, verb: string, { signal }: Waiting): Promise<Fault | undefined> {
    const fault = this.#next(operation, key);
    if (fault?.kind === "error") throw this.#error(verb, key, fault.code);
    if (fault?.kind === "stall" || fault?.kind === "deaf") await silence(fault.kind === "deaf" ? undefined : signal);
    return fault;
  }

  /** Takes half of the bytes and stores none of them, as a real destination whose line is cut. */
  async #readHalf(open: OpenBytes, { size = 0, signal }: PutOptions): Promise<void> {
    let seen = 0;
    for await (const part of open()) {
      signal.throwIfAborted();
      seen += part.length;
      if (seen >= size / 2) return;
    }
  }

  #error(verb: string, key: string, code: DestinationReason): Error {
    return destinationError(`cannot ${verb} ${this.name}/${key}: it was made to fail`, code);
  }
}

/** What not every destination can do. */
function optionalOf(inner: Destination): Partial<Destination> {
  return {
    ...(inner.listFolders ? { listFolders: inner.listFolders.bind(inner) } : {}),
    ...(inner.removeUnfinished ? { removeUnfinished: inner.removeUnfinished.bind(inner) } : {}),
    ...(inner.thaw ? { thaw: inner.thaw.bind(inner) } : {}),
  };
}

/** A destination that does some things in another way. */
export function altered(inner: Destination, changes: Partial<Destination>): Destination {
  return {
    name: inner.name,
    put: (key, open, options) => inner.put(key, open, options),
    get: (key, options) => inner.get(key, options),
    stat: (key, options) => inner.stat(key, options),
    list: (prefix, options) => inner.list(prefix, options),
    remove: (key, options) => inner.remove(key, options),
    ...optionalOf(inner),
    [Symbol.asyncDispose]: () => inner[Symbol.asyncDispose]() as Promise<void>,
    ...changes,
  };
}

/** Rejects when the signal is aborted; without one it never settles. */
async function silence(signal: AbortSignal | undefined): Promise<never> {
  return new Promise<never>((_, reject) => {
    if (signal?.aborted) reject(signal.reason);
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

async function* firstOf(bytes: AsyncIterable<Uint8Array>, size: number): AsyncIterable<Uint8Array> {
  let left = size;
  for await (const part of bytes) {
    if (left === 0) return;
    const kept = part.subarray(0, left);
    left -= kept.length;
    yield kept;
  }
}

async function* flipped(bytes: AsyncIterable<Uint8Array>, at: number): AsyncIterable<Uint8Array> {
  let position = 0;
  for await (const part of bytes) {
    const copy = Buffer.from(part);
    const index = at - position;
    if (index >= 0 && index < copy.length) copy[index] = (copy[index] ?? 0) ^ 4;
    position += part.length;
    yield copy;
  }
}

/** A small generator with a seed, because `Math.random` has none (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
