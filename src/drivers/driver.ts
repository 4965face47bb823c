/**
 * The two halves of a driver: a `Source` is one database at one instant, a `Target` is one restore.
 * Rows cross this border as encoded bytes: whole tables in PostgreSQL's COPY text format (tab-separated columns,
 * `\N` for NULL, newline after every row; https://www.postgresql.org/docs/current/sql-copy.html), whatever the engine.
 */

import type { ChangeTracker, DefinitionsMark, TrustToken } from "./change-tracker.ts";
import type { Fingerprints } from "./fingerprints.ts";

export type Engine = "postgres";

/** How much of "one instant" was really obtained. */
export type Consistency = "snapshot" | "per-table" | "none";

/** What tells two servers and databases apart; kept in the manifest to refuse the wrong target. */
export interface ServerIdentity {
  readonly engine: Engine;
  /** As the server says it: `15.18`. */
  readonly version: string;
  readonly database: string;
  /** Encoding of the stored text: `UTF8`, `SQL_ASCII`. */
  readonly encoding: string;
  readonly collation?: string | undefined;
  /** PostgreSQL's system identifier: the same for a primary and its physical replicas. */
  readonly systemIdentifier?: string | undefined;
  /** The database's oid: with the system identifier it names one database of one cluster. */
  readonly databaseOid?: string | undefined;
  readonly host?: string | undefined;
  readonly port?: number | undefined;
  readonly user: string;
  readonly isReplica: boolean;
}

export interface TableName {
  readonly schema: string;
  readonly name: string;
}

export interface Column {
  readonly name: string;
  /** The type as the engine prints it, with its modifiers: `numeric(12,2)`, `character varying(40)[]`. */
  readonly type: string;
  readonly notNull: boolean;
  /** Present when the value is computed by the server: such columns are not stored. */
  readonly generated?: "stored" | "virtual" | undefined;
  readonly identity?: "always" | "by-default" | undefined;
}

/** One table whose rows are stored (a plain table or a leaf partition; never a view or a partitioned root). */
export interface SourceTable extends TableName {
  /** All columns in the table's order, generated ones too. */
  readonly columns: readonly Column[];
  readonly primaryKey: readonly string[];
  /** The topmost partitioned table, for a leaf partition: rows are restored through it. */
  readonly partitionRoot?: TableName | undefined;
  /** Rows of another partition of that root are not read, so the root must never be emptied as a whole. */
  readonly isRootPartial?: boolean | undefined;
  /** The server's estimates: for progress and for the order of work only. */
  readonly estimatedRows: number;
  /** Bytes on the server's disk, with TOAST, without indexes. */
  readonly bytes: number;
  /** Only the rows with this condition belong to the backup (an extension's configuration table); SQL of the catalog. */
  readonly condition?: string | undefined;
}

/** A counter that lives outside the snapshot. Read last, so that it is never behind the rows. */
export interface SequenceState extends TableName {
  readonly lastValue: string;
  readonly isCalled: boolean;
  readonly increment: string;
  /** The column that owns it (serial or identity). */
  readonly ownedBy?: { readonly schema: string; readonly table: string; readonly column: string } | undefined;
}

/** Who owns an object. */
export interface ObjectOwner {
  readonly role: string;
  /** The object as a statement addresses it: `TABLE public.orders`. */
  readonly object: string;
}

/** One object's definition: SQL that creates it again under `search_path = ''`. */
export interface Definition {
  /** `pre-data`: before the rows. `post-data`: after them (indexes, keys, triggers, rules, policies …). */
  readonly section: "pre-data" | "post-data";
  /** `schema`, `extension`, `type`, `table`, `index`, `constraint`, `foreign-key`, `trigger`, `view`, `comment`, `grant` … */
  readonly kind: string;
  readonly schema?: string | undefined;
  readonly name: string;
  /** The table that it belongs to (a column default, an index, a trigger …), so that it can be left out with it. */
  readonly table?: TableName | undefined;
  /** Missing where the object has no owner of its own. `sql` does not set it. With a `grant`: `sql` is for the owner alone, while it is that role. */
  readonly owner?: ObjectOwner | undefined;
  /** Places, in the same list, of what must be there before it; missing in snapshots that do not tell. */
  readonly needs?: readonly number[] | undefined;
  readonly sql: string;
}

/** What a database holds besides rows, at the instant of its source. */
export interface DatabaseDescription {
  /** In an order in which they can be executed, pre-data first. */
  readonly definitions: readonly Definition[];
  /** Objects that were found and are not in the backup, one sentence each: `publication "p" is not captured`. */
  readonly notCaptured: readonly string[];
  /** How many large objects there are (PostgreSQL); they are read by `largeObjects()`. */
  readonly largeObjects: number;
  /** For the next incremental; only of a source that tracks changes. */
  readonly mark?: DefinitionsMark | undefined;
}

/** What an earlier snapshot says of its definitions. Whoever gives it believes the token, and that this rowkeep would write them so. */
export interface EarlierDefinitions extends Pick<DatabaseDescription, "definitions" | "notCaptured"> {
  readonly token: TrustToken;
  readonly mark: DefinitionsMark;
}

export interface DescribeOptions {
  /** Given back as they are where it is certain that nothing changed since. Left out: definitions are read. */
  readonly earlier?: EarlierDefinitions | undefined;
  readonly signal: AbortSignal;
}

/**
 * A bounded part of one table, made by the source's `segments()`. Opaque to everyone else but for its size.
 * The segments of a table are disjoint and complete, whatever was inserted since the estimate.
 */
