const NEWLINE = 0x0a;

/**
 * Cuts COPY text that arrives in chunks into rows. The bytes given to `take` are valid only during the call.
 * https://www.postgresql.org/docs/current/sql-copy.html: a newline inside a value is written as `\n`.
 */
export class CopyTextRows {
  readonly #take: (bytes: Buffer, start: number, end: number) => void;
  /** The beginning of a row whose end is in a later chunk. */
  #begun: Buffer[] = [];

  constructor(take: (bytes: Buffer, start: number, end: number) => void) {
    this.#take = take;
  }

  push(chunk: Uint8Array): void {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    let start = 0;
    for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE, start)) {
      if (this.#begun.length > 0) this.#takeBegun(bytes.subarray(0, end));
      else this.#take(bytes, start, end);
      start = end + 1;
    }
    if (start < bytes.length) this.#begun.push(Buffer.from(bytes.subarray(start)));
  }

  #takeBegun(rest: Buffer): void {
    const row = Buffer.concat([...this.#begun, rest]);
    this.#begun = [];
    this.#take(row, 0, row.length);
  }

  /** Fails when the last row has no end. */
  finish(): void {
    if (this.#begun.length > 0) throw new RangeError("the last row of COPY text has no newline");
  }
}
