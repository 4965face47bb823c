import type { Destination } from "../destinations/destination.ts";
import { openRepository } from "../snapshot/repository.ts";
import { atEach } from "./at-each.ts";

/** Nothing is stored for so long by a run that still lives. */
const GARBAGE_LEASE_MS = 6 * 3_600_000;

export interface RemoveGarbageOptions {
  readonly destinations: readonly Destination[];
  readonly prefix: string;
  readonly now: Date;
  readonly warn: (message: string) => void;
  readonly signal: AbortSignal;
}

/**
 * Removes what runs left behind that died before their manifest, and prunes that died behind it. Nothing of it can be
 * restored, and nobody lists it.
 */
export async function removeGarbage(options: RemoveGarbageOptions): Promise<void> {
  const { destinations, prefix, now, warn, signal } = options;
  const remove = async (destination: Destination) => {
    const repository = openRepository(destination, prefix);
    const garbage = await repository.findGarbage({ now, leaseMs: GARBAGE_LEASE_MS, signal });
    await repository.removeGarbage(garbage, { signal });
    await destination.removeUnfinished?.(`${prefix}/`, { olderThanMs: GARBAGE_LEASE_MS, signal });
  };
  await atEach(destinations, remove, (error, { name }) =>
    warn(`what dead runs left at ${name} could not be removed: ${error.message}`),
  );
}