export interface Segment {
  /** Heap pages `lo` (inclusive) to `hi` (exclusive; undefined = to the end). Undefined: the whole table. */
  readonly pages?: { readonly lo: number; readonly hi?: number | undefined } | undefined;
  readonly estimatedBytes: number;
}

/** Encoded rows. `bytes` is only valid until the next batch is pulled: it may be overwritten then. */
export interface RowBatch {
  readonly bytes: Uint8Array;
  /** How many rows *end* in these bytes. A row larger than a batch spans several. */
  readonly rows: number;
}

export type RowFormat = "text" | "binary";

export interface RowOptions {
  /** Default `text`. `binary` is for tables with a value that text cannot carry (`value-too-large`). */
  readonly format?: RowFormat | undefined;
  /** Where to cut: a batch ends at the last row end at or below this many bytes, or inside a row that is larger. */
  readonly batchBytes: number;
  readonly signal: AbortSignal;
}

/** One database at one instant, read by several connections. Disposal ends every connection; the server rolls back. */
export interface Source extends AsyncDisposable {
  readonly identity: ServerIdentity;
  readonly consistency: Consistency;
  /** The instant of the snapshot by the server's clock. */
  readonly takenAt: Date;
  /** How many `rows()` streams can run at once. */
  readonly concurrency: number;
  /** Session settings that were pinned for the encoding of rows; recorded in the manifest. */
  readonly settings: Readonly<Record<string, string>>;
  /** The tables whose rows can be read. */
  readonly tables: readonly SourceTable[];
  /** Reads what there is besides rows; streams of rows may run meanwhile. */
  describe(options: DescribeOptions): Promise<DatabaseDescription>;
  /** Divides a table into about this many segments, or fewer where the engine reads a table only as a whole. */
  segments(table: SourceTable, pieces: number): readonly Segment[];
  /**
   * Streams the rows of one segment. At most `concurrency` streams at once; a stream that is left early closes its
   * connection. Fails with kind `database` (`value-too-large`: a value cannot be sent as text;
   * `unconvertible`: one has no equivalent in UTF-8); never ends short.
   */
  rows(table: SourceTable, segment: Segment, options: RowOptions): AsyncIterable<RowBatch>;
  /**
   * Streams large objects as rows `oid <tab> offset <tab> bytea` in COPY text, in order of oid and offset;
   * a large object without content gives one row with an empty value.
   */
  largeObjects(options: RowOptions): AsyncIterable<RowBatch>;
  /** What tells the rows of one table from those of another, computed where they are. */
  readonly fingerprints: Fingerprints;
  /**
   * Reads the sequences. Those that count are read after the last row; from the first call on none of them can be dropped.
   * Fails with kind `database`: `denied`, and `schema-changed` where one of the snapshot was dropped before.
   */
  sequences(options: { readonly signal: AbortSignal }): Promise<readonly SequenceState[]>;
  /** Ends its sessions for good without a wait for the server, which takes a while for that: the process may end meanwhile. */
  leave(): void;
  /** Tells what changed since an earlier snapshot; undefined where that was not asked for. */
  readonly tracker?: ChangeTracker | undefined;
}

export type TlsMode = "verify-full" | "ca" | "insecure" | "off";

/** How to reach one database, with every secret already resolved. Never logged. */
export interface Connection {
  readonly engine: Engine;
  /** Host name, address, or the folder of a Unix socket. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password?: string | undefined;
  readonly database: string;
  readonly tls: TlsMode;
  /** PEM text of the certificate authority for `tls: ca` or `verify-full`. */
  readonly ca?: string | undefined;
}

/** A table to choose for or against; a partition is also chosen by the name of its root. */
export interface ChosenTable extends TableName {
  readonly partitionRoot?: TableName | undefined;
}

/** What the job does with one table: store its rows, store its definition only, or leave it out. */
export type TableChoice = "rows" | "schema-only" | "excluded";

export interface ConnectOptions {
  /** Connections that read rows; the source may open one more to hold the snapshot. */
  readonly parallel: number;
  /** Give up on a connection that delivered nothing for so long. */
  readonly stallTimeoutMs: number;
  readonly signal: AbortSignal;
}

/** Connections that are being opened for a source. Those that no source took are closed with it; it never fails. */
export type EarlyConnections = AsyncDisposable;

export interface OpenSourceOptions extends ConnectOptions {
  readonly choose: (table: ChosenTable) => TableChoice;
  /** Made for this connection; left out, or where an earlier source took them: the source opens its own. */
  readonly early?: EarlyConnections | undefined;
  /** Open a tracker too. */
  readonly track?: boolean | undefined;
  /** Rows come in the encoding of the database and not in UTF-8, which has no equivalent for some of their text. */
  readonly ownEncoding?: boolean | undefined;
  /** Locks are held elsewhere until the snapshot is taken, and who waits for them holds it up: it fails soon where others would wait. */
  readonly isAwaited?: boolean | undefined;
  /** What the server said at the snapshot that an incremental builds on. */
  readonly since?: TrustToken | undefined;
}

export interface ProbedTable extends TableName {
  readonly estimatedRows: number;
  readonly bytes: number;
}

/** What a first look at a server shows. */
export interface Probe {
  readonly identity: ServerIdentity;
  /** Databases that this login may connect to, templates left out. */
  readonly databases: readonly string[];
  /** Tables of the connected database, the largest first, by the server's estimates. */
  readonly tables: readonly ProbedTable[];
  /** The server's clock minus this machine's. */
  readonly clockSkewMs: number;
}
