import type { SnapshotList } from "./snapshot-summary.ts";

/**
 * Finds the snapshots of one destination that need an earlier one which is not there, or not whole: what a list can tell. Gives
 * the id of one that each of them lacks.
 */
export function findBroken({
  snapshots,
  locked,
}: Pick<SnapshotList, "snapshots" | "locked">): ReadonlyMap<string, string> {
  const whole = new Set([...snapshots, ...locked].filter(({ isIncomplete }) => !isIncomplete).map(({ id }) => id));
  const broken = new Map<string, string>();
  const look = (id: string, references: readonly string[] = []) => {
    const lacking = references.find((needed) => !whole.has(needed));
    if (lacking !== undefined) broken.set(id, lacking);
  };
  for (const { id, references } of snapshots) look(id, references);
  for (const { id, envelope } of locked) look(id, envelope?.facts?.references);
  return broken;
}
