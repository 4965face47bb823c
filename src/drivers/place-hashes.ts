import type { SourceTable } from "./driver.ts";
import type { RowForm } from "./row-form.ts";
import type { RowHash } from "./row-hash.ts";

/** What is known of the rows of one unit, a range of pages: see `PlaceHashes`. */
export interface PlaceSum {
  readonly unit: number;
  readonly rows: number;
  /** Sums of the signed 64-bit hashes, exact. */
  readonly first: bigint;
  readonly second: bigint;
}

/** The visible rows of one page by their line pointers, ascending, each with both of its hashes. */
export interface HashedPage {
  readonly page: number;
  readonly offsets: readonly number[];
  /** 16 bytes a row, in the order of the offsets: two signed 64-bit numbers, the highest byte first. */
  readonly hashes: Buffer;
}

/**
 * Computes on the server what tells the rows of a range of pages from those that an earlier snapshot has of it: two hashes of each
 * row as `row-form.ts` writes it down, behind its place and a separator: `(12,3)|.|` and so on, for a form in which every value may be
 * NULL. So a row that changed or moved, or two that exchanged anything, change both sums but for a chance of 2^-128. All of it belongs to the instant of the source.
 */
export interface PlaceHashes {
  /** Whether the server computes this hash exactly as `row-hash.ts` does. */
  agreesOn(hash: RowHash): Promise<boolean>;
  /** Sums up units of `pages` pages each; unit 2 begins at page 2 × `pages`. Units without rows are left out. */
  sums(
    table: SourceTable,
    request: { readonly form: RowForm; readonly units: readonly number[]; readonly pages: number },
  ): Promise<readonly PlaceSum[]>;
  /** Hashes the rows of these pages one by one. Pages without rows are left out. */
  rows(
    table: SourceTable,
    request: { readonly form: RowForm; readonly pages: readonly number[] },
  ): Promise<readonly HashedPage[]>;
}

/** Hashes of one row in `HashedPage.hashes`. */
export const HASHES_BYTES = 16;

/** What stands before the line of a row. */
export function placeText(page: number, offset: number, { separator }: Pick<RowForm, "separator">): string {
  return `(${page},${offset})${separator}`;
}
