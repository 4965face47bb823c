import type { PageRange } from "../drivers/change-tracker.ts";
import { HASHES_BYTES, placeText } from "../drivers/place-hashes.ts";
import { type RowForm, storedNames } from "../drivers/row-form.ts";
import { RowHasher } from "../drivers/row-hash.ts";
import { CopyTextRows } from "../snapshot/copy-text-rows.ts";
import type { StoredTable } from "../snapshot/manifest.ts";
import { RowEncoder } from "../snapshot/row-encoder.ts";
import type { SnapshotReader } from "../snapshot/snapshot-reader.ts";
import type { BaseSegment } from "./base-table.ts";

export interface HashBaseOptions {
  readonly reader: SnapshotReader;
  readonly table: StoredTable;
  readonly form: RowForm;
  readonly span: PageRange;
  readonly signal: AbortSignal;
}

/** Rows of a page, and the sums of the four halves of their hashes: exact, since a page has few rows. */
const FIELDS = 5;
const HALF = 1n << 32n;

/** What the server would say of the rows of a span if they still were those of the base. */
export class BaseHashes {
  readonly #span: PageRange;
  readonly #sums: Float64Array;
  /** For each segment `HASHES_BYTES` a row, removed rows too. */
  readonly #rows = new Map<BaseSegment, Buffer>();

  constructor(span: PageRange) {
    this.#span = span;
    this.#sums = new Float64Array(FIELDS * (span.hi - span.lo));
  }

  /** Takes the hashes of a segment's row, by its number from 1. */
  add(segment: BaseSegment, row: { readonly number: number; readonly page: number }, hasher: RowHasher): void {
    const { firstHigh, firstLow, secondHigh, secondLow } = hasher;
    const at = FIELDS * (row.page - this.#span.lo);
    const sums = this.#sums;
    sums[at] = (sums[at] as number) + 1;
    sums[at + 1] = (sums[at + 1] as number) + firstHigh;
    sums[at + 2] = (sums[at + 2] as number) + firstLow;
    sums[at + 3] = (sums[at + 3] as number) + secondHigh;
    sums[at + 4] = (sums[at + 4] as number) + secondLow;
    const rows = this.#rows.get(segment) ?? Buffer.alloc(HASHES_BYTES * segment.map.rows);
    this.#rows.set(segment, rows);
    const start = HASHES_BYTES * (row.number - 1);
    rows.writeInt32BE(firstHigh, start);
    rows.writeUInt32BE(firstLow, start + 4);
    rows.writeInt32BE(secondHigh, start + 8);
    rows.writeUInt32BE(secondLow, start + 12);
  }

  /** Sums up the rows of some pages of the span. */
  sum({ lo, hi }: PageRange): { readonly rows: number; readonly first: bigint; readonly second: bigint } {
    let rows = 0;
    const halves = [0n, 0n, 0n, 0n];
    for (let page = lo; page < hi; page += 1) {
      const at = FIELDS * (page - this.#span.lo);
      const own = this.#sums[at] as number;
      if (own === 0) continue;
      rows += own;
      for (const [index, half] of halves.entries()) halves[index] = half + BigInt(this.#sums[at + 1 + index] as number);
    }
    const [firstHigh = 0n, firstLow = 0n, secondHigh = 0n, secondLow = 0n] = halves;
    return { rows, first: firstHigh * HALF + firstLow, second: secondHigh * HALF + secondLow };
  }

  /** Whether the row with this number has these hashes, which stand at `start`. */
  has(segment: BaseSegment, number: number, { hashes, start }: { readonly hashes: Buffer; readonly start: number }) {
    const rows = this.#rows.get(segment);
    if (!rows) return false;
    const at = HASHES_BYTES * (number - 1);
    return rows.compare(hashes, start, start + HASHES_BYTES, at, at + HASHES_BYTES) === 0;
  }
}

/**
 * Reads the rows of these segments, which are those of one span, and hashes those that were not removed as the server does. Fails as
 * `SnapshotReader.chunks` does, and with a RangeError when the rows are not those of the page map.
 */
export async function hashBase(segments: readonly BaseSegment[], options: HashBaseOptions): Promise<BaseHashes> {
  const { reader, table, form, signal } = options;
  const hashes = new BaseHashes(options.span);
  const line = new PlacedLine(form, storedNames(table));
  for (const segment of segments) {
    const places = placesOf(segment);
    let number = 0;
    let removed = 0;
    const rows = new CopyTextRows((bytes, start, end) => {
      const place = places.next();
      if (place.done) throw new RangeError("the base has more rows than its page map");
      number += 1;
      if (segment.removed[removed] === number) {
        removed += 1;
        return;
      }
      const { page, offset } = place.value;
      hashes.add(segment, { number, page }, line.hash(bytes, { start, end, prefix: placeText(page, offset, form) }));
    });
    for await (const bytes of reader.chunks(segment.stored.chunks, { signal })) rows.push(bytes);
    rows.finish();
    if (number !== segment.map.rows) throw new RangeError("the base has fewer rows than its page map");
  }
  return hashes;
}

function* placesOf({ map }: BaseSegment): Generator<{ readonly page: number; readonly offset: number }, undefined> {
  for (const { page, offsets } of map) for (const offset of offsets) yield { page, offset };
  return undefined;
}

/** Writes rows down behind their places. */
class PlacedLine {
  readonly #encoder: RowEncoder;
  readonly #hasher: RowHasher;
  #line = Buffer.alloc(4096);

  constructor(form: RowForm, stored: readonly string[]) {
    this.#encoder = new RowEncoder(form, stored);
    this.#hasher = new RowHasher(form.hash);
  }

  /** Gives the hasher with the hashes of this row in it. */
  hash(
    bytes: Buffer,
    { start, end, prefix }: { readonly start: number; readonly end: number; readonly prefix: string },
  ): RowHasher {
    this.#encoder.read(bytes, start, end);
    this.#encoder.write();
    const length = prefix.length + this.#encoder.length;
    if (length > this.#line.length) this.#line = Buffer.allocUnsafeSlow(length * 2);
    this.#line.write(prefix, 0, "latin1");
    this.#encoder.line.copy(this.#line, prefix.length, 0, this.#encoder.length);
    this.#hasher.update(this.#line, length);
    return this.#hasher;
  }
}
