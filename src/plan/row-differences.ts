import type { ListedRow } from "../drivers/fingerprints.ts";

export type DifferenceKind = "onlyLeft" | "onlyRight" | "changed";

export interface RowDifference {
  /** Text of each key column. Empty for a table without a key. */
  readonly key: readonly string[];
  readonly kind: DifferenceKind;
  /** How many rows of this content: only tables without a key have more than one. */
  readonly count: number;
  readonly hash: string;
}

interface Unmatched {
  readonly key: readonly string[];
  readonly hash: string;
  /** Rows of the left side less rows of the right side. */
  count: number;
}

/**
 * Finds the differences between two lists of rows that arrive in any order. What is equal cancels out as it comes, so
 * memory follows what differs and what has not come yet on the other side.
 */
export class RowDifferences {
  readonly #unmatched = new Map<string, Unmatched>();

  readonly takeLeft = (rows: readonly ListedRow[]): void => this.#take(rows, 1);
  readonly takeRight = (rows: readonly ListedRow[]): void => this.#take(rows, -1);

  #take(rows: readonly ListedRow[], sign: 1 | -1): void {
    for (const { key, hash, count } of rows) {
      const name = `${hash} ${JSON.stringify(key)}`;
      const known = this.#unmatched.get(name);
      if (!known) {
        this.#unmatched.set(name, { key, hash, count: sign * count });
        continue;
      }
      known.count += sign * count;
      if (known.count === 0) this.#unmatched.delete(name);
    }
  }

  /** Pairs what is left by key: a key that both sides have is a changed row. In the order of keys. */
  result(): readonly RowDifference[] {
    const groups = new Map<string, Unmatched[]>();
    for (const row of this.#unmatched.values()) {
      const name = row.key.length > 0 ? JSON.stringify(row.key) : row.hash;
      const group = groups.get(name);
      if (group) group.push(row);
      else groups.set(name, [row]);
    }
    return [...groups.values()].flatMap(differencesOf).sort(compareDifferences);
  }
}

/** Orders differences by their keys: whole numbers by value, everything else by code units, the same everywhere. */
export function compareDifferences(one: RowDifference, other: RowDifference): number {
  return compareKeys(one.key, other.key) || compareText(one.hash, other.hash);
}

function differencesOf(group: readonly Unmatched[]): readonly RowDifference[] {
  const left = group.filter(({ count }) => count > 0);
  const right = group.filter(({ count }) => count < 0);
  const [one, other] = [left[0], right[0]];
  if (one && other && left.length + right.length === 2 && one.count === 1 && other.count === -1) {
    return [{ key: one.key, kind: "changed", count: 1, hash: one.hash }];
  }
  return group.map(({ key, hash, count }) => ({
    key,
    hash,
    kind: count > 0 ? "onlyLeft" : "onlyRight",
    count: Math.abs(count),
  }));
}

function compareKeys(one: readonly string[], other: readonly string[]): number {
  for (const [index, text] of one.entries()) {
    const there = other[index] ?? "";
    const order = isInteger(text) && isInteger(there) ? compareIntegers(text, there) : compareText(text, there);
    if (order !== 0) return order;
  }
  return 0;
}

function isInteger(text: string): boolean {
  return /^-?\d{1,19}$/.test(text);
}

function compareIntegers(one: string, other: string): number {
  const [a, b] = [BigInt(one), BigInt(other)];
  return a < b ? -1 : a > b ? 1 : 0;
}

function compareText(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}
