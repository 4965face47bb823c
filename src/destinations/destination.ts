import { OperationalError } from "../base/errors.ts";

/**
 * Bytes of one object, produced again at each call so that a transfer can be tried anew from byte 0. They stay as they are until `put`
 * has settled, and nobody changes them: several destinations may have been given the same ones.
 */
export type OpenBytes = () => AsyncIterable<Uint8Array>;

export interface PutOptions {
  /**
   * Exact number of bytes that `open()` gives. Fewer or more is an error and leaves no object. Left out, where nobody knows it before
   * the end: then `open()` is called once only, and what fails behind that is not tried again.
   */
  readonly size?: number | undefined;
  /** Lower-case hex SHA-256 of the bytes, where the caller knows it: protocols that can check it do. */
  readonly sha256?: string | undefined;
  /** Fail with `exists` when the key is taken already; without it the object is replaced as a whole. */
  readonly exclusive?: boolean | undefined;
  /**
   * True for what only a restore reads (volumes): it may go to the cold storage class that the destination is set to.
   * Everything else stays readable at once, however cold that class is.
   */
  readonly archival?: boolean | undefined;
  /**
   * A local file with exactly these bytes that nobody writes to any more: one destination on the same file system may make
   * it a second name of its object instead of copying it; any further one copies. It may be deleted once `put` has settled.
   */
  readonly file?: string | undefined;
  /** Called when bytes have moved that were taken from the source long before: whoever waits knows that nothing stands still. */
  readonly onMoved?: (() => void) | undefined;
  readonly signal: AbortSignal;
}

export interface GetOptions {
  /** Bytes from `start` (inclusive) to `end` (exclusive), both within the object. */
  readonly range?: { readonly start: number; readonly end: number } | undefined;
  /** Size of the whole object where the caller knows it: a read that is taken up again belongs to an object of this size. */
  readonly size?: number | undefined;
  /** The caller is done with each part when it asks for the next one: its memory may be used again. */
  readonly reuse?: boolean | undefined;
  readonly signal: AbortSignal;
}

export interface GetSmallOptions {
  /** Larger objects are left out. */
  readonly maxBytes: number;
  readonly signal: AbortSignal;
}

export interface ObjectInfo {
  readonly key: string;
  readonly size: number;
  /** When the object was stored, by the destination's clock. */
  readonly modifiedAt: Date;
  /** The destination's own name of the storage class or tier, where it tells one. */
  readonly storageClass?: string | undefined;
  /**
   * Only from `stat`, and only for an object in an archive: `archived` cannot be read, `thawing` not yet, `thawed` can be
   * read until `thawedUntil`. Without it the object can be read at once.
   */
  readonly thaw?: "archived" | "thawing" | "thawed" | undefined;
  readonly thawedUntil?: Date | undefined;
}

export interface RemoveUnfinishedOptions {
  readonly olderThanMs: number;
  readonly countOnly?: boolean | undefined;
  readonly signal: AbortSignal;
}

export interface ThawOptions {
  /** For how many days the object stays readable, where the destination keeps the archived one beside it. */
  readonly days: number;
  /** How fast, and how dear; `standard` by default. */
  readonly tier?: ThawTier | undefined;
  readonly signal: AbortSignal;
}

export type ThawTier = "expedited" | "standard" | "bulk";

export interface ThawAnswer {
  readonly state: "readable" | "thawing";
  /** How many hours the destination takes at most by its documentation, counted from the first request. */
  readonly withinHours?: number | undefined;
}

export interface OpenDestinationOptions {
  readonly signal: AbortSignal;
  /** For who only reads: a missing folder is not made, and opening fails with `not-found`. Default: it is made. */
  readonly asItIs?: boolean | undefined;
  /** For a trial: disposal removes the folders that opening made there, where they are empty. Default: they stay. */
  readonly removesMade?: boolean | undefined;
}

