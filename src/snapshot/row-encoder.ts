import { GROUP_COLUMNS, KEY_BITS, type RowForm } from "../drivers/row-form.ts";
import { textOfBytes } from "../drivers/text-bytes.ts";

const TAB = 0x09;
const BACKSLASH = 0x5c;
const CAPITAL_N = 0x4e;

/** What stands for a byte in COPY text, by the letter behind the backslash; anything else stands for itself. */
const UNESCAPED: Readonly<Record<string, number>> = { b: 8, f: 12, n: 10, r: 13, t: 9, v: 11 };
const ESCAPES = Uint8Array.from({ length: 256 }, (_, byte) => UNESCAPED[String.fromCharCode(byte)] ?? byte);

type WrittenForm = Pick<RowForm, "columns" | "key" | "separator">;

/** Writes rows of COPY text down in the form in which the server hashes them. */
export class RowEncoder {
  /** The last written line: the first `length` bytes. */
  line: Buffer = Buffer.alloc(4096);
  length = 0;
  readonly #form: WrittenForm;
  readonly #separator: Buffer;
  /** Position in the stored row of each column of the form. */
  readonly #positions: readonly number[];
  readonly #keyPositions: readonly number[];
  readonly #marks: readonly (Buffer | undefined)[];
  readonly #hasHead: boolean;
  /** Where the fields of the last row begin; one more than there are. */
  readonly #starts: Int32Array;
  #bytes: Buffer = this.line;

  /** `stored` are the names of the columns in the order of the stored rows. */
  constructor(form: WrittenForm, stored: readonly string[]) {
    if (form.columns.some(({ sentBy }) => sentBy)) throw new TypeError("only a server can write this form");
    this.#form = form;
    this.#separator = Buffer.from(form.separator);
    this.#positions = form.columns.map(({ name }) => stored.indexOf(name));
    this.#keyPositions = form.key.map((name) => stored.indexOf(name));
    if ([...this.#positions, ...this.#keyPositions].includes(-1)) throw new RangeError("a column is not stored");
    this.#marks = form.columns.map(({ mayBeNull }, index) => (mayBeNull ? Buffer.from(`~${index}`) : undefined));
    this.#hasHead = form.columns.some(({ mayBeNull }) => mayBeNull);
    this.#starts = new Int32Array(stored.length + 1);
  }

  /** Takes the row of `bytes` from `start` to `end`, which must stay as they are while it is looked at. */
  read(bytes: Buffer, start: number, end: number): void {
    const starts = this.#starts;
    const columns = starts.length - 1;
    this.#bytes = bytes;
    let column = 1;
    starts[0] = start;
    // Fields are short: a loop over the bytes is faster than a search for each of them.
    for (let at = start; at < end; at += 1) {
      if (bytes[at] !== TAB) continue;
      if (column >= columns) throw wrongColumns();
      starts[column++] = at + 1;
    }
    if (column !== columns && !(columns === 0 && start === end)) throw wrongColumns();
    // Behind every field stands one byte: a tab, or the newline.
    starts[columns] = end + 1;
  }

  /** Writes the last read row down. */
  write(): void {
    const { columns } = this.#form;
    this.length = 0;
    let begun = false;
    if (this.#hasHead) {
      for (let index = 0; index < columns.length; index += 1) {
        const mark = this.#marks[index];
        if (!mark || !this.#isNull(this.#positions[index] as number)) continue;
        if (begun) this.#append(this.#separator);
        this.#append(mark);
        begun = true;
      }
      if (begun) this.#append(this.#separator);
      this.#reserve(1);
      this.line[this.length++] = 0x2e;
      begun = true;
    }
    const grouped = columns.length > GROUP_COLUMNS;
    for (let index = 0; index < columns.length; index += 1) {
      if (grouped && index % GROUP_COLUMNS === 0) {
        if (begun) this.#append(this.#separator);
        begun = false;
      }
      const position = this.#positions[index] as number;
      if (!this.#isNull(position)) {
        if (begun) this.#append(this.#separator);
        this.#appendField(position);
        begun = true;
      }
      // The next group is always there, even when it or this one holds nothing.
      if (grouped && index % GROUP_COLUMNS === GROUP_COLUMNS - 1) begun = true;
    }
  }

  /** The text of each key column of the last read row. */
  key(): readonly string[] {
    return this.#keyPositions.map((position) => this.#text(position));
  }

  /** What `KEY_BITS` are of an integer key, as two's complement: its lowest 31 bits and those above them, joined by XOR. */
  integerKey(): number {
    const position = this.#keyPositions[0] as number;
    const end = (this.#starts[position + 1] as number) - 1;
    let at = this.#starts[position] as number;
    const negative = this.#bytes[at] === 0x2d;
    if (negative) at += 1;
    let high = 0;
    let low = 0;
    for (; at < end; at += 1) {
      const next = low * 10 + (this.#bytes[at] as number) - 0x30;
      low = next & KEY_BITS;
      high = high * 10 + (next - low) / (KEY_BITS + 1);
    }
    // Without the sign, minus one and inverted: both halves are inverted alike, so that their XOR needs it of neither.
    if (negative && low === 0) high -= 1;
    if (negative) low = (low - 1) & KEY_BITS;
    return (high ^ low) & KEY_BITS;
  }

  /** Writes one column of the last read row into `line`; false when it is NULL. */
  writeColumn(index: number): boolean {
    const position = this.#positions[index] as number;
    this.length = 0;
    if (this.#isNull(position)) return false;
    this.#appendField(position);
    return true;
  }

  /** One column of the last read row as one character a byte. */
  columnBytes(index: number): string | null {
    return this.writeColumn(index) ? this.line.toString("latin1", 0, this.length) : null;
  }

  /** One column of the last read row as it is stored, escapes and all. Valid as long as the row is. */
  storedColumn(index: number): Buffer {
    const position = this.#positions[index] as number;
    return this.#bytes.subarray(this.#starts[position], (this.#starts[position + 1] as number) - 1);
  }

  /** The text of one column of the last read row. */
  column(index: number): string | null {
    const position = this.#positions[index] as number;
    return this.#isNull(position) ? null : this.#text(position);
  }

  #text(position: number): string {
    this.length = 0;
    this.#appendField(position);
    return textOfBytes(this.line.subarray(0, this.length));
  }

  #isNull(position: number): boolean {
    const at = this.#starts[position] as number;
    const size = (this.#starts[position + 1] as number) - 1 - at;
    return size === 2 && this.#bytes[at] === BACKSLASH && this.#bytes[at + 1] === CAPITAL_N;
  }

  #appendField(position: number): void {
    const bytes = this.#bytes;
    const end = (this.#starts[position + 1] as number) - 1;
    let at = this.#starts[position] as number;
    this.#reserve(end - at);
    const line = this.line;
    let length = this.length;
    while (at < end) {
      const byte = bytes[at++] as number;
      line[length++] = byte === BACKSLASH ? (ESCAPES[bytes[at++] as number] as number) : byte;
    }
    this.length = length;
  }

  #append(bytes: Buffer): void {
    this.#reserve(bytes.length);
    for (let at = 0; at < bytes.length; at += 1) this.line[this.length++] = bytes[at] as number;
  }

  #reserve(count: number): void {
    if (this.length + count <= this.line.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(this.line.length * 2, this.length + count));
    this.line.copy(larger, 0, 0, this.length);
    this.line = larger;
  }
}

function wrongColumns(): RangeError {
  return new RangeError("a stored row has another number of columns than its table");
}
