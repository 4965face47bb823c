import { describe, expect, test } from "vitest";
import { type EarlierSnapshot, planCarryOver } from "../../src/plan/plan-carry-over.ts";
import { randomFrom } from "../support/random-history.ts";

/** A snapshot of 100 bytes that stays only for others. */
function dead(references: readonly string[] = [], more: Partial<EarlierSnapshot> = {}): EarlierSnapshot {
  return { references, volumeBytes: 100, staysOnlyForOthers: true, ...more };
}

/** One that the rules keep. */
function wanted(references: readonly string[] = []): EarlierSnapshot {
  return dead(references, { staysOnlyForOthers: false });
}

function plan(needed: Readonly<Record<string, number>>, earlier: Readonly<Record<string, EarlierSnapshot>>) {
  return planCarryOver({ needed: new Map(Object.entries(needed)), earlier: new Map(Object.entries(earlier)) });
}

describe("what an incremental carries over", () => {
  test("is what less than 40 % of a snapshot is needed of that stays only for others", () => {
    expect(plan({ a: 39 }, { a: dead() })).toEqual(["a"]);
    expect(plan({ a: 40 }, { a: dead() })).toEqual([]);
    expect(plan({ a: 1 }, { a: wanted() })).toEqual([]);
    expect(plan({}, {})).toEqual([]);
  });

  test("is nothing of a snapshot while a newer one that is needed would keep it all the same", () => {
    const earlier = { a: dead(), b: dead(["a"]), c: wanted(["a", "b"]) };

    expect(plan({ a: 1, b: 90, c: 90 }, earlier)).toEqual([]);
  });

  test("is all that needs the dead one, the newest too, where that is little", () => {
    const earlier = { a: dead(), b: dead(["a"]), c: wanted(["a", "b"]) };

    expect(plan({ a: 20, b: 30, c: 29 }, earlier)).toEqual(["a", "b", "c"]);
    expect(plan({ a: 20, b: 30, c: 30 }, earlier)).toEqual([]);
  });

  test("frees what only newer ones need, though nothing of it is needed now", () => {
    expect(plan({ b: 39 }, { a: dead(), b: wanted(["a"]) })).toEqual(["b"]);
  });

  test("leaves the full that is mostly alive, and takes the incrementals that are mostly dead", () => {
    const earlier = {
      full: dead([], { volumeBytes: 1000 }),
      a: dead(["full"]),
      b: dead(["full", "a"]),
      c: wanted(["full", "a", "b"]),
    };

    expect(plan({ full: 700, a: 5, b: 5, c: 5 }, earlier)).toEqual(["a", "b", "c"]);
    expect(plan({ full: 300, a: 5, b: 5, c: 5 }, earlier)).toEqual(["full", "a", "b", "c"]);
  });

  test("never goes past a snapshot that cannot be read now", () => {
    const earlier = new Map([
      ["a", dead()],
      ["b", dead(["a"])],
      ["c", wanted(["a", "b"])],
    ]);
    const needed = new Map([...earlier.keys()].map((id) => [id, 1]));
    const without = (id: string) => planCarryOver({ needed, earlier, unreadable: new Set([id]) });

    expect([without("a"), without("b"), without("c")]).toEqual([["b", "c"], [], []]);
  });

  test("is nothing where a snapshot is needed of which nothing is known", () => {
    expect(plan({ a: 1, b: 1 }, { a: dead() })).toEqual([]);
  });

  test("goes by what refers to what, not by the time in the names, and survives a circle", () => {
    expect(plan({ z: 10, a: 10 }, { z: dead(), a: wanted(["z"]) })).toEqual(["z", "a"]);
    expect(plan({ a: 10, b: 10 }, { a: dead(["b"]), b: dead(["a"]) })).toHaveLength(2);
  });

  test("frees more than 2.5 times its bytes in any history, and leaves nothing behind that keeps what it frees", () => {
    const random = randomFrom(7);
    let carried = 0;
    for (let round = 0; round < 500; round++) {
      const count = 1 + Math.floor(random() * 8);
      const earlier = new Map<string, EarlierSnapshot>();
      const needed = new Map<string, number>();
      for (let index = 0; index < count; index++) {
        const references = [...earlier.keys()].filter(() => random() < 0.6);
        const staysOnlyForOthers = index < count - 1 && random() < 0.8;
        earlier.set(`s${index}`, { references, volumeBytes: Math.floor(random() * 100), staysOnlyForOthers });
        if (random() < 0.8) needed.set(`s${index}`, Math.floor(random() * 60));
      }

      const chosen = new Set(planCarryOver({ needed, earlier }));

      const left = closureOf(
        [...needed.keys()].filter((id) => !chosen.has(id)),
        earlier,
      );
      const freed = [...closureOf(needed.keys(), earlier)].filter((id) => !left.has(id));
      const freedBytes = freed.reduce((sum, id) => {
        const one = earlier.get(id);
        return sum + (one?.staysOnlyForOthers ? one.volumeBytes : 0);
      }, 0);
      const storedAgain = [...chosen].reduce((sum, id) => sum + (needed.get(id) ?? 0), 0);
      if (chosen.size > 0) {
        carried += 1;
        expect(storedAgain, `round ${round}`).toBeLessThan(0.4 * freedBytes);
      }
    }
    expect(carried).toBeGreaterThan(50);
  });
});

function closureOf(ids: Iterable<string>, earlier: ReadonlyMap<string, EarlierSnapshot>): ReadonlySet<string> {
  const seen = new Set<string>();
  const visit = (id: string) => {
    if (seen.has(id)) return;
    seen.add(id);
    for (const one of earlier.get(id)?.references ?? []) visit(one);
  };
  for (const id of ids) visit(id);
  return seen;
}
