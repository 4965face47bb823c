import type { Lock } from "../archive/age-keys.ts";
import { codeOf, OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import type { Connection, ServerIdentity, TableName } from "../drivers/driver.ts";
import type { ChosenTable } from "../drivers/driver.ts";
import { listEverywhere, type LocateOptions, type PlacedSnapshot } from "../snapshot/locate-snapshot.ts";
import { openRepository } from "../snapshot/repository.ts";
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

/** What was kept of what a restore replaces. */
export interface SafetySnapshot {
  readonly id: string;
  /** One sentence for each destination that does not have it. */
  readonly warnings: readonly string[];
  /** Removes it again, as far as that is possible now. */
  discard(): Promise<void>;
}

/** Who stops a restore does not wait longer for what is not needed any more. */
const DISCARD_TIMEOUT_MS = 30_000;

/** Keeps what a restore is about to replace, in a snapshot that `undo` puts back. Fails when no destination takes it. */
export async function takeSafetySnapshot(
  options: SafetyOptions,
  tables: readonly TableName[],
  target: ServerIdentity,
): Promise<SafetySnapshot> {
  const wanted = new Set(tables.map(keyOf));
  const isWanted = (table: ChosenTable) =>
    wanted.has(keyOf(table)) || (table.partitionRoot !== undefined && wanted.has(keyOf(table.partitionRoot)));
  const { manifest, destinations } = await backUp({
    ...options,
    choose: (table) => (isWanted(table) ? "rows" : "excluded"),
    parallel: 1,
    compression: { codec: "zstd", level: 2 },
    files: [],
    safetyOf: { restoredSnapshot: options.restoredSnapshot, target },
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

export interface FindSafetyOptions extends LocateOptions {
  readonly job: string;
}

/** Finds the safety snapshot of the last restore. Fails with kind `usage` when there is none, or it was put back already. */
export async function findSafetySnapshot(options: FindSafetyOptions): Promise<PlacedSnapshot> {
  const { snapshots, locked } = await listEverywhere(options);
  const last = snapshots.findLast(({ safetyOf }) => safetyOf !== undefined);
  // One that is closed and not older may be the one that is meant: nothing is put back in its place.
  const closed = locked.find(({ id }) => id >= (last?.id ?? "") && !snapshots.some((one) => one.id === id));
  if (closed) throw closed.error;
  if (last && last.undoneAt === undefined) return last;
  const reason = last ? `it was undone at ${last.undoneAt}` : "no restore has left a safety snapshot";
  throw new OperationalError(`cannot undo the last restore of ${options.job}: ${reason}`, {
    kind: "usage",
    code: "nothing-to-undo",
    hint: `rowkeep list ${options.job} shows what can be restored.`,
  });
}

/**
 * Remembers at every destination that this safety snapshot was put back. The rows are back by then: a destination that
 * cannot take the mark is a warning, one sentence each.
 */
export async function markUndone(
  snapshot: PlacedSnapshot,
  prefix: string,
  options: { readonly now: Date; readonly signal: AbortSignal },
): Promise<readonly string[]> {
  const marks = { undoneAt: options.now.toISOString() };
  const warnings = await Promise.all(
    snapshot.destinations.map(async (destination) => {
      try {
        await openRepository(destination, prefix).mark(snapshot.id, marks, options);
        return [];
      } catch (error) {
        options.signal.throwIfAborted();
        if (!(error instanceof OperationalError)) throw error;
        return [`${destination.name} does not know that ${snapshot.id} was put back: ${error.message}`];
      }
    }),
  );
  return warnings.flat();
}
