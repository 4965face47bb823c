import { endianness } from "node:os";

/** A condition for the rows of one page. With its alias: a column `page` of the table comes before a name from outside. */
export function onPage(alias: string): string {
  return onPages(alias, "g.page", "g.page + 1");
}

/** A condition for the rows of pages `lo` (inclusive) to `hi` (exclusive), each an expression. */
export function onPages(alias: string, lo: string, hi: string): string {
  const start = (page: string) => `pg_catalog.format('(%s,0)', ${page})::pg_catalog.tid`;
  return `${alias}.ctid >= ${start(lo)} and ${alias}.ctid < ${start(hi)}`;
}

/** Gathers the line pointers of rows as `offsetsOf` reads them. */
export function offsetList(alias: string): string {
  return `encode(string_agg(substr(tidsend(${alias}.ctid), 5, 2), ''), 'hex')`;
}

/** Line pointers, two bytes each, in hex; ascending. Not number by number, and by a loop: a full has one for each row. */
export function offsetsOf(hex: string | null | undefined): Uint16Array {
  const text = hex ?? "";
  const offsets = new Uint16Array(text.length >> 2);
  const bytes = Buffer.from(offsets.buffer);
  const isWhole = bytes.write(text, "hex") * 2 === text.length;
  if (!isWhole) throw new RangeError(`not line pointers in hex: ${text.slice(0, 40)}`);
  if (endianness() === "LE") bytes.swap16();
  for (let at = 1; at < offsets.length; at++) {
    if ((offsets[at] ?? 0) < (offsets[at - 1] ?? 0)) return offsets.sort();
  }
  return offsets;
}
