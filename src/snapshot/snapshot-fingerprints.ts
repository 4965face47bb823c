import type { TableName } from "../drivers/driver.ts";
import type {
  BucketSum,
  BucketSums,
  FindRequest,
  FoundRow,
  ListedRow,
  ListRequest,
  ShownRow,
  ShowRequest,
  SumsRequest,
} from "../drivers/fingerprints.ts";
import { SHOWN_CHARACTERS } from "../drivers/fingerprints.ts";
import { bucketOfInteger, type RowForm, storedNames } from "../drivers/row-form.ts";
import { RowHasher } from "../drivers/row-hash.ts";
import { archiveError } from "../archive/archive-error.ts";
import { CopyTextRows } from "./copy-text-rows.ts";
import type { StoredTable } from "./manifest.ts";
import { RowEncoder } from "./row-encoder.ts";
import type { SnapshotReader } from "./snapshot-reader.ts";
import { readTableRows } from "./table-rows.ts";

const HALF = 2 ** 32;
/** Sums of halves stay exact numbers below this. */
const EXACT = 2 ** 52;
const LISTED_ROWS = 5000;

/** Computes of the rows of a snapshot what `Fingerprints` computes on a server; each call reads the table's chunks once. */
export class SnapshotFingerprints {
  readonly #reader: SnapshotReader;

  constructor(reader: SnapshotReader) {
    this.#reader = reader;
  }

  async sums(table: StoredTable, { form, within, signal }: SumsRequest): Promise<BucketSums> {
    const slots = new BucketSlots(form, within);
    const sums = new SumTable(slots.count);
    await this.#scan(table, form, signal, (row) => {
      const slot = slots.slotOf(row.bucket());
      if (slot >= 0) sums.add(slot, row.hash());
    });
    return new Map(sums.result().map(([slot, sum]) => [slots.bucketOf(slot), sum]));
  }

  async list(table: StoredTable, { form, buckets, take, signal }: ListRequest): Promise<void> {
    const wanted = new Set(buckets);
    let listed: ListedRow[] = [];
    await this.#scan(table, form, signal, (row) => {
      if (!wanted.has(row.bucket())) return;
      listed.push({ hash: hashText(row.hash()), key: row.encoder.key(), count: 1 });
      if (listed.length < LISTED_ROWS) return;
      take(listed);
      listed = [];
    });
    take(listed);
  }

  async find(table: StoredTable, { form, keys, signal }: FindRequest): Promise<readonly FoundRow[]> {
    const wanted = new Set(keys.map((key) => JSON.stringify(key)));
    const found: FoundRow[] = [];
    const hasher = new RowHasher(form.hash);
    await this.#scan(table, form, signal, ({ encoder }) => {
      const key = encoder.key();
      if (!wanted.has(JSON.stringify(key))) return;
      const columns = form.columns.map((_, index) => {
        if (!encoder.writeColumn(index)) return null;
        hasher.update(encoder.line, encoder.length);
        return String(hasher.first);
      });
      found.push({ key, columns });
    });
    return found;
  }

  async show(table: StoredTable, { form, hashes, signal }: ShowRequest): Promise<readonly ShownRow[]> {
    const wanted = new Set(hashes);
    const shown: ShownRow[] = [];
    await this.#scan(table, form, signal, (row) => {
      const hash = hashText(row.hash());
      // Rows of one content are shown once.
      if (!wanted.delete(hash)) return;
      const values = form.columns.map((_, index) => shorten(row.encoder.column(index)));
      shown.push({ hash, values });
    });
    return shown;
  }

  async #scan(table: StoredTable, form: RowForm, signal: AbortSignal, take: (row: ScannedRow) => void): Promise<void> {
    if (table.format !== "text") throw new RangeError("only COPY text can be compared");
    const encoder = new RowEncoder(form, storedNames(table));
    const row = new ScannedRow(form, encoder);
    const rows = new CopyTextRows((bytes, start, end) => {
      encoder.read(bytes, start, end);
      row.next();
      take(row);
    });
    try {
      for await (const bytes of readTableRows(this.#reader, table, { signal })) rows.push(bytes);
      rows.finish();
    } catch (error) {
      if (error instanceof RangeError) throw unreadable(table, error);
      throw error;
    }
  }
}

/** The row that a scan has come to; hashed at most once, and only when it is asked for. */
class ScannedRow {
  readonly encoder: RowEncoder;
  readonly #form: RowForm;
  readonly #hasher: RowHasher;
  #isHashed = false;

