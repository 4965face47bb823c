import type { PlacedBytes, RowPlace } from "../change-tracker.ts";
import type { SourceTable } from "../driver.ts";
import { quoteIdentifier, quoteName } from "./postgres-quote.ts";
import { conditionsOf, storedColumns } from "./postgres-rows.ts";

const [TAB, NEWLINE, OPEN, CLOSE, COMMA] = [9, 10, 40, 41, 44];

/** Renders a COPY of a whole table whose rows begin with their places: `(page,offset)`. */
export function placedCopy(table: SourceTable): string {
  const columns = storedColumns(table).map((column) => `t.${quoteIdentifier(column)}`);
  const where = conditionsOf(table, {}).map((condition) => ` where ${condition}`);
  return `copy (select t.ctid, ${columns.join(", ")} from only ${quoteName(table.schema, table.name)} t${where.join("")}) to stdout`;
}

/**
 * Takes the places, `(page,offset)` and a tab, off the rows; gives the pieces of each batch, which must be taken before the next ones are
 * asked for. However long a row is, no more of it than a batch is held.
 */
export async function* placedRows(
  batches: AsyncIterable<{ readonly bytes: Uint8Array }>,
): AsyncIterable<Iterable<PlacedBytes>> {
  const rows = new PlacedRows();
  for await (const { bytes } of batches) yield rows.piecesOf(bytes);
  rows.assertEnd();
}

class PlacedRows {
  /** The beginning of a place whose end is in the next batch. */
  #begun: Buffer = Buffer.alloc(0);
  /** Of the row that the next bytes belong to; undefined: a place comes first. */
  #place: RowPlace | undefined;

  *piecesOf(bytes: Uint8Array): Iterable<PlacedBytes> {
    const own = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const batch = this.#begun.length > 0 ? Buffer.concat([this.#begun, own]) : own;
    let from = 0;
    while (from < batch.length) {
      if (this.#place === undefined) {
        const tab = batch.indexOf(TAB, from);
        if (tab < 0) break;
        this.#place = placeOf(batch, from, tab);
        from = tab + 1;
        continue;
      }
      const { page, offset }: RowPlace = this.#place;
      const newline = batch.indexOf(NEWLINE, from);
      const end = newline < 0 ? batch.length : newline + 1;
      if (newline >= 0) this.#place = undefined;
      yield { page, offset, bytes: batch.subarray(from, end), isEnd: newline >= 0 };
      from = end;
    }
    // The batch's memory is used again for the next one.
    this.#begun = Buffer.from(batch.subarray(from));
  }

  assertEnd(): void {
    if (this.#place !== undefined || this.#begun.length > 0) throw new RangeError("the server ended inside a row");
  }
}

function placeOf(bytes: Buffer, start: number, end: number): RowPlace {
  const comma = bytes.indexOf(COMMA, start);
  if (bytes[start] !== OPEN || bytes[end - 1] !== CLOSE || comma > end) throw withoutPlace();
  return { page: digitsOf(bytes, start + 1, comma), offset: digitsOf(bytes, comma + 1, end - 1) };
}

function withoutPlace(): RangeError {
  return new RangeError("the server gave a row without its place");
}

function digitsOf(bytes: Buffer, from: number, to: number): number {
  if (from >= to) throw withoutPlace();
  let value = 0;
  for (let at = from; at < to; at += 1) {
    const digit = (bytes[at] ?? 0) - 48;
    if (!(digit >= 0 && digit <= 9)) throw withoutPlace();
    value = value * 10 + digit;
  }
  return value;
}
