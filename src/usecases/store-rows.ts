import type { RowFormat, Segment, Source, SourceTable } from "../drivers/driver.ts";
import type { PlannedTable } from "../plan/plan-backup.ts";
import type { ChunkRef } from "../snapshot/manifest.ts";
import type { Report } from "./progress.ts";
import type { BaseSnapshot, ChunkSink } from "./reuse-chunks.ts";
import type { ServerHashUse } from "./server-hash.ts";

/** Raw bytes of a chunk: small enough to be read alone, large enough to compress well. */
export const BATCH_BYTES = 4 * 1024 * 1024;

export interface StoreTablesOptions {
  readonly source: Source;
  readonly sink: ChunkSink;
  readonly plan: readonly PlannedTable[];
  /** What an incremental builds on. */
  readonly base?: BaseSnapshot | undefined;
  /** Whether the server hashes tables whose row headers prove nothing; left out: it never does. */
  readonly serverHash?: ServerHashUse | undefined;
  readonly signal: AbortSignal;
  readonly report: Report;
}

export interface StoreRowsOptions extends Omit<StoreTablesOptions, "plan"> {
  readonly table: SourceTable;
  readonly group: number;
  readonly label: string;
  readonly segment: Segment;
  readonly segmentNumber: number;
  readonly format: RowFormat;
}

/** Stores the rows of one segment. */
export async function storeRows(options: StoreRowsOptions): Promise<readonly ChunkRef[]> {
  const { source, sink, table, group, label, segment, format, signal, report } = options;
  const extension = format === "text" ? "tsv" : "bin";
  const name = { group, label, segment: options.segmentNumber, extension };
  const chunks: ChunkRef[] = [];
  for await (const batch of source.rows(table, segment, { format, batchBytes: BATCH_BYTES, signal })) {
    chunks.push(await sink.addChunk({ ...name, index: chunks.length + 1 }, batch.bytes, batch.rows));
    report({ type: "rows", table: label, rows: batch.rows, bytes: batch.bytes.length });
  }
  return chunks;
}
