import { OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import { findSnapshot } from "../snapshot/find-snapshot.ts";
import { listEverywhere, type LocateOptions, orUnread, type PlacedList } from "../snapshot/locate-snapshot.ts";
import { openRepository } from "../snapshot/repository.ts";

export interface PinSnapshotOptions extends LocateOptions {
  /** An id, a unique beginning of one, or `latest`. */
  readonly name: string;
  /** False takes the pin away. */
  readonly pinned: boolean;
  readonly now: Date;
}

export interface PinResult {
  readonly id: string;
  /** Destinations that have the pin now, or have lost it. */
  readonly destinations: readonly string[];
  readonly warnings: readonly string[];
}

/**
 * Pins a snapshot at every destination that has it, so that no retention removes it, or takes its pins away. A pin at
 * one destination holds at all of them. An encrypted one need not be opened. Fails with kind `usage` for an unknown snapshot; kind `archive` for a damaged one; kind `destination` when none
 * of its places takes the change.
 */
export async function pinSnapshot(options: PinSnapshotOptions): Promise<PinResult> {
  const { prefix, pinned, now, signal } = options;
  const { id, destinations, unread } = await findPlaces(options);
  const warnings = unread.map(({ destination, error }) => `${destination.name} was not asked: ${error.message}`);
  const changed: string[] = [];
  const errors: OperationalError[] = [];
  for (const destination of destinations) {
    try {
      await openRepository(destination, prefix).setPinned(id, pinned, { now, signal });
      changed.push(destination.name);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof OperationalError)) throw error;
      errors.push(error);
      const still = pinned ? "does not have the pin" : "still has the pin";
      warnings.push(`${destination.name} ${still}: ${error.message}`);
    }
  }
  if (changed.length === 0 && errors[0]) throw errors[0];
  return { id, destinations: changed, warnings };
}

/** Finds a snapshot and all its places, whether it can be opened or not. */
async function findPlaces(
  options: PinSnapshotOptions,
): Promise<Pick<PlacedList, "unread"> & { readonly id: string; readonly destinations: readonly Destination[] }> {
  const { snapshots, damaged, locked, unread } = await listEverywhere(options);
  const good = [
    ...snapshots,
    ...locked.map(({ id, envelope, destination }) => ({
      id,
      safetyOf: envelope?.facts?.isSafety ? true : undefined,
      destinations: [destination],
    })),
  ];
  const ids = new Set(good.map(({ id }) => id));
  const spoiled = damaged.filter((one) => !ids.has(one.id));
  const id = await orUnread({ ...options, unread }, () =>
    findSnapshot({ snapshots: good, damaged: spoiled, locked: [] }, { name: options.name }),
  );
  const error = spoiled.find((one) => one.id === id)?.error;
  if (error) throw error;
  return { id, unread, destinations: good.filter((one) => one.id === id).flatMap(({ destinations }) => destinations) };
}
