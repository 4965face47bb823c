import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { sideBySide } from "../../src/base/side-by-side.ts";

const never = new AbortController().signal;

test("gives the results in order", async () => {
  const results = await sideBySide<[string, number]>(never, () => [sleep(5, "one"), Promise.resolve(2)]);

  expect(results).toEqual(["one", 2]);
});

test("stops the others with the first failure and waits for them", async () => {
  const failure = new Error("first");
  let isOtherEnded = false;
  const other = async (signal: AbortSignal) => {
    await sleep(10_000, undefined, { signal }).catch(() => undefined);
    await sleep(5);
    isOtherEnded = true;
    throw new Error("second");
  };

  const both = sideBySide(never, (signal) => [other(signal), Promise.reject(failure)]);

  await expect(both).rejects.toBe(failure);
  expect(isOtherEnded).toBe(true);
});

test("throws the reason of an abort from outside, whatever the works said of it", async () => {
  const controller = new AbortController();
  const reason = new DOMException("stop", "AbortError");
  const works = sideBySide(controller.signal, (signal) => [
    sleep(10_000, undefined, { signal }).catch(() => {
      throw new Error("the connection was closed");
    }),
  ]);

  controller.abort(reason);

  await expect(works).rejects.toBe(reason);
});
