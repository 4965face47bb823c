import { isAscii, isUtf8 } from "node:buffer";
import type { TableName } from "../drivers/driver.ts";
import { bindCondition } from "../plan/bind-condition.ts";
import { chooseUnit, shownColumns } from "../plan/choose-unit.ts";
import { parseCondition } from "../plan/row-condition.ts";
import { ownEncodingOf } from "../snapshot/own-encoding.ts";
import type { SnapshotReader } from "../snapshot/snapshot-reader.ts";
import { makeRowText, type RowTextFormat } from "./row-text.ts";
import { selectRows, type SelectedRows } from "./select-rows.ts";

export interface ReadRowsOptions {
  readonly reader: SnapshotReader;
  /** The name or pattern of one table. */
  readonly table: string;
  readonly where?: string | undefined;
  /** In the order in which they are written; undefined: all that are stored. */
  readonly columns?: readonly string[] | undefined;
  readonly format: RowTextFormat;
  /** Wraps a row of `json` into a record of its own. */
  readonly wrap?: ((row: string) => string) | undefined;
  readonly signal: AbortSignal;
}

export interface ReadRows {
  readonly table: TableName;
  /** The rows as text, pieces of bounded size; only the bytes of this table are read. */
  readonly pieces: AsyncIterable<SelectedRows>;
}

/** Reads rows of one table of a snapshot, without a database. Fails with kind `usage`, `archive`, `destination`. */
export function readRows({ reader, where, ...options }: ReadRowsOptions): ReadRows {
  const unit = chooseUnit(reader.manifest, [options.table]);
  const columns = shownColumns(unit, options.columns);
  const condition = where === undefined ? undefined : parseCondition(where);
  const { settings } = reader.manifest;
  // All parts first: a condition that is wrong says so before anything is written.
  const parts = unit.parts.map((part) => ({
    part,
    condition: condition && bindCondition(condition, { columns: part.columns, settings }),
  }));
  const isReadable = ownEncodingOf(reader.manifest) === undefined ? isUtf8 : isAscii;
  const text = makeRowText(options.format, columns, { wrap: options.wrap, isReadable });
  async function* pieces(): AsyncIterable<SelectedRows> {
    if (text.head.length > 0) yield { bytes: text.head, rows: 0 };
    for (const { part, condition: bound } of parts) {
      yield* selectRows(reader, part, { condition: bound, columns, render: text.render, signal: options.signal });
    }
  }
  return { table: unit.table, pieces: pieces() };
}
