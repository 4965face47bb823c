import { formatCount, formatPlural } from "../base/counts.ts";
import { archiveError } from "../archive/archive-error.ts";
import type { BoundCondition } from "../plan/bind-condition.ts";
import { storedColumnsOf } from "../plan/plan-restore.ts";
import { CopyTextRows } from "../snapshot/copy-text-rows.ts";
import type { StoredTable } from "../snapshot/manifest.ts";
import { RowEncoder } from "../snapshot/row-encoder.ts";
import type { SnapshotReader } from "../snapshot/snapshot-reader.ts";
import { RowBuffer } from "./row-buffer.ts";
import { streamsOf } from "./table-streams.ts";

/** The row that is looked at; everything of it is valid only during the call. */
export interface SelectedRow {
  /** As it is stored, without the newline. */
  readonly bytes: Buffer;
  /** Its columns, by their index among those asked for. */
  readonly encoder: RowEncoder;
  /** The columns asked for are all of its columns, in the same order. */
  readonly isWhole: boolean;
}

export interface SelectOptions {
  /** Undefined: every row. */
  readonly condition?: BoundCondition | undefined;
  /** Columns that `render` looks at, all of them stored. */
  readonly columns: readonly string[];
  /** Writes one row. */
  readonly render: (row: SelectedRow, out: RowBuffer) => void;
  readonly signal: AbortSignal;
}

/** Some rows as they were rendered, valid until the next ones are asked for. */
export interface SelectedRows {
  readonly bytes: Buffer;
  /** How many rows are in these bytes, whole. */
  readonly rows: number;
}

/**
 * Reads one stored table and gives its rows that fulfil a condition, a chunk's worth at a time, in their order. Fails as
 * `SnapshotReader.chunks` does, and with kind `archive` where rows are not as the manifest says.
 */
export async function* selectRows(
  reader: SnapshotReader,
  table: StoredTable,
  { condition, columns, render, signal }: SelectOptions,
): AsyncIterable<SelectedRows> {
  const stored = storedColumnsOf(table);
  const looked = condition?.columns ?? [];
  const encoder = new RowEncoder(plainForm([...columns, ...looked]), stored);
  const places = looked.map((_, index) => columns.length + index);
  const isWhole = columns.length === stored.length && columns.every((name, index) => name === stored[index]);
  const out = new RowBuffer();
  let seen = 0;
  const rows = new CopyTextRows((bytes, start, end) => {
    seen += 1;
    encoder.read(bytes, start, end);
    if (condition && !condition.matches(places.map((place) => encoder.columnBytes(place)))) return;
    render({ bytes: bytes.subarray(start, end), encoder, isWhole }, out);
    out.rows += 1;
  });
  try {
    for (const stream of streamsOf(reader, table, signal, () => undefined)) {
      for await (const chunk of stream) {
        rows.push(chunk);
        if (out.rows > 0) yield out.take();
      }
    }
    rows.finish();
  } catch (error) {
    if (error instanceof RangeError) throw unreadable(table, error.message, error);
    throw error;
  }
  if (seen !== table.rows)
    throw unreadable(table, `it holds ${formatPlural(seen, "row")}, not ${formatCount(table.rows)}`);
}

function plainForm(names: readonly string[]): ConstructorParameters<typeof RowEncoder>[0] {
  const columns = names.map((name) => ({ name, mayBeNull: true, isComposite: false }));
  return { columns, key: [], separator: "|" };
}

function unreadable({ schema, name }: StoredTable, reason: string, cause?: unknown): Error {
  return archiveError(`cannot read ${schema}.${name} of the snapshot: ${reason}`, "corrupt-chunk", {
    hint: "Verify the snapshot.",
    cause,
  });
}
