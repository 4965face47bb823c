import type { PlacedBytes, PlacedRow } from "../change-tracker.ts";
import type { SourceTable } from "../driver.ts";
import { quoteIdentifier, quoteName } from "./postgres-quote.ts";
import { conditionsOf, storedColumns } from "./postgres-rows.ts";

const [TAB, NEWLINE] = [9, 10];

/** Renders a COPY of a whole table whose rows begin with their places: `(page,offset)`. */
export function placedCopy(table: SourceTable): string {
  const columns = storedColumns(table).map((column) => `t.${quoteIdentifier(column)}`);
  const where = conditionsOf(table, {}).map((condition) => ` where ${condition}`);
  return `copy (select t.ctid, ${columns.join(", ")} from only ${quoteName(table.schema, table.name)} t${where.join("")}) to stdout`;
}

/** Takes the places off the rows. However long a row is, no more of it than a batch is held. */
export async function* placedBytes(batches: AsyncIterable<{ readonly bytes: Uint8Array }>): AsyncIterable<PlacedBytes> {
  /** The beginning of a place whose end is in the next batch. */
  let begun = "";
  /** Of the row that the next bytes belong to; undefined: a place comes first. */
  let page: number | undefined;
  for await (const { bytes } of batches) {
    const batch = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = 0; at < batch.length; ) {
      if (page === undefined) {
        const tab = batch.indexOf(TAB, at);
        begun += batch.toString("latin1", at, tab < 0 ? batch.length : tab);
        if (tab < 0) break;
        page = pageOf(begun);
        begun = "";
        at = tab + 1;
        continue;
      }
      const newline = batch.indexOf(NEWLINE, at);
      const end = newline < 0 ? batch.length : newline + 1;
      yield { page, bytes: batch.subarray(at, end), isEnd: newline >= 0 };
      if (newline >= 0) page = undefined;
      at = end;
    }
  }
  if (page !== undefined || begun !== "") throw new RangeError("the server ended inside a row");
}

function pageOf(place: string): number {
  const comma = place.indexOf(",");
  const page = Number(place.slice(1, comma));
  if (place[0] !== "(" || comma < 2 || !place.endsWith(")") || !Number.isInteger(page)) {
    throw new RangeError("the server gave a row without its place");
  }
  return page;
}

/** Cuts `(page,offset) <tab> row` into its parts. A row may span batches. */
export async function* placedRows(batches: AsyncIterable<{ readonly bytes: Uint8Array }>): AsyncIterable<PlacedRow> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const { bytes } of batches) {
    const own = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const all = rest.length > 0 ? Buffer.concat([rest, own]) : own;
    let from = 0;
    for (let end = all.indexOf(10); end >= 0; end = all.indexOf(10, from)) {
      const tab = all.indexOf(9, from);
      const comma = all.indexOf(44, from);
      const [page, offset] = [digitsOf(all, from + 1, comma), digitsOf(all, comma + 1, tab - 1)];
      if (all[from] !== 40 || all[tab - 1] !== 41) throw new RangeError("the server gave a row without its place");
      yield { page, offset, bytes: all.subarray(tab + 1, end + 1) };
      from = end + 1;
    }
    // The batch's memory is used again for the next one.
    rest = Buffer.from(all.subarray(from));
  }
  if (rest.length > 0) throw new RangeError("the server ended inside a row");
}

function digitsOf(bytes: Buffer, from: number, to: number): number {
  let value = 0;
  for (let at = from; at < to; at += 1) {
    const digit = (bytes[at] ?? 0) - 48;
    if (!(digit >= 0 && digit <= 9)) throw new RangeError("the server gave a row without its place");
    value = value * 10 + digit;
  }
  return value;
}
