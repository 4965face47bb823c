import { isUtf8 } from "node:buffer";
import { OperationalError } from "../base/errors.ts";
import type { RowBuffer } from "./row-buffer.ts";
import type { SelectedRow } from "./select-rows.ts";

export type RowTextFormat = "tsv" | "csv" | "json";

/** How rows are written for people and other programs. */
export interface RowText {
  /** What stands before the first row. */
  readonly head: Buffer;
  /** Writes a row, newline and all. */
  render(row: SelectedRow, out: RowBuffer): void;
}

export interface RowTextOptions {
  /** Wraps a row of `json` into a record of its own. */
  readonly wrap?: ((row: string) => string) | undefined;
  /** Whether bytes mean the same in UTF-8; left out: where they are UTF-8. */
  readonly isReadable?: ((bytes: Uint8Array) => boolean) | undefined;
}

const NEWLINE = Buffer.from("\n");
const TAB = Buffer.from("\t");

/**
 * Makes the form in which rows with these columns are written. `tsv`: COPY text, byte for byte as it is stored. `csv`: what
 * `COPY … CSV HEADER` writes: NULL is nothing, an empty text is `""`. `json`: one object a line, every value a text or null,
 * so that no number loses a digit.
 */
export function makeRowText(
  format: RowTextFormat,
  columns: readonly string[],
  { wrap = (row) => row, isReadable = isUtf8 }: RowTextOptions = {},
): RowText {
  const head = Buffer.alloc(0);
  switch (format) {
    case "tsv":
      return { head, render: (row, out) => renderTsv(columns, row, out) };
    case "csv": {
      const names = columns.map((name) => quoteCsv(Buffer.from(name).toString("latin1"))).join(",");
      return {
        head: Buffer.from(`${names}\n`, "latin1"),
        render: ({ encoder }, out) => out.appendText(renderCsv(columns, encoder), "latin1"),
      };
    }
    case "json": {
      const names = columns.map((name) => JSON.stringify(name));
      return {
        head,
        render: ({ encoder }, out) => out.appendText(`${wrap(renderJson(names, encoder, isReadable))}\n`, "utf8"),
      };
    }
  }
}

/** Writes a row as COPY text. */
function renderTsv(columns: readonly string[], { bytes, encoder, isWhole }: SelectedRow, out: RowBuffer): void {
  if (isWhole) out.append(bytes);
  else {
    for (let index = 0; index < columns.length; index += 1) {
      if (index > 0) out.append(TAB);
      out.append(encoder.storedColumn(index));
    }
  }
  out.append(NEWLINE);
}

function renderCsv(columns: readonly string[], encoder: SelectedRow["encoder"]): string {
  const values = columns.map((_, index) => {
    const value = encoder.columnBytes(index);
    return value === null ? "" : quoteCsv(value);
  });
  return `${values.join(",")}\n`;
}

/** A lone `\.` ends the data for servers before version 17, and an empty value is no NULL. */
function quoteCsv(value: string): string {
  const isPlain = value !== "" && value !== "\\." && !/[",\r\n]|^\s|\s$/.test(value);
  return isPlain ? value : `"${value.replaceAll('"', '""')}"`;
}

function renderJson(
  names: readonly string[],
  encoder: SelectedRow["encoder"],
  isReadable: (bytes: Uint8Array) => boolean,
): string {
  const members = names.map((name, index) => {
    if (!encoder.writeColumn(index)) return `${name}:null`;
    const bytes = encoder.line.subarray(0, encoder.length);
    if (!isReadable(bytes)) throw noUtf8();
    return `${name}:${JSON.stringify(bytes.toString())}`;
  });
  return `{${members.join(",")}}`;
}

function noUtf8(): OperationalError {
  return new OperationalError("cannot write a row as JSON: a value is not UTF-8", {
    kind: "refused",
    code: "not-utf8",
    hint: "Use --format tsv or csv, which keep the bytes as they are.",
  });
}
