import type { RowFormat, Segment, SourceTable } from "../driver.ts";
import { quoteIdentifier, quoteLiteral, quoteName } from "./postgres-quote.ts";
import type { CatalogTable } from "./postgres-tables.ts";

const PAGE_BYTES = 8192;
/** Below this a second statement costs more than it balances. */
const MIN_PIECE_PAGES = 2048;
/** TID range scans came with version 14; before that a range of pages is a scan of the whole table. */
const FIRST_VERSION_WITH_TID_RANGES = 140000;

/** Divides a heap table into ranges of pages. The last one is open: pages that came since the estimate belong to it. */
export function segmentsOf(table: CatalogTable, pieces: number, serverVersion: number): readonly Segment[] {
  const whole = [{ estimatedBytes: table.bytes }];
  const canSplit = serverVersion >= FIRST_VERSION_WITH_TID_RANGES && table.isHeap && storedColumns(table).length > 0;
  const count = Math.min(pieces, Math.floor(table.pages / MIN_PIECE_PAGES));
  if (!canSplit || count < 2) return whole;
  const step = Math.ceil(table.pages / count);
  return Array.from({ length: count }, (_, index) => ({
    pages: { lo: index * step, ...(index < count - 1 ? { hi: (index + 1) * step } : {}) },
    estimatedBytes: Math.round(table.bytes / count),
  }));
}

/** The columns whose values are stored: generated ones are computed again. */
export function storedColumns(table: Pick<SourceTable, "columns">): readonly string[] {
  return table.columns.filter((column) => !column.generated).map((column) => column.name);
}

/** Renders the COPY of one segment: the plain form where it can be, since the executor costs a twentieth more. */
export function copyStatement(table: SourceTable, segment: Segment, format: RowFormat): string {
  const name = quoteName(table.schema, table.name);
  const columns = storedColumns(table).map(quoteIdentifier).join(", ");
  const target = format === "binary" ? "to stdout (format binary)" : "to stdout";
  const conditions = conditionsOf(table, segment);
  if (conditions.length > 0)
    return `copy (select ${columns} from only ${name} where ${conditions.join(" and ")}) ${target}`;
  // An empty column list is a syntax error; without one COPY leaves generated columns out by itself.
  return columns === "" ? `copy ${name} ${target}` : `copy ${name} (${columns}) ${target}`;
}

/** Renders the options of a COPY, with a space before them. Binary rows are always in the encoding of the session. */
export function copyOptions({ format, encoding, freeze = false }: CopyOptions): string {
  const options = [
    ...(freeze ? ["freeze"] : []),
    ...(format === "binary" ? ["format binary"] : []),
    ...(format === "text" && encoding !== undefined ? [`encoding ${quoteLiteral(encoding)}`] : []),
  ];
  return options.length > 0 ? ` (${options.join(", ")})` : "";
}

interface CopyOptions {
  readonly format: RowFormat;
  readonly encoding?: string | undefined;
  readonly freeze?: boolean | undefined;
}

/** The conditions that choose the rows of one segment, and those that belong to the backup at all. */
export function conditionsOf(
  table: Pick<SourceTable, "condition">,
  segment: Pick<Segment, "pages">,
): readonly string[] {
  const conditions: string[] = [];
  if (segment.pages) {
    conditions.push(`ctid >= '(${segment.pages.lo},0)'::pg_catalog.tid`);
    if (segment.pages.hi !== undefined) conditions.push(`ctid < '(${segment.pages.hi},0)'::pg_catalog.tid`);
  }
  if (table.condition) conditions.push(`(${table.condition})`);
  return conditions;
}

/** How many bytes of a large object make one row. */
export const LARGE_OBJECT_PIECE_BYTES = 256 * 1024;

/** Reads every large object in pieces; the size is asked of the open object, since its catalog is closed to ordinary logins. */
export const LARGE_OBJECTS_COPY = `copy (
  select m.oid, p.at, pg_catalog.lo_get(m.oid, p.at, ${LARGE_OBJECT_PIECE_BYTES})
    from (select oid from pg_catalog.pg_largeobject_metadata order by oid) m
   cross join lateral (
           select pg_catalog.lo_lseek64(o.fd, 0, 2) as size, pg_catalog.lo_close(o.fd)
             from (select pg_catalog.lo_open(m.oid, 262144) as fd offset 0) o offset 0) s
   cross join lateral pg_catalog.generate_series(0::bigint, greatest(s.size - 1, 0), ${LARGE_OBJECT_PIECE_BYTES}::bigint) p(at)
) to stdout`;

/** Pages of a heap of this many bytes. */
export function pagesOf(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES);
}
