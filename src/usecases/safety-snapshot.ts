import type { Lock } from "../archive/age-keys.ts";
import { codeOf, OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import type { ChosenTable, Connection, ServerIdentity, TableName } from "../drivers/driver.ts";
import type { Outcome, PastReplacement } from "../drivers/replacer.ts";
import { isSameDatabase } from "../drivers/same-database.ts";
import {
  allUnread,
  listEverywhere,
  type LocateOptions,
  orUnread,
  type PlacedList,
  type PlacedSnapshot,
  type UnopenedDestination,
} from "../snapshot/locate-snapshot.ts";
import type { SafetyOf } from "../snapshot/manifest.ts";
import { openRepository } from "../snapshot/repository.ts";
import { compareIdTexts } from "../snapshot/snapshot-id.ts";
import type { Marks } from "../snapshot/snapshot-summary.ts";
import { type BackUpOptions, backUp } from "./back-up.ts";
import type { Report } from "./progress.ts";

export interface SafetyOptions extends Pick<BackUpOptions, "otherIds"> {
  readonly connection: Connection;
  readonly job: string;
  readonly prefix: string;
  readonly destinations: readonly Destination[];
  readonly spoolFolder: string;
  /** What the job's snapshots are encrypted to: what was replaced is no less secret. */
  readonly lock?: Lock | undefined;
  /** The snapshot that is about to be restored. */
  readonly restoredSnapshot: string;
  /** Whether the restore replaces large objects: what it leaves alone, undo must leave alone too. */
  readonly largeObjects: boolean;
  readonly stallTimeoutMs: number;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/** What a restore is about to replace. */
export interface SafetyRequest extends Required<Pick<SafetyOf, "target" | "transaction">> {
  readonly tables: readonly TableName[];
}

/** What was kept of what a restore replaces. */
export interface SafetySnapshot {
  /** Undefined: nothing, as was wished. */
  readonly id?: string | undefined;
  /** One sentence for each destination that does not have it, or does not know that there is none. */
  readonly warnings: readonly string[];
  /** Removes it again, as far as that is possible now. */
  discard(): Promise<void>;
}

/** Who stops a restore does not wait longer for what is not needed any more. */
const DISCARD_TIMEOUT_MS = 30_000;

/** Keeps what a restore is about to replace, in a snapshot that `undo` puts back. Fails when no destination takes it. */
export async function takeSafetySnapshot(
  options: SafetyOptions,
  { tables, target, transaction }: SafetyRequest,
): Promise<SafetySnapshot & { readonly id: string }> {
  options.report({ type: "phase", text: "taking a safety snapshot of what will be replaced" });
  const wanted = new Set(tables.map(keyOf));
  const isWanted = (table: ChosenTable) =>
    wanted.has(keyOf(table)) || (table.partitionRoot !== undefined && wanted.has(keyOf(table.partitionRoot)));
  const { manifest, destinations } = await backUp({
    ...options,
    choose: (table) => (isWanted(table) ? "rows" : "excluded"),
    parallel: 1,
    compression: { codec: "zstd", level: 2 },
    files: [],
    isAwaited: true,
    safetyOf: { restoredSnapshot: options.restoredSnapshot, target, transaction },
  });
  const warnings = destinations
    .filter(({ status }) => status === "failed")
    .map(
      ({ name, error }) => `${name} does not have the safety snapshot ${manifest.id}: ${error?.message ?? "failed"}`,
    );
  const discard = async () => {
    const signal = AbortSignal.timeout(DISCARD_TIMEOUT_MS);
    await Promise.allSettled(
      options.destinations.map((destination) =>
        openRepository(destination, options.prefix).remove(manifest.id, { signal }),
      ),
    );
  };
  return { id: manifest.id, warnings, discard };
}

/**
 * Does what a safety snapshot was taken for. Where that was surely not done, the snapshot goes: `undo` would take it for what the last
 * restore replaced, and put back rows that people have changed since.
 */
export async function discardUnlessDone<T>(safety: SafetySnapshot | undefined, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    if (codeOf(error) !== "outcome-unknown") await safety?.discard();
    throw error;
  }
}

function keyOf({ schema, name }: TableName): string {
  return JSON.stringify([schema, name]);
}

/**
 * Remembers, in place of a safety snapshot, that a restore replaces rows and keeps none of them: what the last restore before it
 * replaced is not what `undo` is asked for. A destination that cannot take the mark is a warning.
 */
export async function passSafetySnapshot(
  options: LocateOptions & { readonly now: Date },
  { target }: SafetyRequest,
): Promise<SafetySnapshot> {
  const { snapshots } = await listEverywhere(options);
  const last = snapshots.findLast(({ safetyOf }) => safetyOf && isSameDatabase(safetyOf.target, target));
  if (!last || last.undoneAt !== undefined || last.passedAt !== undefined) {
    return { warnings: [], discard: async () => undefined };
  }
  const passedAt = options.now.toISOString();
  const failed = await markEverywhere(last, { passedAt }, options);
  return {
    warnings: failed.map(
      ({ name, error }) =>
        `${name} does not know that ${last.id} is not of the last restore any more: ${error.message}`,
    ),
    discard: async () => {
      await markEverywhere(
        last,
        { passedAt: undefined },
        { ...options, signal: AbortSignal.timeout(DISCARD_TIMEOUT_MS) },
      );
    },
  };
}

export interface FindSafetyOptions extends LocateOptions {
  readonly job: string;
  /** Only restores of this database count. Undefined: all of them. */
  readonly into?: ServerIdentity | undefined;
  /** Asks what became of the restore that took this one. */
  readonly askOutcome: (snapshot: PlacedSnapshot, past: PastReplacement) => Promise<Outcome>;
}

export interface FoundSafety {
  readonly snapshot: PlacedSnapshot;
  /** One sentence for what the server cannot tell: whether rows that people have changed since would be lost. */
  readonly doubts: readonly string[];
  /** Where the safety snapshot of a later restore may be: these did not answer. */
  readonly unread: readonly UnopenedDestination[];
}

/**
 * Finds the safety snapshot of the last restore: one that was killed before its COMMIT changed nothing and does not count.
 * Fails with kind `usage` when there is none, it was put back already or a later restore took none, `locked` when the restore
 * is still going on, and with a destination's failure where it may be there.
 */
export async function findSafetySnapshot(options: FindSafetyOptions): Promise<FoundSafety> {
  const list = await listEverywhere(options);
  const notRead = [...list.unread, ...damagedAfter(ofDatabase(list, options).at(-1), list)];
  const found = await orUnread({ ...options, unread: notRead }, () => findSafetyIn(list, options));
  return { ...found, unread: allUnread({ ...options, unread: list.unread }) };
}

/** The safety snapshots that count, the oldest first. */
function ofDatabase({ snapshots }: PlacedList, { into }: FindSafetyOptions): readonly PlacedSnapshot[] {
  return snapshots.filter(({ safetyOf }) => safetyOf !== undefined && (!into || isSameDatabase(safetyOf.target, into)));
}

/** Later ones of which no destination has a manifest that can be read: each may be of any restore. */
function damagedAfter(last: PlacedSnapshot | undefined, { snapshots, damaged }: PlacedList): PlacedList["damaged"] {
  return damaged.filter(
    ({ id }) => !snapshots.some((one) => one.id === id) && (!last || compareIdTexts(id, last.id) > 0),
  );
}

async function findSafetyIn(list: PlacedList, options: FindSafetyOptions): Promise<Omit<FoundSafety, "unread">> {
  const { snapshots, locked } = list;
  const { into } = options;
  const all = ofDatabase(list, options).toReversed();
  // One that is closed and not older may be the one that is meant: nothing is put back in its place.
  const closed = locked.find(({ id }) => id >= (all[0]?.id ?? "") && !snapshots.some((one) => one.id === id));
  if (closed) throw closed.error;
  let candidates = all;
  for (let last = candidates[0]; last; last = candidates[0]) {
    const { undoneAt, passedAt } = last;
    if (undoneAt !== undefined) throw nothingToUndo(options.job, { reason: `it was undone at ${undoneAt}` });
    if (passedAt !== undefined) {
      const reason = `it took no safety snapshot (--no-safety, ${passedAt})`;
      const hint = `rowkeep restore ${options.job} ${last.id} puts back what the restore before it replaced.`;
      throw nothingToUndo(options.job, { reason, hint });
    }
    const outcome = await outcomeOf(last, options);
    if (outcome !== "aborted") {
      const doubts = outcome === "unknown" ? [doubtOf(last, "the restore that took")] : [];
      return {
        snapshot: last,
        doubts: [
          ...doubts,
          ...(await refuseUndone(last, options)),
          ...(await orderDoubts(candidates, options)),
          ...damagedAfter(last, list).map(
            ({ error }) => `whether ${last.id} is of the last restore is not known: ${error.message}`,
          ),
        ],
      };
    }
    // What another database lost is not what is asked for now.
    const target = last.safetyOf?.target;
    candidates = candidates
      .slice(1)
      .filter(({ safetyOf }) => target && safetyOf && isSameDatabase(safetyOf.target, target));
  }
  const what = into ? `restore into ${into.database} at ${into.host}:${into.port}` : "restore";
  const reason = `no ${what} ${all.length > 0 ? "that was committed has left" : "has left"} a safety snapshot`;
  throw nothingToUndo(options.job, { reason });
}

/**
 * Fails unless this is still what the last restore replaced: somebody else may have undone it, or restored again, while a question
 * was open. Asked under the locks, so that nobody does it from then on.
 */
export async function checkStillLast({ id }: PlacedSnapshot, options: FindSafetyOptions): Promise<void> {
  const { snapshot } = await findSafetySnapshot(options);
  if (snapshot.id === id) return;
  throw new OperationalError(`cannot undo the last restore of ${options.job}: there has been another one meanwhile`, {
    kind: "refused",
    code: "restored-meanwhile",
    hint: `Look at it with rowkeep undo ${options.job} --plan; rowkeep restore ${options.job} ${id} puts back what the one before replaced.`,
  });
}

async function outcomeOf(snapshot: PlacedSnapshot, { job, askOutcome }: FindSafetyOptions): Promise<Outcome> {
  const { transaction, target } = snapshot.safetyOf ?? {};
  // Before this was recorded only a kill left the safety snapshot of a restore that changed nothing.
  if (transaction === undefined || target === undefined) return "committed";
  const outcome = await askOutcome(snapshot, { transaction, target });
  if (outcome === "in progress") throw stillGoingOn(job, "it");
  return outcome;
}

/** Fails when an `undo` that did not come to say so put the rows back. Gives a doubt when the server cannot tell. */
async function refuseUndone(last: PlacedSnapshot, { job, askOutcome }: FindSafetyOptions): Promise<readonly string[]> {
  const { undoingBy: transaction, safetyOf } = last;
  if (transaction === undefined || !safetyOf) return [];
  const outcome = await askOutcome(last, { transaction, target: safetyOf.target });
  if (outcome === "committed") throw nothingToUndo(job, { reason: "it was undone already" });
  if (outcome === "in progress") throw stillGoingOn(job, "an undo of it");
  return outcome === "unknown" ? [doubtOf(last, "an undo that put back")] : [];
}

/**
 * Transactions are numbered in their order, whatever a clock says, and a server that was set back begins again with lower numbers. A later
 * one that changed nothing is no doubt.
 */
async function orderDoubts(
  [last, ...others]: readonly PlacedSnapshot[],
  options: FindSafetyOptions,
): Promise<readonly string[]> {
  const { target, transaction } = last?.safetyOf ?? {};
  if (!last || !target || transaction === undefined) return [];
  for (const other of others) {
    const { safetyOf, undoneAt } = other;
    if (undoneAt !== undefined || safetyOf?.transaction === undefined) continue;
    if (!isSameDatabase(safetyOf.target, target) || BigInt(safetyOf.transaction) <= BigInt(transaction)) continue;
    if ((await outcomeOf(other, options)) === "aborted") continue;
    return [
      `which is of the last restore, ${last.id} or ${other.id}, is not known: a clock or the server was set back`,
    ];
  }
  return [];
}

function stillGoingOn(job: string, what: string): OperationalError {
  return new OperationalError(`cannot undo the last restore of ${job}: ${what} is still going on`, {
    kind: "locked",
    code: "restore-running",
    hint: "Wait until it has ended.",
  });
}

function doubtOf({ id, safetyOf }: PlacedSnapshot, what: string): string {
  const { database, host, port } = safetyOf?.target ?? {};
  return (
    `whether ${what} ${id} was committed is not known: only ${database} at ${host}:${port} can tell, ` +
    "for as long as it remembers"
  );
}

function nothingToUndo(
  job: string,
  { reason, hint }: { readonly reason: string; readonly hint?: string },
): OperationalError {
  return new OperationalError(`cannot undo the last restore of ${job}: ${reason}`, {
    kind: "usage",
    code: "nothing-to-undo",
    hint: hint ?? `rowkeep list ${job} shows what can be restored.`,
  });
}

/**
 * Remembers, before rows are put back and under their locks, which transaction does it: whoever gets the locks next, or comes after a
 * kill, can ask the server. A destination that cannot take it will not take the mark of `markUndone` either, which tells.
 */
export async function markUndoing(
  snapshot: PlacedSnapshot,
  { transaction }: Pick<SafetyRequest, "transaction">,
  options: MarkOptions,
): Promise<SafetySnapshot> {
  await markEverywhere(snapshot, { undoingBy: transaction }, options);
  // The mark of a transaction that was rolled back says nothing.
  return { warnings: [], discard: async () => undefined };
}

/**
 * Remembers at every destination that this safety snapshot was put back. The rows are back by then: a destination that
 * cannot take the mark is a warning, one sentence each.
 */
export async function markUndone(
  snapshot: PlacedSnapshot,
  options: MarkOptions & { readonly now: Date },
): Promise<readonly string[]> {
  const marks = { undoneAt: options.now.toISOString(), undoingBy: undefined };
  const failed = await markEverywhere(snapshot, marks, options);
  return failed.map(({ name, error }) => `${name} does not know that ${snapshot.id} was put back: ${error.message}`);
}

type MarkOptions = Pick<LocateOptions, "prefix" | "signal">;

/** Gives the destinations that did not take the marks. */
async function markEverywhere(
  { id, destinations }: PlacedSnapshot,
  marks: Marks,
  { prefix, signal }: MarkOptions,
): Promise<readonly { readonly name: string; readonly error: OperationalError }[]> {
  const failed: { name: string; error: OperationalError }[] = [];
  await Promise.all(
    destinations.map(async (destination) => {
      try {
        await openRepository(destination, prefix).mark(id, marks, { signal });
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof OperationalError)) throw error;
        failed.push({ name: destination.name, error });
      }
    }),
  );
  return failed;
}
