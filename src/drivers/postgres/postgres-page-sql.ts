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

/** Line pointers, two bytes each, in hex; ascending. By a loop: a full has one for each row. */
export function offsetsOf(hex: string | null | undefined): number[] {
  const bytes = Buffer.from(hex ?? "", "hex");
  const offsets: number[] = [];
  let last = 0;
  let isSorted = true;
  for (let at = 0; at < bytes.length; at += 2) {
    const offset = ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
    offsets.push(offset);
    isSorted &&= offset > last;
    last = offset;
  }
  return isSorted ? offsets : offsets.sort((left, right) => left - right);
}
