import { OperationalError } from "../base/errors.ts";
import { type SnapshotId, compareSnapshotIds, parseSnapshotId } from "./snapshot-id.ts";

/** Which snapshot a person means: an id, a unique beginning of one, `latest`, or a time: the newest one not younger than that. */
export interface SnapshotChoice {
  readonly name: string;
}

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
 * `latest` and a time never mean one. A damaged or locked one is not passed over in silence: its error is thrown.
 * Fails with kind `usage`: `not-found`, `ambiguous`; or with why the chosen one cannot be opened.
 */
export function findSnapshot(list: ChoosableSnapshots, { name }: SnapshotChoice): string {
  const at = parseTime(name);
  if (at === undefined && name !== "latest") return findByName(list, name);
  const damaged = new Map([...list.damaged, ...list.locked].map(({ id, error }) => [id, error]));
  const candidates = [
    ...list.snapshots.filter(({ safetyOf }) => safetyOf === undefined),
    ...list.damaged,
    ...list.locked,
  ]
    .map(({ id }) => parseSnapshotId(id))
    .filter((id): id is SnapshotId => id !== undefined && (at === undefined || id.takenAt <= at));
  const newest = candidates.toSorted(compareSnapshotIds).at(-1);
  if (newest === undefined) {
    const which = at ? `a snapshot not younger than ${at.toISOString()}` : "the latest snapshot";
    throw noSnapshot(`cannot find ${which}: there is none`);
  }
  const error = damaged.get(newest.id);
  if (error) throw error;
  return newest.id;
}

/** Reads a time as people write it, `2026-11-20T09:03`: local time where it names no zone. No id of a snapshot looks like one. */
export function parseTime(text: string): Date | undefined {
  if (!/^\d{4}-\d{2}-\d{2}/.test(text)) return undefined;
  // A date alone would be midnight UTC in JavaScript, but a date with a time local: people mean local both times.
  const time = new Date(/^\d{4}-\d{2}-\d{2}$/.test(text) ? `${text}T00:00` : text);
  return Number.isNaN(time.getTime()) ? undefined : time;
}

function findByName(list: ChoosableSnapshots, name: string): string {
  const ids = [...list.snapshots, ...list.damaged, ...list.locked].map(({ id }) => id);
  if (ids.includes(name)) return name;
  const [found, another] = name === "" ? [] : ids.filter((id) => id.startsWith(name));
  if (found === undefined) {
    throw noSnapshot(`cannot find the snapshot ${JSON.stringify(name)}: there is none with this id`);
  }
  if (another !== undefined) {
    throw new OperationalError(`cannot choose the snapshot ${JSON.stringify(name)}: several ids begin like this`, {
      kind: "usage",
      code: "ambiguous",
      hint: "Give more of the id.",
    });
  }
  return found;
}

/** Makes the error for a snapshot that nobody has: no damage, but another name than was meant. */
export function noSnapshot(message: string, hint = "List the snapshots of this job."): OperationalError {
  return new OperationalError(message, { kind: "usage", code: "not-found", hint });
}
