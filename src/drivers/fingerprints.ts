import type { Segment, SourceTable } from "./driver.ts";
import type { RowForm } from "./row-form.ts";
import type { RowHash } from "./row-hash.ts";

/**
 * What is known of the rows of one bucket. A changed row leaves it as it was with a chance of 2^-128 (2^-64 where hashes
 * of columns are summed up).
 */
export interface BucketSum {
  readonly rows: number;
  /** Sums of the signed 64-bit hashes, exact: equal rows never cancel each other. */
  readonly first: bigint;
  readonly second: bigint;
}

/** The sums of one table or of a part of it, by bucket; empty buckets are left out. Sums of disjoint parts add up. */
export type BucketSums = ReadonlyMap<number, BucketSum>;

/** One row of a bucket without its values; of a table without a key, all rows of this content. */
export interface ListedRow {
  /** Text of each key column. Empty without a key. */
  readonly key: readonly string[];
  /** Both hashes as the server prints them. */
  readonly hash: string;
  readonly count: number;
}

/** One row that was found by its key: a hash of each column of the form; null is NULL. */
export interface FoundRow {
  readonly key: readonly string[];
  readonly columns: readonly (string | null)[];
}

/** The values of a row of a table without a key, shortened. */
export interface ShownRow {
  readonly hash: string;
  readonly values: readonly (string | null)[];
}

export interface Waiting {
  readonly signal: AbortSignal;
}

/** How many characters of a value `show` gives. */
export const SHOWN_CHARACTERS = 200;

/**
 * Computes on the server what tells the rows of one table from those of another, in the form of `row-form.ts`. All of it
 * belongs to the instant of the source. At most `concurrency` calls at once. Fails with kind `database`.
 */
export interface Fingerprints {
  /** Whether the server computes this hash exactly as `row-hash.ts` does. */
  agreesOn(hash: RowHash, options: Waiting): Promise<boolean>;
  count(table: SourceTable, options: Waiting): Promise<number>;
  sums(table: SourceTable, segment: Segment, request: SumsRequest): Promise<BucketSums>;
  /** Lists the rows of these buckets, some thousands at a time. */
  list(table: SourceTable, request: ListRequest): Promise<void>;
  /** Finds rows by the exact text of their keys, at most some hundreds at once. */
  find(table: SourceTable, request: FindRequest): Promise<readonly FoundRow[]>;
  /** Shows rows by their hashes: for tables without a key. */
  show(table: SourceTable, request: ShowRequest): Promise<readonly ShownRow[]>;
}

export interface SumsRequest extends Waiting {
  readonly form: RowForm;
  /** Only rows of these buckets, of as many as `of`: those of the form are parts of them. */
  readonly within?: { readonly buckets: readonly number[]; readonly of: number } | undefined;
}

export interface ListRequest extends Waiting {
  readonly form: RowForm;
  readonly buckets: readonly number[];
  readonly take: (rows: readonly ListedRow[]) => void;
}

export interface FindRequest extends Waiting {
  readonly form: RowForm;
  readonly keys: readonly (readonly string[])[];
}

export interface ShowRequest extends Waiting {
  readonly form: RowForm;
  readonly hashes: readonly string[];
}

/** Adds the sums of disjoint parts of one table. */
export function addSums(parts: readonly BucketSums[]): BucketSums {
  const [first, ...others] = parts;
  if (others.length === 0) return first ?? new Map();
  const total = new Map(first);
  for (const part of others) {
    for (const [bucket, sum] of part) {
      const known = total.get(bucket);
      total.set(
        bucket,
        known
          ? { rows: known.rows + sum.rows, first: known.first + sum.first, second: known.second + sum.second }
          : sum,
      );
    }
  }
  return total;
}