/**
 * A place where objects are kept. Every implementation keeps these promises (the contract suite tests each one):
 *
 * - Keys are relative, `/`-separated, made of `[0-9A-Za-z._-]` segments that are neither `.` nor `..`;
 *   any other key fails with `invalid-key` before anything is touched.
 * - An object is visible whole or not at all. A `put` that fails or is aborted leaves the old object, or none.
 * - `get` of a missing key fails with `not-found`, of an object that must be thawed first with `archived`; bytes arrive in
 *   order and a short answer is an error, never an end.
 * - `stat` of a missing key gives undefined. `remove` of a missing key succeeds.
 * - `list(prefix)` gives every complete object whose key starts with `prefix`, in no promised order, in bounded memory,
 *   and never an unfinished one.
 * - Errors are `OperationalError`s of kind `destination` with a `DestinationReason` as code; an abort rejects with the
 *   signal's reason.
 */
export interface Destination extends AsyncDisposable {
  /** How the destination is named to people; never holds a secret. */
  readonly name: string;
  put(key: string, open: OpenBytes, options: PutOptions): Promise<void>;
  get(key: string, options: GetOptions): AsyncIterable<Uint8Array>;
  stat(key: string, options: { readonly signal: AbortSignal }): Promise<ObjectInfo | undefined>;
  list(prefix: string, options: { readonly signal: AbortSignal }): AsyncIterable<ObjectInfo>;
  remove(key: string, options: { readonly signal: AbortSignal }): Promise<void>;
  /**
   * Where that is cheaper than `get` of each: reads some objects whole. Undefined in the place of those that `get` must be
   * asked for: larger ones, missing ones, and whatever could not be read, which only `get` gives a reason for.
   */
  getSmall?(keys: readonly string[], options: GetSmallOptions): Promise<readonly (Uint8Array | undefined)[]>;
  /**
   * Where that is cheaper than `list`: gives the names of the folders right below this one (`shop`), perhaps also of such
   * that hold no complete object.
   */
  listFolders?(folder: string, options: { readonly signal: AbortSignal }): Promise<readonly string[]>;
  /**
   * Where unfinished objects can be left behind by a process that died: removes those whose key starts with `prefix` and
   * that nobody wrote to for `olderThanMs`. Gives their number. With `countOnly` they stay.
   */
  removeUnfinished?(prefix: string, options: RemoveUnfinishedOptions): Promise<number>;
  /** Where it can be known: how many bytes this login may still store. Undefined when the server does not tell. */
  freeBytes?(options: { readonly signal: AbortSignal }): Promise<number | undefined>;
  /**
   * Where objects can lie in an archive: asks for one to be made readable, which takes hours; `stat` tells when it is.
   * Asking again, or for an object that can be read, succeeds. Fails with `not-found`, with `unsupported` where the
   * server cannot do it (for this class, or this fast).
   */
  thaw?(key: string, options: ThawOptions): Promise<ThawAnswer>;
}

export type DestinationReason =
  | "not-found"
  | "exists"
  | "denied"
  | "full"
  | "unreachable"
  | "busy"
  | "archived"
  | "unsupported"
  | "invalid-key"
  | "failed";

/** Makes the error that a destination reports: `cannot <action> <destination name>/<key>: <reason in words>`. */
export function destinationError(
  message: string,
  code: DestinationReason,
  details: { readonly hint?: string | undefined; readonly cause?: unknown } = {},
): OperationalError {
  return new OperationalError(message, { kind: "destination", code, hint: details.hint, cause: details.cause });
}

const SEGMENT = /^(?!\.{1,2}$)[0-9A-Za-z._-]+$/;

/** Fails with `invalid-key` unless the key is safe on every destination (no traversal, no odd characters). */
export function assertKey(key: string): void {
  if (key.length > 900 || !key.split("/").every((segment) => SEGMENT.test(segment))) {
    throw destinationError(`cannot use the key ${JSON.stringify(key)}: it is not a plain relative name`, "invalid-key");
  }
}
