import type { OperationalError } from "../base/errors.ts";
import { archiveError } from "../archive/archive-error.ts";
import { type SnapshotId, compareSnapshotIds, parseSnapshotId } from "./snapshot-id.ts";

/** Which snapshot a person means: an id, a unique beginning of one, `latest`; or the newest one not younger than `at`. */
export type SnapshotChoice = { readonly name: string } | { readonly at: Date };

/** What is chosen from: a `SnapshotList`, or what is known of one. */
export interface ChoosableSnapshots {
  readonly snapshots: readonly { readonly id: string; readonly safetyOf?: unknown }[];
  readonly damaged: readonly Unusable[];
  readonly locked: readonly Unusable[];
}

interface Unusable {
  readonly id: string;
  readonly error: OperationalError;
}

/**
 * Gives the id of the chosen snapshot. A safety snapshot holds only what a restore replaced, so it must be named;
 * `latest` and `at` never mean one. A damaged or locked one is not passed over in silence: its error is thrown.
 * Fails with kind `archive`: `not-found`, `ambiguous`, or why the chosen one cannot be opened.
 */
export function findSnapshot(list: ChoosableSnapshots, choice: SnapshotChoice): string {
  if ("name" in choice && choice.name !== "latest") return findByName(list, choice.name);
  const damaged = new Map([...list.damaged, ...list.locked].map(({ id, error }) => [id, error]));
  const candidates = [
    ...list.snapshots.filter(({ safetyOf }) => safetyOf === undefined),
    ...list.damaged,
    ...list.locked,
  ]
    .map(({ id }) => parseSnapshotId(id))
    .filter((id): id is SnapshotId => id !== undefined && (!("at" in choice) || id.takenAt <= choice.at));
  const newest = candidates.toSorted(compareSnapshotIds).at(-1);
  if (newest === undefined) {
    const which = "at" in choice ? `a snapshot not younger than ${choice.at.toISOString()}` : "the latest snapshot";
    throw archiveError(`cannot find ${which}: there is none`, "not-found", { hint: "List the snapshots of this job." });
  }
  const error = damaged.get(newest.id);
  if (error) throw error;
  return newest.id;
}

function findByName(list: ChoosableSnapshots, name: string): string {
  const ids = [...list.snapshots, ...list.damaged, ...list.locked].map(({ id }) => id);
  if (ids.includes(name)) return name;
  const [found, another] = name === "" ? [] : ids.filter((id) => id.startsWith(name));
  if (found === undefined) {
    throw archiveError(`cannot find the snapshot ${JSON.stringify(name)}: there is none with this id`, "not-found", {
      hint: "List the snapshots of this job.",
    });
  }
  if (another !== undefined) {
    throw archiveError(`cannot choose the snapshot ${JSON.stringify(name)}: several ids begin like this`, "ambiguous", {
      hint: "Give more of the id.",
    });
  }
  return found;
}
