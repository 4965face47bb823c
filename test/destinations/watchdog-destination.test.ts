import { mkdtemp, readdir, rm } from "node:fs/promises";
import { randomBytes } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { codeOf } from "../../src/base/errors.ts";
import { type Destination, destinationError } from "../../src/destinations/destination.ts";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { WatchdogDestination, type WatchdogLimits } from "../../src/destinations/watchdog-destination.ts";
import { altered, FaultDestination, type Operation, scripted } from "../support/fault-destination.ts";
import { describeDestination, expectReason, failureOf, fresh, listKeys, put, readAll, sliced } from "./contract.ts";

const signal = new AbortController().signal;
const LIMITS: WatchdogLimits = { stallMs: 150, answerMs: 300, graceMs: 100 };

let base: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), "rowkeep-watchdog-"));
});
afterAll(() => rm(base, { recursive: true }));

async function stuckIn(operation: Operation, kind: "stall" | "deaf") {
  const real = await openLocalDestination({ type: "local", path: join(base, fresh()) }, { signal });
  await real.put("there", sliced(Buffer.alloc(200_000), 50_000), { size: 200_000, signal });
  const faults = new FaultDestination(real, { schedule: scripted({ operation, fault: { kind }, times: 99 }) });
  return { real, there: new WatchdogDestination(faults, LIMITS) };
}

const pause = (delayMs: number) => new Promise((resolve) => setTimeout(resolve, delayMs));

describeDestination("a watched destination", async () => {
  const path = await mkdtemp(join(tmpdir(), "rowkeep-watchdog-"));
  const open = async () =>
    new WatchdogDestination(await openLocalDestination({ type: "local", path }, { signal }), LIMITS);
  return {
    destination: await open(),
    another: open,
    rawNames: () => readdir(path, { recursive: true }),
    [Symbol.asyncDispose]: () => rm(path, { recursive: true }),
  };
});

