import { randomBytes } from "node:crypto";
import { formatBytes } from "../base/byte-size.ts";
import { codeOf } from "../base/errors.ts";
import { type Destination, destinationError } from "../destinations/destination.ts";
import { type Check, Checks, warningOf } from "./check.ts";

export interface CheckDestinationOptions {
  /** Folder of the job: the probe lies in it. Left out: at the top. */
  readonly folder?: string | undefined;
  readonly now: () => Date;
  readonly signal: AbortSignal;
}

const PROBE_BYTES = 4096;
const RACERS = 10;
const SKEW_MS = 60_000;
const ANSWER_MS = 60_000;
const TIDY_MS = 20_000;

/** Below it the next snapshot of anything but a small database does not fit. */
const LITTLE_BYTES = 1e9;

/**
 * Tries a destination with small objects: stores, reads, reads a part, lists, stores only when there is none, compares
 * clocks, asks for free space, removes. Ends at the first of the first four that fails. Nothing stays behind.
 */
export async function checkDestination(
  destination: Destination,
  options: CheckDestinationOptions,
): Promise<readonly Check[]> {
  const signal = AbortSignal.any([options.signal, AbortSignal.timeout(ANSWER_MS)]);
  const checks = new Checks(destination.name, options.signal);
  const probe = new Probe(destination, options.folder, signal);
  try {
    const isUsable =
      (await checks.try("write", () => probe.write())) &&
      (await checks.try("read", () => probe.read())) &&
      (await checks.try("ranged read", () => probe.readPart())) &&
      (await checks.try("list", () => probe.list()));
    if (isUsable) {
      await checks.try("conditional write", () => probe.writeTwice());
      await checks.try("racing writes", () => probe.race());
      await checks.try("clock", () => probe.compareClocks(options.now));
    }
    await checks.try("free space", () => freeSpace(destination, signal));
  } finally {
    // Also after an abort: a probe is no backup, and nobody would remove it.
    await checks.try("delete", () => probe.remove(AbortSignal.timeout(TIDY_MS)));
  }
  return checks.list;
}

class Probe {
  readonly #destination: Destination;
  readonly #signal: AbortSignal;
  readonly #key: string;
  readonly #bytes = randomBytes(PROBE_BYTES);
  readonly #written = new Set<string>();

  constructor(destination: Destination, folder: string | undefined, signal: AbortSignal) {
    this.#destination = destination;
    this.#signal = signal;
    const name = `rowkeep-probe-${randomBytes(6).toString("hex")}`;
    this.#key = folder === undefined ? name : `${folder}/${name}`;
  }

  async write(): Promise<string> {
    await this.#put(this.#key, this.#bytes);
    return `${PROBE_BYTES} bytes were stored`;
  }

  async read(): Promise<string> {
    if (!(await this.#get(this.#key)).equals(this.#bytes)) throw this.#untrue("what was stored reads back differently");
    return "they read back the same";
  }

  async readPart(): Promise<string> {
    const range = { start: 1000, end: 1777 };
    const part = await this.#get(this.#key, range);
    if (!part.equals(this.#bytes.subarray(range.start, range.end)))
      throw this.#untrue("a part of an object reads back wrong");
    return "a part of them too";
  }

  async list(): Promise<string> {
    let isListed = false;
    // To its end: a listing that is cut off behind the probe is none to rely on.
    for await (const { key, size } of this.#destination.list(this.#key, { signal: this.#signal })) {
      isListed ||= key === this.#key && size === PROBE_BYTES;
    }
    if (!isListed) throw this.#untrue("it does not list what was stored");
    return "it is listed with its size";
  }

  /** What is there must not be replaced by who creates it a second time. */
  async writeTwice(): Promise<string> {
    try {
      await this.#put(this.#key, randomBytes(PROBE_BYTES), true);
    } catch (error) {
      if (codeOf(error) !== "exists") throw error;
      if (!(await this.#get(this.#key)).equals(this.#bytes))
        throw this.#untrue("a refused object replaced another one");
      return "an object that is there is not replaced by a new one of its name";
    }
    throw this.#untrue("it replaces an object that it was asked not to replace");
  }

  /** Of many who create the same object at once one succeeds, and the object is that one's. */
  async race(): Promise<ReturnType<typeof warningOf> | string> {
    const key = `${this.#key}-race`;
    const bodies = Array.from({ length: RACERS }, () => randomBytes(64));
    const results = await Promise.allSettled(bodies.map((body) => this.#put(key, body, true)));
    this.#signal.throwIfAborted();
    const winners = bodies.filter((_, index) => results[index]?.status === "fulfilled");
    const odd = results.find(
      (one) => one.status === "rejected" && !["exists", "busy"].includes(codeOf(one.reason) ?? ""),
    );
    if (winners.length === 0 && odd?.status === "rejected") throw odd.reason;
    const isKept = winners[0] !== undefined && (await this.#get(key)).equals(winners[0]);
    if (winners.length === 1 && isKept) return `of ${RACERS} who created one object at once one succeeded`;
    return warningOf(
      `of ${RACERS} who created one object at once ${winners.length} were told that they had`,
      "Let only one machine back up to this destination.",
    );
  }

  async compareClocks(now: () => Date): Promise<ReturnType<typeof warningOf> | string> {
    const before = now().getTime();
    await this.#put(this.#key, this.#bytes);
    const after = now().getTime();
    const info = await this.#destination.stat(this.#key, { signal: this.#signal });
    if (!info) throw this.#untrue("an object is gone that was just stored");
    const skew = skewOf(info.modifiedAt.getTime(), before, after);
    if (Math.abs(skew) < SKEW_MS) return "its clock agrees with this machine's";
    const seconds = Math.round(Math.abs(skew) / 1000);
    return warningOf(
      `its clock is ${seconds} s ${skew > 0 ? "ahead of" : "behind"} this machine's`,
      "Let both machines take their time from the network (NTP).",
    );
  }

  async remove(signal: AbortSignal): Promise<string | undefined> {
    for (const key of this.#written) {
      await this.#destination.remove(key, { signal });
      if (await this.#destination.stat(key, { signal })) throw this.#untrue("an object is there that was just removed");
    }
    return this.#written.size === 0 ? undefined : "the probe is gone again";
  }

  async #put(key: string, bytes: Buffer, exclusive = false): Promise<void> {
    // Also what failed may be there.
    this.#written.add(key);
    async function* content() {
      yield bytes;
    }
    await this.#destination.put(key, content, { size: bytes.length, exclusive, signal: this.#signal });
  }

  async #get(key: string, range?: { readonly start: number; readonly end: number }): Promise<Buffer> {
    const parts: Buffer[] = []; // At most PROBE_BYTES, unless the server sends more than it should.
    for await (const part of this.#destination.get(key, { ...(range ? { range } : {}), signal: this.#signal })) {
      parts.push(Buffer.from(part));
    }
    return Buffer.concat(parts);
  }

  #untrue(reason: string): Error {
    return destinationError(`cannot trust ${this.#destination.name}: ${reason}`, "failed");
  }
}

/** How far the other clock is from the time in which something happened here; 0 within it. */
export function skewOf(there: number, before: number, after: number): number {
  if (there < before) return there - before;
  return there > after ? there - after : 0;
}

async function freeSpace(
  destination: Destination,
  signal: AbortSignal,
): Promise<ReturnType<typeof warningOf> | string | undefined> {
  const free = await destination.freeBytes?.({ signal });
  if (free === undefined) return undefined;
  const message = `${formatBytes(free)} are free`;
  return free < LITTLE_BYTES ? warningOf(`only ${message}`, "Make room, or choose another place.") : message;
}
