import type { Destination } from "../destinations/destination.ts";
import type { StateStore } from "../job/state-store.ts";
import { openRepository } from "../snapshot/repository.ts";
import { hasManifest, listSnapshotFolders } from "../snapshot/snapshot-folders.ts";
import { atEach } from "./at-each.ts";

export interface RemoveOwnRemainsOptions {
  readonly job: string;
  readonly state: StateStore;
  readonly destinations: readonly Destination[];
  /** Every destination of the job is among them: what is clean there is clean everywhere. */
  readonly areAll: boolean;
  readonly warn: (message: string) => void;
  readonly signal: AbortSignal;
}

/**
 * Removes what an earlier run of this job on this machine left behind when it died: its diary names the snapshots that it
 * began, and the job's lock, which the caller holds, says that nobody works on them any more. So nothing has to be old for it,
 * as what other machines left must be. A snapshot whose manifest was stored after all stays as it is.
 */
export async function removeOwnRemains(options: RemoveOwnRemainsOptions): Promise<void> {
  const { job, state, destinations, warn } = options;
  for (const { prefix, id } of state.unfinishedOf(job)) {
    let isClean = options.areAll;
    const remove = (destination: Destination) => removeAt(destination, { prefix, id }, options);
    await atEach(destinations, remove, (error, { name }) => {
      options.signal.throwIfAborted();
      isClean = false;
      warn(`what an earlier run left of ${id} at ${name} could not be removed: ${error.message}`);
    });
    if (isClean) state.endSnapshot(prefix, id);
  }
}

async function removeAt(
  destination: Destination,
  { prefix, id }: { readonly prefix: string; readonly id: string },
  { signal }: RemoveOwnRemainsOptions,
): Promise<void> {
  await destination.removeUnfinished?.(`${prefix}/${id}/`, { olderThanMs: 0, signal });
  const folder = (await listSnapshotFolders(destination, prefix, { id, signal })).get(id);
  if (folder === undefined || hasManifest(folder)) return;
  const keys = [...folder.keys()].map((name) => `${prefix}/${id}/${name}`);
  const bytes = [...folder.values()].reduce((sum, { size }) => sum + size, 0);
  await openRepository(destination, prefix).removeGarbage([{ id, keys, bytes }], { signal });
}