describe("a watchdog", () => {
  test.each(["stall", "deaf"] as const)("ends whatever stands still, and calls it unreachable (%s)", async (kind) => {
    const act: Record<Operation, (there: Destination) => Promise<unknown>> = {
      put: (there) => put(there, "key", "some bytes"),
      get: (there) => readAll(there, "there"),
      stat: (there) => there.stat("there", { signal }),
      list: (there) => listKeys(there, ""),
      remove: (there) => there.remove("there", { signal }),
    };

    const failures = await Promise.all(
      Object.entries(act).map(async ([operation, run]) => {
        const { there } = await stuckIn(operation as Operation, kind);
        const startedAt = performance.now();
        const failure = await failureOf(run(there));
        return { failure, tookMs: performance.now() - startedAt };
      }),
    );

    for (const { failure, tookMs } of failures) {
      expectReason(failure, "unreachable");
      expect(failure.message).toMatch(/nothing moved for \d+ ms$/);
      expect(tookMs).toBeLessThan(3000);
    }
  });

  test("gives what came before a stall", async () => {
    const { there } = await stuckIn("get", "stall");
    let given = 0;

    const failure = await failureOf(
      (async () => {
        for await (const part of there.get("there", { signal })) given += part.length;
      })(),
    );

    expectReason(failure, "unreachable");
    expect(given).toBe(100_000);
  });

  test("does not bark while the consumer of a get or a list takes its time", async () => {
    const { real } = await stuckIn("stat", "stall");
    const there = new WatchdogDestination(real, LIMITS);
    await put(real, "second", "x");
    let given = 0;

    for await (const part of there.get("there", { signal })) {
      await pause(LIMITS.stallMs * 2);
      given += part.length;
    }
    const keys: string[] = [];
    for await (const { key } of there.list("", { signal })) {
      await pause(LIMITS.answerMs * 1.5);
      keys.push(key);
    }

    expect(given).toBe(200_000);
    expect(keys.sort()).toEqual(["second", "there"]);
  });

  test("does not bark while the source of a put takes its time", async () => {
    const { real } = await stuckIn("stat", "stall");
    const there = new WatchdogDestination(real, LIMITS);
    const slow = async function* () {
      await pause(LIMITS.answerMs * 1.5);
      yield Buffer.from("ab");
      await pause(LIMITS.answerMs * 1.5);
    };

    await there.put("key", slow, { size: 2, signal });

    expect((await readAll(there, "key")).toString()).toBe("ab");
  });

  test("does not bark at a slow destination that moves on", async () => {
    const { real } = await stuckIn("stat", "stall");
    const bytes = randomBytes(600_000);
    const slow = altered(real, {
      put: (key: string, open: () => AsyncIterable<Uint8Array>, options: Parameters<Destination["put"]>[2]) =>
        real.put(
          key,
          async function* () {
            for await (const part of open()) {
              await pause(LIMITS.stallMs / 3);
              yield part;
            }
          },
          options,
        ),
    });
    const startedAt = performance.now();

    await new WatchdogDestination(slow, LIMITS, 65_536).put("key", sliced(bytes, 600_000), {
      size: bytes.length,
      signal,
    });

    expect(performance.now() - startedAt).toBeGreaterThan(LIMITS.answerMs);
    expect((await readAll(real, "key")).equals(bytes)).toBe(true);
  });

  test.each([0, 5])("ends a put of %i bytes that took them all and is never acknowledged", async (size) => {
    const { real } = await stuckIn("stat", "stall");
    const mute = altered(real, {
      async put(_key, open) {
        await Array.fromAsync(open()); // five bytes
        await new Promise(() => undefined);
      },
    });

    const failure = await failureOf(put(new WatchdogDestination(mute, LIMITS), "key", "x".repeat(size)));

    expectReason(failure, "unreachable");
  });

  test.each([true, false])(
    "ends a put that sends what it has collected, unless it tells that bytes move (%s)",
    async (tells) => {
      const { real } = await stuckIn("stat", "stall");
      const collecting = altered(real, {
        async put(_key, open, { onMoved, signal: stop }) {
          const parts = await Array.fromAsync(open()); // five bytes
          for (const _ of [...parts, 1, 2, 3, 4, 5]) {
            await pause(100);
            stop.throwIfAborted();
            if (tells) onMoved?.();
          }
        },
      });

      const done = new WatchdogDestination(collecting, LIMITS).put("key", sliced(Buffer.from("x"), 1), { signal });

      expect(await done.then(() => "stored", codeOf)).toBe(tells ? "stored" : "unreachable");
    },
  );

  test("lets a put that was given up remove what it left before it says so", async () => {
    const { real } = await stuckIn("stat", "stall");
    let tidied = false;
    const tidy = altered(real, {
      async put(_key: string, _open: unknown, options: { signal: AbortSignal }) {
        await new Promise((resolve) => options.signal.addEventListener("abort", resolve));
        await pause(LIMITS.graceMs / 4);
        tidied = true;
        throw destinationError("cannot write: some words of its own", "failed");
      },
    });

    const failure = await failureOf(put(new WatchdogDestination(tidy, LIMITS), "key", "x"));

    expectReason(failure, "unreachable");
    expect(tidied).toBe(true);
  });

  test("takes a put for stored that ends well at the last moment", async () => {
    const { real } = await stuckIn("stat", "stall");
    const late = altered(real, {
      async put(...[key, open, options]: Parameters<Destination["put"]>) {
        await new Promise((resolve) => options.signal.addEventListener("abort", resolve));
        await real.put(key, open, { ...options, signal });
      },
    });

    await put(new WatchdogDestination(late, { ...LIMITS, graceMs: 2000 }), "key", "x");

    expect(await real.stat("key", { signal })).toMatchObject({ size: 1 });
  });

  test("leaves an abort what it is, even when nothing heeds it", async () => {
    const { there } = await stuckIn("put", "deaf");
    const stop = new AbortController();
    const reason = new DOMException("enough", "AbortError");
    setTimeout(() => stop.abort(reason), 20);

    const failure = await put(there, "key", "x", { signal: stop.signal }).catch((error) => error);

    expect(failure).toBe(reason);
  });
});
