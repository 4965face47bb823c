import { hash, randomBytes } from "node:crypto";

/**
 * How one row becomes 128 bits. `lookup3` is what PostgreSQL's `hashtextextended` computes: fast, but an implementation
 * detail of the server, so a server is asked first whether it agrees. `sha256` is the same everywhere, and slow there.
 */
export interface RowHash {
  readonly method: "lookup3" | "sha256";
  /** Not 0. Chosen at random for each comparison, so that nobody can prepare rows whose sums are equal. */
  readonly seeds: readonly [bigint, bigint];
  /** Random letters and digits: what `sha256` begins with, and what separates values that may hold anything. */
  readonly salt: string;
  /** Of the text that is hashed, where that is not UTF-8: the own one of both sides. */
  readonly encoding?: string | undefined;
}

/** Makes a hash of its own for one comparison, so that nobody can prepare rows whose hashes are equal. `encoding`: see `RowHash`. */
export function makeRowHash(encoding: string | undefined): RowHash {
  const random = randomBytes(32);
  return {
    ...(encoding === undefined ? {} : { encoding }),
    method: "lookup3",
    seeds: [random.readBigInt64LE(0) | 1n, random.readBigInt64LE(8) | 1n],
    salt: random.subarray(16).toString("hex").slice(0, 24),
  };
}

/** Texts whose hashes tell whether a server computes `lookup3` as it is computed here: every length of a last block. */
export const HASH_PROBES: readonly string[] = [
  ...Array.from({ length: 26 }, (_, length) => "rowkeep probes é 0123456789".slice(0, length)),
  "a value of several blocks that is no longer one that fits into a register",
];

const GOLDEN = 0x9e3779b9 + 3923095;
const HALF = 2 ** 32;

/** Hashes rows one after the other; the result stays in its fields, because four numbers a row would be garbage. */
export class RowHasher {
  /** Upper halves as signed, lower halves as unsigned 32 bits of two 64-bit hashes. */
  firstHigh = 0;
  firstLow = 0;
  secondHigh = 0;
  secondLow = 0;
  readonly #hash: RowHash;
  readonly #salt: Buffer;
  /** The halves of both seeds, since a BigInt a row would cost more than the hash. */
  readonly #seeds: Int32Array;
  #high = 0;
  #low = 0;

  constructor(rowHash: RowHash) {
    this.#hash = rowHash;
    this.#salt = Buffer.from(rowHash.salt);
    if (rowHash.seeds.includes(0n)) throw new RangeError("a seed of 0 means no seed to the server");
    this.#seeds = Int32Array.from(
      rowHash.seeds.flatMap((seed) => [seed >> 32n, seed].map((half) => Number(BigInt.asIntN(32, half)))),
    );
  }

  /** Hashes the first `length` bytes. */
  update(bytes: Buffer, length: number): void {
    if (this.#hash.method === "sha256") {
      const digest = hash("sha256", Buffer.concat([this.#salt, bytes.subarray(0, length)]), "buffer");
      this.firstHigh = digest.readInt32BE(0);
      this.firstLow = digest.readUInt32BE(4);
      this.secondHigh = digest.readInt32BE(8);
      this.secondLow = digest.readUInt32BE(12);
      return;
    }
    this.#lookup3(bytes, length, 0);
    this.firstHigh = this.#high;
    this.firstLow = this.#low;
    this.#lookup3(bytes, length, 2);
    this.secondHigh = this.#high;
    this.secondLow = this.#low;
  }

  /** The first hash of the last row as a signed 64-bit number, as the server prints it. */
  get first(): bigint {
    return BigInt(this.firstHigh) * BigInt(HALF) + BigInt(this.firstLow);
  }

  get second(): bigint {
    return BigInt(this.secondHigh) * BigInt(HALF) + BigInt(this.secondLow);
  }

  /** Bob Jenkins' lookup3 (public domain, https://burtleburtle.net/bob/c/lookup3.c), with a 64-bit seed mixed in first. */
  #lookup3(bytes: Buffer, length: number, seed: number): void {
    let c = (GOLDEN + length) | 0;
    let a = (c + (this.#seeds[seed] as number)) | 0;
    let b = (c + (this.#seeds[seed + 1] as number)) | 0;
    let at = 0;
    for (;;) {
      a = (a - c) ^ ((c << 4) | (c >>> 28));
      c = (c + b) | 0;
      b = (b - a) ^ ((a << 6) | (a >>> 26));
      a = (a + c) | 0;
      c = (c - b) ^ ((b << 8) | (b >>> 24));
      b = (b + a) | 0;
      a = (a - c) ^ ((c << 16) | (c >>> 16));
      c = (c + b) | 0;
      b = (b - a) ^ ((a << 19) | (a >>> 13));
      a = (a + c) | 0;
      c = (c - b) ^ ((b << 4) | (b >>> 28));
      b = (b + a) | 0;
      if (length - at < 12) break;
      a = (a + word(bytes, at)) | 0;
      b = (b + word(bytes, at + 4)) | 0;
      c = (c + word(bytes, at + 8)) | 0;
      at += 12;
    }
    // The lowest byte of the third word is left to the length.
    for (let index = length - at - 1; index >= 0; index -= 1) {
      const byte = bytes[at + index] as number;
      if (index >= 8) c = (c + (byte << (8 * (index - 7)))) | 0;
      else if (index >= 4) b = (b + (byte << (8 * (index - 4)))) | 0;
      else a = (a + (byte << (8 * index))) | 0;
    }
    c = ((c ^ b) - ((b << 14) | (b >>> 18))) | 0;
    a = ((a ^ c) - ((c << 11) | (c >>> 21))) | 0;
    b = ((b ^ a) - ((a << 25) | (a >>> 7))) | 0;
    c = ((c ^ b) - ((b << 16) | (b >>> 16))) | 0;
    a = ((a ^ c) - ((c << 4) | (c >>> 28))) | 0;
    b = ((b ^ a) - ((a << 14) | (a >>> 18))) | 0;
    c = ((c ^ b) - ((b << 24) | (b >>> 8))) | 0;
    this.#high = b;
    this.#low = c >>> 0;
  }
}

function word(bytes: Buffer, at: number): number {
  return (
    (bytes[at] as number) |
    ((bytes[at + 1] as number) << 8) |
    ((bytes[at + 2] as number) << 16) |
    ((bytes[at + 3] as number) << 24)
  );
}
