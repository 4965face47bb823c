import { referrersFirst } from "./plan-retention.ts";

/** A snapshot that is there when a new one is made. */
export interface EarlierSnapshot {
  /** Ids of the snapshots that it refers to. */
  readonly references: readonly string[];
  /** Bytes of all its own volumes. */
  readonly volumeBytes: number;
  /** Wherever the new snapshot goes, nothing keeps this one but snapshots that refer to it. */
  readonly staysOnlyForOthers: boolean;
}

export interface CarryOverQuestion {
  /** Stored bytes that the new snapshot would need of each earlier one that it would refer to, by id. */
  readonly needed: ReadonlyMap<string, number>;
  /** What is known of these and of all that they refer to. When one of them is missing, nothing is carried over. */
  readonly earlier: ReadonlyMap<string, EarlierSnapshot>;
  /** Those of which nothing can be carried over now. */
  readonly unreadable?: ReadonlySet<string> | undefined;
}

/** What is stored again must be less than this part of what can go. */
const MOSTLY_DEAD = 0.4;

/**
 * Names the snapshots that a new one shall not refer to: it stores again what it would need of them. A snapshot stays with all that
 * it refers to, so an old one cannot go while the new one refers to any that needs it. Therefore it is always everything from one
 * snapshot on, up to the newest, and what counts is how much stays for the sake of all of these alone. Where the line is drawn, each
 * further step back would have to store again more than 40 % of what it frees.
 */
export function planCarryOver({ needed, earlier, unreadable }: CarryOverQuestion): readonly string[] {
  if (needed.keys().some((id) => !earlier.has(id))) return [];
  const reach = new Set<string>();
  const reachBytes = addReach(needed.keys(), earlier, reach);
  const snapshots = [...reach].map((id) => ({ id, references: earlier.get(id)?.references ?? [] }));
  const oldestFirst = referrersFirst([...reach].sort(), snapshots)
    .filter((id) => needed.has(id))
    .reverse();
  const held = new Set<string>();
  let heldBytes = 0;
  const freed = oldestFirst.map((id) => {
    const bytes = reachBytes - heldBytes;
    heldBytes += addReach([id], earlier, held);
    return bytes;
  });
  let best = { gain: 0, from: oldestFirst.length };
  let cost = 0;
  for (const [from, id] of [...oldestFirst.entries()].reverse()) {
    cost += unreadable?.has(id) ? Infinity : (needed.get(id) ?? 0);
    const gain = MOSTLY_DEAD * (freed[from] ?? 0) - cost;
    if (gain > best.gain) best = { gain, from };
  }
  return oldestFirst.slice(best.from);
}

/** Adds these snapshots to `reach`, and what they refer to. Gives the bytes of those added that stay for others only. */
function addReach(ids: Iterable<string>, earlier: ReadonlyMap<string, EarlierSnapshot>, reach: Set<string>): number {
  const queue = [...ids];
  let bytes = 0;
  for (let id = queue.pop(); id !== undefined; id = queue.pop()) {
    if (reach.has(id)) continue;
    reach.add(id);
    const { references = [], volumeBytes = 0, staysOnlyForOthers = false } = earlier.get(id) ?? {};
    if (staysOnlyForOthers) bytes += volumeBytes;
    queue.push(...references);
  }
  return bytes;
}
