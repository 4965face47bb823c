import { createHash, hash, type Hash } from "node:crypto";
import type { RowFormat } from "../drivers/driver.ts";

const NEWLINE = 0x0a;
const LANES = 8;

/** Takes the bytes of one COPY stream, cut anywhere. */
export interface RowSink {
  push(bytes: Uint8Array): void;
  /** Fails with a RangeError when the stream does not end where a row ends. */
  end(): void;
}

/**
 * What a table holds, whatever the order of its rows: their number and the sum of their SHA-256 hashes, as a vector of
 * eight 32-bit numbers each modulo 2^32. Two tables have the same digest when they hold the same rows equally often; that two
 * others have it by accident is out of the question (2^-256). It is no proof against somebody who may choose rows.
 */
export class RowDigest {
  #rows = 0;
  readonly #sums = new Uint32Array(LANES);

  get rows(): number {
    return this.#rows;
  }

  /** Opens a stream of rows as COPY gives them; in binary with the header and trailer of its own. */
  open(format: RowFormat): RowSink {
    const add = (digest: Buffer) => this.#add(digest);
    return format === "text" ? new TextSink(add) : new BinarySink(add);
  }

  equals(other: RowDigest): boolean {
    return this.#rows === other.#rows && this.#sums.every((sum, lane) => sum === other.#sums[lane]);
  }

  #add(digest: Buffer): void {
    this.#rows += 1;
    for (let lane = 0; lane < LANES; lane += 1) {
      this.#sums[lane] = (this.#sums[lane] ?? 0) + digest.readUInt32LE(lane * 4);
    }
  }
}

type Add = (digest: Buffer) => void;

/** COPY text: a newline ends a row and stands nowhere else. */
class TextSink implements RowSink {
  readonly #add: Add;
  /** A row whose end is still to come. */
  #open: Hash | undefined;

  constructor(add: Add) {
    this.#add = add;
  }

  push(bytes: Uint8Array): void {
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let at = 0;
    for (let end = buffer.indexOf(NEWLINE); end >= 0; end = buffer.indexOf(NEWLINE, at)) {
      const row = buffer.subarray(at, end);
      this.#add(this.#open ? this.#open.update(row).digest() : hash("sha256", row, "buffer"));
      this.#open = undefined;
      at = end + 1;
    }
    if (at === buffer.length) return;
    this.#open ??= createHash("sha256");
    this.#open.update(buffer.subarray(at));
  }

  end(): void {
    if (this.#open) throw new RangeError("a stream of rows ends inside a row");
  }
}

/** Signature, flags and the length of the extension (https://www.postgresql.org/docs/current/sql-copy.html). */
const SIGNATURE_AND_FLAGS_BYTES = 11 + 4;

/** COPY binary: the number of fields, then each field behind its length; -1 fields end the stream. */
class BinarySink implements RowSink {
  readonly #add: Add;
  #state: "start" | "extension" | "fields" | "length" | "end" = "start";
  /** Bytes to pass over, which are hashed when they belong to a row. */
  #left = SIGNATURE_AND_FLAGS_BYTES;
  #fieldsLeft = 0;
  #row: Hash | undefined;
  /** Bytes of a number that is not complete. */
  #number = Buffer.alloc(0);

  constructor(add: Add) {
    this.#add = add;
  }

  push(bytes: Uint8Array): void {
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let at = 0;
    while (at < buffer.length && this.#state !== "end") {
      if (this.#left > 0) {
        const part = buffer.subarray(at, at + this.#left);
        this.#row?.update(part);
        this.#left -= part.length;
        at += part.length;
        this.#finishRow();
        continue;
      }
      if (this.#state === "start") this.#state = "extension";
      const size = this.#state === "fields" ? 2 : 4;
      const part = buffer.subarray(at, at + size - this.#number.length);
      at += part.length;
      this.#number = Buffer.concat([this.#number, part]);
      if (this.#number.length < size) return;
      const number = this.#number;
      this.#number = Buffer.alloc(0);
      this.#take(size === 2 ? number.readInt16BE() : number.readInt32BE(), number);
      this.#finishRow();
    }
  }

  #take(value: number, bytes: Buffer): void {
    if (this.#state === "extension") {
      this.#state = "fields";
      this.#left = value;
    } else if (this.#state === "fields") {
      if (value < 0) {
        this.#state = "end";
        return;
      }
      this.#row = createHash("sha256").update(bytes);
      this.#fieldsLeft = value;
      this.#state = "length";
    } else {
      this.#row?.update(bytes);
      this.#fieldsLeft -= 1;
      this.#left = Math.max(0, value);
    }
  }

  #finishRow(): void {
    if (!this.#row || this.#fieldsLeft > 0 || this.#left > 0) return;
    this.#add(this.#row.digest());
    this.#row = undefined;
    this.#state = "fields";
  }

  end(): void {
    if (this.#state !== "end") throw new RangeError("a stream of binary rows has no end");
  }
}
