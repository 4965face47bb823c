import { messageOf } from "../base/errors.ts";
import { parseTarHeader, TAR_BLOCK, TAR_END, tarPaddingOf } from "./tar-entry.ts";

/** Follows the structure of a volume while its bytes pass by: plain entries, zero padding, two zero blocks, the end. */
export class TarWalk {
  /** Size of each entry's content by its offset. */
  readonly entries = new Map<number, number>();
  readonly #header = Buffer.alloc(TAR_BLOCK);
  #filled = 0;
  #position = 0;
  #contentEnd = 0;
  #skipUntil = 0;
  #zeroBlocks = 0;
  #problem: string | undefined;

  push(part: Uint8Array): void {
    let at = 0;
    while (at < part.length && this.#problem === undefined) {
      const step = this.#position < this.#skipUntil ? this.#pass(part, at) : this.#collectHeader(part, at);
      at += step;
      this.#position += step;
    }
  }

  /** Says what is wrong with the structure, once all bytes were pushed. */
  finish(): string | undefined {
    if (this.#problem !== undefined) return this.#problem;
    if (this.#zeroBlocks * TAR_BLOCK !== TAR_END.length || this.#filled > 0) return "its tar structure is cut short";
    return undefined;
  }

  /** Passes over content; what pads it must be zeros. */
  #pass(part: Uint8Array, at: number): number {
    const inContent = this.#position < this.#contentEnd;
    const end = inContent ? this.#contentEnd : this.#skipUntil;
    const step = Math.min(part.length - at, end - this.#position);
    if (!inContent && part.subarray(at, at + step).some((byte) => byte !== 0)) {
      this.#problem = `the padding at byte ${this.#position} is not empty`;
    }
    return step;
  }

  #collectHeader(part: Uint8Array, at: number): number {
    const step = Math.min(TAR_BLOCK - this.#filled, part.length - at);
    this.#header.set(part.subarray(at, at + step), this.#filled);
    this.#filled += step;
    if (this.#filled === TAR_BLOCK) {
      this.#filled = 0;
      this.#readHeader(this.#position + step);
    }
    return step;
  }

  #readHeader(contentStart: number): void {
    try {
      const entry = parseTarHeader(this.#header);
      if (entry === undefined) {
        this.#zeroBlocks++;
        if (this.#zeroBlocks * TAR_BLOCK > TAR_END.length) this.#problem = "it goes on behind its end";
      } else if (this.#zeroBlocks > 0) {
        this.#problem = `it goes on behind its end`;
      } else {
        this.entries.set(contentStart, entry.size);
        this.#contentEnd = contentStart + entry.size;
        this.#skipUntil = this.#contentEnd + tarPaddingOf(entry.size);
      }
    } catch (error) {
      this.#problem = `at byte ${contentStart - TAR_BLOCK}: ${messageOf(error)}`;
    }
  }
}
