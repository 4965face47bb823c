import type { RowOptions, SourceTable, TableName } from "./driver.ts";
import type { PlaceHashes } from "./place-hashes.ts";

/**
 * What a server said of its own history at the instant of a snapshot. While a later one shows the same history going on,
 * the row headers of a table tell which rows are not those of this snapshot. All numbers are decimal texts.
 */
export interface TrustToken {
  readonly systemIdentifier: string;
  readonly databaseOid: string;
  /** The transaction that wrote the catalog's row of the database: a database can be made again with the number of another one. */
  readonly databaseXmin?: string | undefined;
  readonly timeline: string;
  /** When the server was started: after a restart nothing is believed. */
  readonly startedAt: string;
  readonly major: number;
  /** The snapshot itself, `xmin:xmax:running`. */
  readonly snapshot: string;
  /** The oldest transaction that ran at the snapshot, as a number of 64 bits. */
  readonly xmin: string;
  /** Where the log ended, in bytes; it was on the server's disk before the snapshot was finished. */
  readonly lsn: string;
  /** Transactions that were left behind before the snapshot, each with how it ended: `741c 742r`. */
  readonly witness?: string | undefined;
}

/** What must be the same in two snapshots of a table so that its rows can be compared by their headers. */
export interface TableMark {
  readonly oid: string;
  /** Another one: the table was rewritten, and every row moved. */
  readonly filenode: string;
  /** SHA-256 of all that makes text of a stored row: columns, missing values, types. */
  readonly digest: string;
}

/** What must be the same in two snapshots so that definitions are, when the server wrote no new row of them in between. */
export interface DefinitionsMark {
  /** Rows of all catalogs of the server that definitions are read from. */
  readonly rows: number;
  /** SHA-256 of what definitions depend on besides: names of roles, settings of the session, which tables the job leaves out … */
  readonly digest: string;
}

/** Heap pages `lo` (inclusive) to `hi` (exclusive). */
export interface PageRange {
  readonly lo: number;
  readonly hi: number;
}

/** The visible rows of one page by their line pointers, ascending. */
export interface PageRows {
  readonly page: number;
  readonly offsets: ArrayLike<number>;
}

/** A page whose rows may be others than those of the earlier snapshot. */
export type ChangedPage = ListedPage | SummedPage;

/** All its visible rows. */
export interface ListedPage extends PageRows {
  /** Line pointers of those that may be new, ascending. */
  readonly added: readonly number[];
}

/** What is cheaper to ask for: it tells which row is gone of a page that lost not more than one. */
export interface SummedPage {
  readonly page: number;
  readonly added: readonly number[];
  /** How many visible rows there are. */
  readonly rows: number;
  /** What `hashPlace` gives for each of their places, combined by exclusive or. */
  readonly hash: number;
}

/** What one look at the rows of a range tells. */
export interface RangeRows {
  /** Line pointers of rows that may be new, by their pages. */
  readonly added: ReadonlyMap<number, readonly number[]>;
  /** How many rows there are, those too. */
  readonly rows: number;
}

export interface ChangesQuestion extends PageRange {
  readonly since: TrustToken;
  readonly counts: () => Promise<Int32Array>;
  readonly seen: RangeRows | undefined;
}

export interface RowPlace {
  readonly page: number;
  readonly offset: number;
}

/** Bytes of one row in COPY text, and where it is; a row that is longer than a batch comes in several pieces. */
export interface PlacedBytes extends RowPlace {
  readonly bytes: Uint8Array;
  /** The newline is among them. */
  readonly isEnd: boolean;
}

/** Reads what row headers tell, all of it in the source's snapshot. */
export interface ChangeTracker {
  /** The server's word; a text says why there is none to be trusted. */
  readonly token: TrustToken | string;
  /** The server does not know the transactions that a backup left behind at the snapshot `since`: it was set back. */
  readonly isSetBack: boolean;
  /** For tables whose row headers prove nothing. */
  readonly hashes: PlaceHashes;
  /**
   * How the rows of chosen pages can be read: `ranges`: one range by itself; `scan`: the whole table in the order of its pages;
   * undefined: only as a whole, in any order.
   */
  waysTo(table: SourceTable): "ranges" | "scan" | undefined;
  /** Marks the tables by their names; a text says why headers of a table tell nothing. */
  marks(tables: readonly SourceTable[]): Promise<ReadonlyMap<string, TableMark | string>>;
  /** Pages of the table, at least as many as hold rows of the snapshot. */
  pagesOf(table: SourceTable): Promise<number>;
  /** The rows of every page that has some. */
  pageRows(table: SourceTable, range: PageRange): Promise<readonly PageRows[]>;
  /**
   * Counts the rows of a range and names those that may be from after a snapshot with this token. All others were there at that
   * snapshot: when there is none of the former and as many of the latter, the rows are the same. Undefined where the server does not
   * tell, or where it would not spare `changedPages` its own look.
   */
  rangeRows(table: SourceTable, range: PageRange & { readonly since: TrustToken }): Promise<RangeRows | undefined>;
  /**
   * The pages on which rows were added or lost since a snapshot with this token. `seen` is what `rangeRows` told of the range;
   * `counts` are the numbers of rows then, one for each page, asked for when the server has looked at the pages. A page that is not
   * given has the same rows as then; one that is given may have, too.
   */
  changedPages(table: SourceTable, question: ChangesQuestion): Promise<readonly ChangedPage[]>;
  /** A number of 32 bits, as in the sums of the pages; nothing wrong follows where the server computes another one. */
  hashPlace(this: void, page: number, offset: number): number;
  /** The visible rows of some pages, those without any left out or empty. */
  listPages(table: SourceTable, pages: readonly number[]): Promise<readonly PageRows[]>;
  /**
   * Reads these rows, in any order. The pieces of a batch must all be taken, and are only valid until the next batch is pulled. Fails
   * with kind `database`; `value-too-large` as `rows()` of the source does.
   */
  rowsAt(table: SourceTable, places: readonly RowPlace[], options: RowOptions): AsyncIterable<Iterable<PlacedBytes>>;
  /** Reads all rows in the order of their pages, as `rowsAt` does. */
  scan(table: SourceTable, options: RowOptions): AsyncIterable<Iterable<PlacedBytes>>;
  /** Waits until the log of all that the token and the description saw is on the server's disk; false when that takes too long. */
  isDurable(): Promise<boolean>;
}

/** How tables are named in `marks`. */
export function tableKey({ schema, name }: TableName): string {
  return JSON.stringify([schema, name]);
}
