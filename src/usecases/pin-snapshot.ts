import { OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import { locateSnapshot } from "../snapshot/locate-snapshot.ts";
import { openRepository } from "../snapshot/repository.ts";

export interface PinSnapshotOptions {
  readonly destinations: readonly Destination[];
  readonly prefix: string;
  /** An id, a unique beginning of one, or `latest`. */
  readonly name: string;
  /** False takes the pin away. */
  readonly pinned: boolean;
  readonly now: Date;
  readonly signal: AbortSignal;
}

export interface PinResult {
  readonly id: string;
  /** Destinations that have the pin now, or have lost it. */
  readonly destinations: readonly string[];
  readonly warnings: readonly string[];
}

/**
 * Pins a snapshot at every destination that has it, so that no retention removes it, or takes its pins away. A pin at
 * one destination holds at all of them. Fails with kind `archive` for an unknown snapshot; kind `destination` when none
 * of its places takes the change.
 */
export async function pinSnapshot(options: PinSnapshotOptions): Promise<PinResult> {
  const { prefix, pinned, now, signal } = options;
  const { id, destinations, unread } = await locateSnapshot({ ...options, choice: { name: options.name } });
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
    }
  }
  if (changed.length === 0 && errors[0]) throw errors[0];
  return { id, destinations: changed, warnings: [...warnings, ...errors.map(({ message }) => message)] };
}
