import { mkdtemp, readdir, rm } from "node:fs/promises";
import { randomBytes } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { ThrottledDestination } from "../../src/destinations/throttled-destination.ts";
import { describeDestination, fresh, put, readAll, sliced } from "./contract.ts";

const signal = new AbortController().signal;
const MB = 1_000_000;

let base: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), "rowkeep-throttle-"));
});
afterAll(() => rm(base, { recursive: true }));

async function throttled(bytesPerSecond: number) {
  const real = await openLocalDestination({ type: "local", path: join(base, fresh()) }, { signal });
  return { real, there: new ThrottledDestination(real, bytesPerSecond) };
}

async function millisecondsOf(work: Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await work;
  return performance.now() - startedAt;
}

describeDestination("a throttled destination", async () => {
  const path = await mkdtemp(join(tmpdir(), "rowkeep-throttle-"));
  const open = async () =>
    new ThrottledDestination(await openLocalDestination({ type: "local", path }, { signal }), 100 * MB);
  return {
    destination: await open(),
    another: open,
    rawNames: () => readdir(path, { recursive: true }),
    [Symbol.asyncDispose]: () => rm(path, { recursive: true }),
  };
});

describe("a throttle", () => {
  // The machine may be busy with something else: what counts is that it can be kept.
  test.each([0.2 * MB, 20 * MB])(
    "keeps to %i bytes per second within a tenth, over all transfers of both directions",
    { retry: 3 },
    async (rate) => {
      const { real, there } = await throttled(rate);
      const size = (rate * 1.5) / 3;
      const bytes = randomBytes(size);
      await real.put("stored", sliced(bytes, MB), { size, signal });

      const took = await millisecondsOf(
        Promise.all([
          there.put("a", sliced(bytes, MB), { size, signal }),
          there.put("b", sliced(bytes, 10_000), { size, signal }),
          readAll(there, "stored"),
        ]),
      );

      expect(took).toBeGreaterThan(1350);
      expect(took).toBeLessThan(1650);
      expect((await readAll(real, "b")).equals(bytes)).toBe(true);
    },
  );

  test("makes up for nothing that was not used long ago", async () => {
    const { there } = await throttled(MB);
    await put(there, "first", "x");
    await new Promise((resolve) => setTimeout(resolve, 1000));

    const took = await millisecondsOf(there.put("key", sliced(randomBytes(MB / 2), MB), { size: MB / 2, signal }));

    expect(took).toBeGreaterThan(350);
  });

  test("can be stopped at once, in both directions", async () => {
    const { real, there } = await throttled(1000);
    await put(real, "stored", "x".repeat(50_000));
    const stop = new AbortController();
    const reason = new DOMException("enough", "AbortError");
    setTimeout(() => stop.abort(reason), 50);
    const startedAt = performance.now();

    const failures = await Promise.all([
      put(there, "key", "x".repeat(50_000), { signal: stop.signal }).catch((error) => error),
      readAll(there, "stored", undefined, stop.signal).catch((error) => error),
    ]);

    expect(failures).toEqual([reason, reason]);
    expect(performance.now() - startedAt).toBeLessThan(1000);
  });

  test("waits without using the processor", async () => {
    const { there } = await throttled(100_000);
    const before = process.cpuUsage();

    await put(there, "key", "x".repeat(60_000));

    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 1000).toBeLessThan(300);
  });
});
