import { expect, test } from "vitest";
import { SpareTime } from "../../src/archive/spare-time.ts";

test("a thread that waits has time left, one that computes has none, until it waits again", () => {
  const time = { now: 1000, used: 50 };
  const spareTime = new SpareTime({ now: () => time.now, used: () => time.used });
  const after = (elapsed: number, used: number) => {
    time.now += elapsed;
    time.used += used;
    return spareTime.hasSome;
  };

  const seen = [after(99, 99), after(101, 1), after(100, 90), after(50, 0), after(50, 20)];

  expect(seen, "the first and the fourth look come too early to tell anything new").toEqual([
    true,
    true,
    false,
    false,
    true,
  ]);
});