  constructor(form: RowForm, encoder: RowEncoder) {
    this.#form = form;
    this.encoder = encoder;
    this.#hasher = new RowHasher(form.hash);
  }

  next(): void {
    this.#isHashed = false;
  }

  hash(): RowHasher {
    if (!this.#isHashed) {
      this.encoder.write();
      this.#hasher.update(this.encoder.line, this.encoder.length);
      this.#isHashed = true;
    }
    return this.#hasher;
  }

  bucket(): number {
    const { bucketBy, buckets } = this.#form;
    if (bucketBy === "integer-key") return bucketOfInteger(this.encoder.integerKey(), buckets);
    return this.hash().firstLow & (buckets - 1);
  }
}

/** Numbers the buckets that are summed up: all of them, or those that are parts of chosen ones. */
class BucketSlots {
  readonly count: number;
  readonly #of: number;
  readonly #parts: number;
  readonly #chosen: readonly number[] | undefined;
  readonly #places: ReadonlyMap<number, number>;

  constructor({ buckets }: RowForm, within: SumsRequest["within"]) {
    this.#of = within?.of ?? buckets;
    this.#parts = buckets / this.#of;
    this.#chosen = within?.buckets;
    this.#places = new Map(within?.buckets.map((bucket, place) => [bucket, place]));
    this.count = this.#parts * (within?.buckets.length ?? buckets);
  }

  /** Below 0: the bucket is not among them. */
  slotOf(bucket: number): number {
    if (!this.#chosen) return bucket;
    const place = this.#places.get(bucket & (this.#of - 1));
    return place === undefined ? -1 : place * this.#parts + Math.floor(bucket / this.#of);
  }

  bucketOf(slot: number): number {
    if (!this.#chosen) return slot;
    const place = Math.floor(slot / this.#parts);
    return (this.#chosen[place] as number) + (slot % this.#parts) * this.#of;
  }
}

/** Exact sums of 64-bit hashes in pairs of numbers, since a BigInt a row would be garbage. */
class SumTable {
  readonly #rows: Float64Array;
  readonly #halves: Float64Array;
  /** What no longer fits into the pairs. */
  readonly #overflow = new Map<number, bigint>();

  constructor(buckets: number) {
    this.#rows = new Float64Array(buckets);
    this.#halves = new Float64Array(4 * buckets);
  }

  add(bucket: number, hash: RowHasher): void {
    this.#rows[bucket] = (this.#rows[bucket] as number) + 1;
    this.#addHalf(4 * bucket, hash.firstHigh);
    this.#addHalf(4 * bucket + 1, hash.firstLow);
    this.#addHalf(4 * bucket + 2, hash.secondHigh);
    this.#addHalf(4 * bucket + 3, hash.secondLow);
  }

  #addHalf(at: number, value: number): void {
    const sum = (this.#halves[at] as number) + value;
    if (Math.abs(sum) < EXACT) {
      this.#halves[at] = sum;
      return;
    }
    this.#overflow.set(at, (this.#overflow.get(at) ?? 0n) + BigInt(sum));
    this.#halves[at] = 0;
  }

  #half(at: number): bigint {
    return BigInt(this.#halves[at] as number) + (this.#overflow.get(at) ?? 0n);
  }

  result(): readonly (readonly [number, BucketSum])[] {
    const sums: [number, BucketSum][] = [];
    for (const [bucket, rows] of this.#rows.entries()) {
      if (rows === 0) continue;
      const sum = (at: number) => this.#half(at) * BigInt(HALF) + this.#half(at + 1);
      sums.push([bucket, { rows, first: sum(4 * bucket), second: sum(4 * bucket + 2) }]);
    }
    return sums;
  }
}

function hashText(hash: RowHasher): string {
  return `${hash.first}:${hash.second}`;
}

/** By characters, not by halves of them, as the server counts. */
function shorten(text: string | null): string | null {
  return text !== null && text.length > SHOWN_CHARACTERS ? Array.from(text).slice(0, SHOWN_CHARACTERS).join("") : text;
}

function unreadable(table: TableName, cause: RangeError): Error {
  return archiveError(`cannot read ${table.schema}.${table.name} of the snapshot: ${cause.message}`, "corrupt-chunk", {
    hint: "Verify the snapshot.",
    cause,
  });
}
