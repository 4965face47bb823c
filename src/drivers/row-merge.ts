import type { ReplacementRows } from "./replacer.ts";

/**
 * What becomes of chosen rows. `replace`: those that are there go, those of the snapshot come. `insert-missing`: only rows
 * whose key is not there come. `upsert`: rows whose key is there get every stored value, the others come.
 */
export type MergeMode = "replace" | "insert-missing" | "upsert";

export interface MergeCounts {
  readonly deleted: number;
  readonly inserted: number;
  readonly updated: number;
}

export interface MarkRequest {
  /** Columns whose values `matches` gets: the server's text under the pinned settings, null for NULL. */
  readonly columns: readonly string[];
  readonly matches: (values: readonly (string | null)[]) => boolean;
}

/**
 * Merges rows into one existing table, by way of a temporary one, in the transaction of a `Replacer`. Order of calls: `stage`,
 * `mark` (only for `replace`), `count`; then, once the replacer is open, `apply`. Fails with kind `database`.
 */
export interface RowMerge {
  /** The columns of the primary key; none where the table has no key by whose equality rows can be found. */
  readonly primaryKey: readonly string[];
  /** Why rows cannot be merged there, one sentence each. */
  readonly problems: readonly string[];
  /** Loads rows beside the table and gives the number that the server stored. */
  stage(rows: Omit<ReplacementRows, "format">): Promise<number>;
  /** Remembers the rows of the table that match: `replace` deletes them, and those that have the key of a staged row. */
  mark(request: MarkRequest): Promise<void>;
  /** Counts what `apply` would do. */
  count(mode: MergeMode): Promise<MergeCounts>;
  /** Fails when afterwards the table does not hold what was staged. */
  apply(mode: MergeMode): Promise<MergeCounts>;
}
