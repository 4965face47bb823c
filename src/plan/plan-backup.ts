import type { SourceTable } from "../drivers/driver.ts";

export interface PlannedTable {
  readonly table: SourceTable;
  /** Into how many segments the table is divided so that the streams end together; 1 = read as a whole. */
  readonly pieces: number;
}

const MIN_PIECE_BYTES = 64 * 1024 * 1024;
const PIECES_A_STREAM = 8;
/** A table that starts first and is no larger than this part of a stream's share leaves enough behind it to balance. */
const WHOLE_SHARE = 0.75;

/**
 * Orders tables by size, the largest first, and divides those that would make one stream end long after the others.
 * A whole table costs the server about a twentieth less than ranges of it, so as much as can be is read whole.
 */
export function planBackup(tables: readonly SourceTable[], streams: number): readonly PlannedTable[] {
  const ordered = tables.toSorted((left, right) => right.bytes - left.bytes || compareNames(left, right));
  const total = ordered.reduce((sum, table) => sum + table.bytes, 0);
  const pieceBytes = Math.max(total / (PIECES_A_STREAM * streams), MIN_PIECE_BYTES);
  return ordered.map((table, index) => {
    const startsWhole = index < streams && table.bytes <= (total / streams) * WHOLE_SHARE;
    const whole = streams === 1 || startsWhole;
    return { table, pieces: whole ? 1 : Math.max(1, Math.round(table.bytes / pieceBytes)) };
  });
}

function compareNames(left: SourceTable, right: SourceTable): number {
  const [a, b] = [`${left.schema}.${left.name}`, `${right.schema}.${right.name}`];
  return a < b ? -1 : a > b ? 1 : 0;
}
