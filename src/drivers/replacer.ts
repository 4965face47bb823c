import type { Definition, RowFormat, SequenceState, ServerIdentity, TableName } from "./driver.ts";
import type { RowMerge } from "./row-merge.ts";

/** A column of a table that is there already. */
export interface TargetColumn {
  readonly name: string;
  readonly type: string;
  readonly notNull: boolean;
  readonly hasDefault: boolean;
  readonly generated: boolean;
  readonly identity: boolean;
}

/** A table of the target as it is, under its lock. */
export interface TargetTable extends TableName {
  readonly columns: readonly TargetColumn[];
  /** Exact number of rows, those of partitions with it; only those with the condition, where there is one. */
  readonly rows: number;
  /** Only rows with this condition are replaced: the others came with an extension. */
  readonly condition?: string | undefined;
  /** Row security would hide rows from this login. */
  readonly rowSecurity: boolean;
  /** The partitioned tables above it: to replace their rows deletes its own. */
  readonly partitionOf: readonly TableName[];
  /** Triggers that are switched off while rows are replaced, and get their exact state back. */
  readonly triggers: readonly string[];
  /** Foreign keys from or to the table that are taken off and put on again, as `child.name`. */
  readonly foreignKeys: readonly string[];
  /** Sequences that give defaults to its rows, whoever owns them; those of partitions and the tables above it with it. */
  readonly sequences: readonly TableName[];
  /** What a person should know: rules that are passed by, publications that will send the change on. */
  readonly warnings: readonly string[];
}

export interface InspectOptions {
  /** With locks that keep writers out until the end; without them it is only a look. */
  readonly lock: boolean;
}

/** Rows for one table: the COPY bytes of one or several tables of a snapshot. */
export interface ReplacementRows {
  readonly table: TableName;
  /** The stored columns, in the order of the bytes. */
  readonly columns: readonly string[];
  readonly format: RowFormat;
  /** Of rows in `text`; left out: that of the session. */
  readonly encoding?: string | undefined;
  /** One stream of bytes for each COPY; binary ones have a header each. Each buffer is given away. */
  readonly streams: Iterable<AsyncIterable<Uint8Array>>;
}

/**
 * Replaces the rows of existing tables in one transaction. Disposed before `commit` it leaves the target as it was.
 * Order of calls: `inspect`, `open`, then `clear` and `load` for each table, `finish`, `commit`. For chosen rows only:
 * `inspect`, `openMerge`, `open`, `finish`, `commit`.
 */
export interface Replacer extends AsyncDisposable {
  readonly identity: ServerIdentity;
  /** Gives the tables that exist, in the order asked; missing ones are left out. */
  inspect(tables: readonly TableName[], options: InspectOptions): Promise<readonly TargetTable[]>;
  /** The definitions of the types that users made there, as a source describes them. */
  readTypes(): Promise<readonly Definition[]>;
  /** Switches triggers and rules ON DELETE off and takes foreign keys off, for exactly the inspected tables. */
  open(): Promise<void>;
  /** Makes ready to merge chosen rows into one inspected table, which has all these columns. Once in a transaction. */
  openMerge(table: TableName, columns: readonly string[]): Promise<RowMerge>;
  /** Deletes all rows and gives their number. Fails when a rule keeps some. */
  clear(table: TableName): Promise<number>;
  /** Loads rows and gives the number that the server stored. */
  load(rows: ReplacementRows): Promise<number>;
  /**
   * Takes the check off for which the last `load` into a table failed, or `apply` of its merge, or all that may have raised the error, until
   * `finish`, and what that did back: then it can be repeated. Only those that the definitions of the snapshot have too. Fails with the
   * error, and a better hint where there is one, when nothing is to be taken off: the restore has failed.
   */
  takeOffCheck(error: unknown, table: TableName, stored: readonly Definition[]): Promise<void>;
  /** Replaces large objects: those that the rows name get the content that the rows hold. */
  loadLargeObjects(bytes: AsyncIterable<Uint8Array>): Promise<void>;
  /**
   * Puts foreign keys, triggers and rules back as they were, moves sequences on. Gives warnings, also for checks that rows violate and for
   * tables whose rows were changed meanwhile.
   */
  finish(sequences: readonly SequenceState[]): Promise<readonly string[]>;
  countRows(table: TableName): Promise<number>;
  /** Gives the number of the transaction, by which the server tells what became of it (`findOutcome`). */
  transaction(): Promise<string>;
  /** Commits; an answer that was lost is asked for on another connection. Then analyses and refreshes. Gives warnings. */
  commit(): Promise<readonly string[]>;
}

/** What became of a transaction; `unknown` where the server cannot tell (any more), or is not the one that had it. */
export type Outcome = "committed" | "aborted" | "in progress" | "unknown";

/** A transaction that replaced rows, and the database in which it did. */
export interface PastReplacement {
  readonly transaction: string;
  readonly target: ServerIdentity;
}

export interface OpenReplacerOptions {
  readonly stallTimeoutMs: number;
  readonly signal: AbortSignal;
}
