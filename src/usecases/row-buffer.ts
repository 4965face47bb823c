const FIRST_BYTES = 64 * 1024;

/** Bytes of rows, put one behind the other. A buffer for each row would keep the collector busier than the work itself. */
export class RowBuffer {
  #bytes = Buffer.allocUnsafeSlow(FIRST_BYTES);
  #length = 0;
  /** Of rows that end there: counted by who puts them in. */
  rows = 0;

  /** Bytes since the last time that they were taken. */
  get length(): number {
    return this.#length;
  }

  append(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  appendText(text: string, encoding: "latin1" | "utf8"): void {
    this.#reserve(Buffer.byteLength(text, encoding));
    this.#length += this.#bytes.write(text, this.#length, encoding);
  }

  /** Gives what was put in since the last time; valid until more is put in. */
  take(): { readonly bytes: Buffer; readonly rows: number } {
    const taken = { bytes: this.#bytes.subarray(0, this.#length), rows: this.rows };
    this.#length = 0;
    this.rows = 0;
    return taken;
  }

  #reserve(count: number): void {
    if (this.#length + count <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(this.#bytes.length * 2, this.#length + count));
    this.#bytes.copy(larger, 0, 0, this.#length);
    this.#bytes = larger;
  }
}
