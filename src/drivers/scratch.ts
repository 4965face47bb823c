import type { Connection, ServerIdentity } from "./driver.ts";

/**
 * A database made for one drill. It holds nothing but what the drill puts there. Disposal drops it, also after a failure
 * or an abort, and never fails: `onLeft` is told when it could not be dropped.
 */
export interface Scratch extends AsyncDisposable {
  readonly name: string;
  /** Leads to the scratch database. */
  readonly connection: Connection;
  readonly identity: ServerIdentity;
  /** What killed drills had left on this server and is gone now. */
  readonly removed: readonly string[];
  /** Sentences about what is not as at the source, and about leftovers that were not removed. */
  readonly notes: readonly string[];
  /** Makes row security bind its tables' owner no more, so that every row can be read again. */
  admitOwner(): Promise<void>;
}

export interface OpenScratchOptions {
  /** The database that will be restored into it: its encoding and collation are taken over. */
  readonly like: ServerIdentity;
  /** What the drill restores; kept in the comment by which a leftover is recognised. */
  readonly snapshot: string;
  readonly now: Date;
  readonly stallTimeoutMs: number;
  readonly signal: AbortSignal;
  readonly onLeft: (message: string) => void;
}
