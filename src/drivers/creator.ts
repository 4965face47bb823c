import type { Definition, ObjectOwner, RowFormat, SequenceState, ServerIdentity, TableName } from "./driver.ts";

export interface CreateRows {
  readonly table: TableName;
  readonly columns: readonly string[];
  readonly format: RowFormat;
  /** Of rows in `text`; left out: that of the session. */
  readonly encoding?: string | undefined;
  /** One stream of bytes for each COPY; each buffer is given away. */
  readonly streams: Iterable<AsyncIterable<Uint8Array>>;
  /** The rows go into a table that this restore made and nobody else fills: they may be written as if long there. */
  readonly isWhole: boolean;
}

/** A role that objects of the snapshot belonged to, as the target knows it. */
export interface OwnerRole {
  readonly role: string;
  readonly exists: boolean;
  /** The connected role may give objects to it. */
  readonly isAssignable: boolean;
}

/** An object that did not get its owner. */
export interface OwnerFailure extends ObjectOwner {
  readonly reason: string;
}

export interface Ownership {
  readonly assign: readonly ObjectOwner[];
  /** Rights of owners on what is theirs: each definition names its owner. */
  readonly rights: readonly Definition[];
}

export interface Finished {
  readonly warnings: readonly string[];
  readonly ownerFailures: readonly OwnerFailure[];
}

/**
 * Fills an empty database. Several connections work side by side, so it is no single transaction: a marker in the
 * database tells, until the end, that what is there is unfinished, and whose it is. `abandon` empties it again.
 */
export interface Creator extends AsyncDisposable {
  readonly identity: ServerIdentity;
  /** Names what a user made there; empty for a new database. */
  findContent(): Promise<readonly string[]>;
  /** Whether a marker says that an earlier restore did not end: what it left counts as content until it is cleared. */
  isInterrupted(): Promise<boolean>;
  /**
   * Empties a database in which a marker says that an earlier restore did not end; false where there is none.
   * Fails with kind `refused`, `busy`, while another restore fills this database; keeps others out from then on.
   */
  clearInterrupted(): Promise<boolean>;
  /**
   * Sets the marker and executes the definitions that come before the rows, all or none of them. What only a superuser may
   * make and nothing but convenience needs is left out for others: gives one sentence each.
   */
  begin(snapshot: string, definitions: readonly Definition[]): Promise<readonly string[]>;
  /** Loads rows on a connection of its own; may run concurrently. Gives the number of rows that the server stored. */
  load(rows: CreateRows): Promise<number>;
  /**
   * Takes the check off for which `load` failed for a table, or all that may have raised the error; gives what puts them on again when all
   * rows are there, nothing where it is gone already. Undefined: it failed for something else.
   */
  takeOffCheck(error: unknown, table: TableName): Promise<readonly Definition[] | undefined>;
  /**
   * Tells why rows that `load` refused may be taken later: they name what nothing has yet (regclass, regprocedure …), or belong to another
   * partition today, or a function raised an error that may look for rows of other tables. Undefined: they may not.
   */
  whyLater(error: unknown): "unknown-name" | "other-partition" | "raised" | undefined;
  /**
   * Executes a definition behind the rows, on a connection of its own; may run concurrently. `idle` further connections have nothing
   * to do meanwhile: the server may use as many more processes for an index. What a restore can do without is left out where
   * the server refuses it, and a foreign key or check that rows violate is NOT VALID: gives the sentence that says so.
   */
  create(definition: Definition, idle?: number): Promise<string | undefined>;
  /** Takes the statistics of a table that is complete; may run concurrently. What the server refuses is no error: gives the sentence. */
  analyse(table: TableName): Promise<string | undefined>;
  loadLargeObjects(bytes: AsyncIterable<Uint8Array>): Promise<void>;
  /** What the target knows of these roles, in their order. */
  readOwnerRoles(roles: readonly string[]): Promise<readonly OwnerRole[]>;
  /**
   * Sets sequences, analyses what `analyse` was not asked for, names generated columns that would be computed otherwise now, gives objects to
   * their owners, executes the rights of those that own their object now, removes the marker. An owner or right that cannot be set is no error.
   */
  finish(sequences: readonly SequenceState[], owners: Ownership): Promise<Finished>;
  /** Drops everything that this restore made, while the marker is there; nothing when it did not come to `begin`. */
  abandon(): Promise<void>;
}

export interface OpenCreatorOptions {
  readonly stallTimeoutMs: number;
  readonly signal: AbortSignal;
}
