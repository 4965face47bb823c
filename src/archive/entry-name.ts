import type { Codec } from "./chunk-codec.ts";

/** What a chunk's entry is named after. Two chunks of a snapshot never share all of it. */
export interface ChunkEntry {
  /** Number of the table in the snapshot, from 1; 0 for what belongs to no table. */
  readonly group: number;
  /** For people only: what is not plain in it is replaced. */
  readonly label: string;
  /** Number of the segment in the table, from 1. */
  readonly segment: number;
  /** Number of the chunk in the segment, from 1: in this order the raw bytes form the segment. */
  readonly index: number;
  /** Kind of the raw bytes: `tsv` for COPY text, `bin` for COPY binary. */
  readonly extension: string;
}

/**
 * Names the entry of a chunk, `0001-public.orders/0001-000001.tsv`, without the codec's extension. Sorted by bytes, the
 * entries of a table stand in the order of their segments and chunks.
 */
export function entryNameOf(entry: ChunkEntry): string {
  const folder = `${groupNumber(entry.group)}-${slugOf(entry.label)}`;
  return `${folder}/${digits(entry.segment, 4)}-${digits(entry.index, 6)}.${entry.extension}`;
}

/** Renders the number that the folder of a group begins with. */
export function groupNumber(group: number): string {
  return digits(group, 4);
}

/** Extension of compressed bytes, with its dot. */
export function extensionOf(codec: Codec): string {
  return { zstd: ".zst", gzip: ".gz", none: "" }[codec];
}

const SLUG_LENGTH = 48;

function slugOf(label: string): string {
  return label.replace(/[^0-9A-Za-z._-]+/g, "_").slice(0, SLUG_LENGTH) || "_";
}

/** Wider numbers sort behind the others because a letter goes before each digit too many: 9999, a10000, b100000. */
function digits(value: number, width: number): string {
  const text = String(value).padStart(width, "0");
  const extra = text.length - width;
  return extra > 0 ? `${String.fromCharCode(96 + extra)}${text}` : text;
}
