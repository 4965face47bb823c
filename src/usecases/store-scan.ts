import type { PlacedBytes } from "../drivers/change-tracker.ts";
import { CELL_PAGES } from "../plan/plan-delta.ts";
import type { ChunkRef } from "../snapshot/manifest.ts";
import type { SegmentPart } from "./assemble-table.ts";
import { BATCH_BYTES } from "./store-rows.ts";
import type { TableContext } from "./store-span.ts";

/**
 * Stores a table that can only be read as a whole, cut where its cells end: a change moves no rows but those of its cell, and
 * the chunks of all other cells are the same as in the base.
 */
export async function storeScan(context: TableContext): Promise<readonly SegmentPart[]> {
  const { source, table, signal } = context;
  const cells = new CellChunks(context);
  if (!source.tracker) throw new RangeError("a table without a tracker is read by its segments");
  for await (const pieces of source.tracker.scan(table, { batchBytes: BATCH_BYTES, signal })) {
    for (const piece of pieces) await cells.take(piece);
  }
  return cells.finish();
}

class CellChunks {
  readonly #context: TableContext;
  readonly #parts: SegmentPart[] = [];
  readonly #batch = Buffer.allocUnsafeSlow(BATCH_BYTES);
  #length = 0;
  /** Rows that end in the batch. */
  #rows = 0;
  #cell = 0;
  #chunks: ChunkRef[] = [];

  constructor(context: TableContext) {
    this.#context = context;
  }

  async take({ page, bytes, isEnd }: PlacedBytes): Promise<void> {
    const cell = Math.floor(page / CELL_PAGES);
    if (cell !== this.#cell) await this.#endCell();
    this.#cell = cell;
    // Cut after so many bytes, wherever in a row that is: the same rows always give the same chunks.
    for (let at = 0; at < bytes.length; ) {
      if (this.#length === BATCH_BYTES) await this.#flush();
      const end = Math.min(bytes.length, at + BATCH_BYTES - this.#length);
      this.#batch.set(bytes.subarray(at, end), this.#length);
      this.#length += end - at;
      at = end;
    }
    if (isEnd) this.#rows += 1;
  }

  async finish(): Promise<readonly SegmentPart[]> {
    await this.#endCell();
    return this.#parts;
  }

  async #endCell(): Promise<void> {
    await this.#flush();
    if (this.#chunks.length === 0) return;
    const lo = this.#cell * CELL_PAGES;
    this.#parts.push({ pages: { lo, hi: lo + CELL_PAGES }, chunks: this.#chunks });
    this.#chunks = [];
  }

  async #flush(): Promise<void> {
    if (this.#length === 0) return;
    const { sink, group, label, report } = this.#context;
    const name = { group, label, segment: this.#cell + 1, extension: "tsv", index: this.#chunks.length + 1 };
    this.#chunks.push(await sink.addChunk(name, this.#batch.subarray(0, this.#length), this.#rows));
    report({ type: "rows", table: label, rows: this.#rows, bytes: this.#length });
    this.#length = 0;
    this.#rows = 0;
  }
}
