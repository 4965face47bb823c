import { mkdtemp, readdir, rm } from "node:fs/promises";
import { createHash, randomBytes } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { codeOf } from "../../src/base/errors.ts";
import type { Destination, DestinationReason, GetOptions } from "../../src/destinations/destination.ts";
import { destinationError } from "../../src/destinations/destination.ts";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import type { RetryClock, RetryLimits } from "../../src/destinations/retry-attempts.ts";
import { RetryingDestination } from "../../src/destinations/retrying-destination.ts";
import { altered, type Fault, FaultDestination, type Schedule, scripted } from "../support/fault-destination.ts";
import {
  describeDestination,
  expectReason,
  failureOf,
  fresh,
  listKeys,
  put,
  readAll,
  readText,
  sliced,
} from "./contract.ts";

const signal = new AbortController().signal;
const LIMITS: RetryLimits = { attempts: 4, failedAttempts: 2, firstDelayMs: 100, maxDelayMs: 250, patienceMs: 60_000 };

/** A clock that notes how long it was to wait, and goes on at once. */
function quickClock(random = () => 0.5): RetryClock & { readonly waits: number[]; random: () => number } {
  const waits: number[] = [];
  let now = 0;
  return {
    waits,
    now: () => now,
    random,
    wait: async (delayMs) => {
      waits.push(delayMs);
      now += delayMs;
    },
  };
}

let base: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), "rowkeep-retry-"));
});
afterAll(() => rm(base, { recursive: true }));

async function localAt(path: string): Promise<Destination> {
  return openLocalDestination({ type: "local", path }, { signal });
}

async function faulty(schedule: Schedule, rememberedKeys = 100) {
  const faults = new FaultDestination(await localAt(join(base, fresh())), { schedule });
  const clock = quickClock();
  return { faults, clock, there: new RetryingDestination(faults, LIMITS, { clock, rememberedKeys }) };
}

const error = (code: DestinationReason): Fault => ({ kind: "error", code });

describeDestination("a retrying destination", async () => {
  const path = await mkdtemp(join(tmpdir(), "rowkeep-retry-"));
  const open = async () => new RetryingDestination(await localAt(path), LIMITS, { clock: quickClock() });
  return {
    destination: await open(),
    another: open,
    rawNames: () => readdir(path, { recursive: true }),
    [Symbol.asyncDispose]: () => rm(path, { recursive: true }),
  };
});

describe("a retrying destination", () => {
  test.each(["unreachable", "busy"] as const)(
    "tries again what is %s, from byte 0, and stores it whole",
    async (code) => {
      const { there } = await faulty(scripted({ operation: "put", fault: error(code), times: 3 }));
      const bytes = randomBytes(100_000);

      await there.put("key", sliced(bytes, 1000), { size: bytes.length, signal });

      expect((await readAll(there, "key")).equals(bytes)).toBe(true);
    },
  );

  test.each(["denied", "full", "exists", "not-found", "invalid-key", "unsupported"] as const)(
    "never tries again what is %s",
    async (code) => {
      const { there, faults } = await faulty(
        scripted(
          ...(["put", "stat", "list", "remove"] as const).map((operation) => ({ operation, fault: error(code) })),
        ),
      );

      const failures = await Promise.all([
        failureOf(put(there, "key", "x")),
        failureOf(there.stat("key", { signal })),
        failureOf(listKeys(there, "")),
        failureOf(there.remove("key", { signal })),
      ]);

      for (const failure of failures) expectReason(failure, code);
      expect(faults.log).toHaveLength(4);
    },
  );

  test("says how often and for how long it tried, and keeps reason and cause", async () => {
    const { there, clock } = await faulty(scripted({ operation: "stat", fault: error("unreachable"), times: 99 }));

    const failure = await failureOf(there.stat("key", { signal }));

    expectReason(failure, "unreachable");
    expect(failure.message).toMatch(/it was made to fail \(tried 4 times in 0\.3 s\)$/);
    expectReason(failure.cause, "unreachable");
    expect(clock.waits).toEqual([50, 100, 125]);
  });

  test("waits a random part of a bound that doubles up to its limit", async () => {
    const faults = new FaultDestination(await localAt(join(base, fresh())), {
      schedule: scripted({ operation: "stat", fault: error("busy"), times: 5 }),
    });
    const waits = async (random: number) => {
      const clock = quickClock(() => random);
      const there = new RetryingDestination(faults, { ...LIMITS, attempts: 6 }, { clock });
      faults.schedule = scripted({ operation: "stat", fault: error("busy"), times: 5 });
      await there.stat("key", { signal });
      return clock.waits;
    };

    expect([await waits(0), await waits(0.999)]).toEqual([
      [0, 0, 0, 0, 0],
      [99, 199, 249, 249, 249],
    ]);
  });

  test("begins no further try when its patience is at an end, unless it got on", async () => {
    const { there, faults, clock } = await faulty(scripted({ operation: "stat", fault: error("busy"), times: 99 }));
    clock.random = () => 0.99;
    const impatient = new RetryingDestination(faults, { ...LIMITS, attempts: 99, patienceMs: 400 }, { clock });

    const failure = await failureOf(impatient.stat("key", { signal }));

    expect(there.name).toBe(impatient.name);
    expect(failure.message).toMatch(/\(tried 4 times in 0\.5 s\)$/);
    expect(clock.waits).toEqual([99, 198, 247]);
  });

  test("gives up sooner what failed for an unknown reason", async () => {
    const { there, faults } = await faulty(scripted({ operation: "remove", fault: error("failed"), times: 99 }));

    expectReason(await failureOf(there.remove("key", { signal })), "failed");

    expect(faults.log).toHaveLength(2);
  });

  test("tries only once while the destination does not answer, and as often as ever when it does again", async () => {
    const { there, faults } = await faulty(scripted({ operation: "stat", fault: error("unreachable"), times: 5 }));
    await failureOf(there.stat("key", { signal }));

    await failureOf(there.stat("key", { signal }));
    expect(faults.log).toHaveLength(5);
    await there.stat("key", { signal });
    faults.schedule = scripted({ operation: "stat", fault: error("unreachable"), times: 3 });

    expect(await there.stat("key", { signal })).toBeUndefined();
  });

  test("does not try again when the source is at fault", async () => {
    const { there, faults } = await faulty(() => undefined);
    const broken = async function* () {
      yield Buffer.from("x");
      throw destinationError("cannot read the spool: it is gone", "unreachable");
    };

    const failures = await Promise.all([
      failureOf(there.put("a", broken, { size: 5, signal })),
      failureOf(there.put("b", sliced(Buffer.from("xyz"), 1), { size: 5, signal })),
      failureOf(there.put("c", sliced(Buffer.from("xyz"), 1), { size: 2, signal })),
    ]);

    expect(failures.map(({ code }) => code)).toEqual(["unreachable", "failed", "failed"]);
    expect(faults.log).toHaveLength(3);
  });

  test.each([
    ["busy", 1, "some bytes"],
    ["unreachable", 1, "nothing"],
  ] as const)("opens once what nobody knows the size of (%s)", async (code, opens, stored) => {
    const { there } = await faulty(scripted({ operation: "put", fault: error(code), times: 1 }));
    let opened = 0;
    const open = () => {
      opened += 1;
      return sliced(Buffer.from("some bytes"), 4)();
    };

    const outcome = await there.put("key", open, { signal }).catch(codeOf);

    // Who is busy says so before it reads anything.
    expect([outcome, opened]).toEqual([code === "busy" ? undefined : code, opens]);
    expect((await listKeys(there, "")).length > 0 ? await readText(there, "key") : "nothing").toBe(stored);
  });

  test("stops waiting at once when it is aborted", async () => {
    const faults = new FaultDestination(await localAt(join(base, fresh())), {
      schedule: () => error("busy"),
    });
    const there = new RetryingDestination(faults, {
      ...LIMITS,
      firstDelayMs: 1e6,
      maxDelayMs: 1e6,
      patienceMs: 60_000,
    });
    const stop = new AbortController();
    const reason = new DOMException("enough", "AbortError");
    const startedAt = performance.now();
    setTimeout(() => stop.abort(reason), 30);

    const failures = await Promise.all([
      there.put("key", sliced(Buffer.from("x"), 1), { size: 1, signal: stop.signal }).catch((failure) => failure),
      there.stat("key", { signal: stop.signal }).catch((failure) => failure),
      listKeys(there, "", stop.signal).catch((failure) => failure),
    ]);

    expect(failures).toEqual([reason, reason, reason]);
    expect(performance.now() - startedAt).toBeLessThan(2000);
  });

  test("makes an ordinary failure of what a library threw, but not of a mistake in the program", async () => {
    const inner = await localAt(join(base, fresh()));
    const throwing = (thrown: Error): Destination =>
      new RetryingDestination({ ...inner, name: "odd", stat: () => Promise.reject(thrown) } as Destination, LIMITS, {
        clock: quickClock(),
      });

    const outcomes = await Promise.allSettled(
      [
        new Error("socket hang up"),
        new DOMException("cut", "AbortError"),
        new TypeError("fetch failed"),
        new TypeError("x is not a function"),
      ].map((thrown) => throwing(thrown).stat("key", { signal })),
    );

    expect(outcomes.map((outcome) => (outcome as PromiseRejectedResult).reason)).toMatchObject([
      { kind: "destination", code: "failed" },
      { kind: "destination", code: "unreachable" },
      { kind: "destination", code: "unreachable" },
      { name: "TypeError", message: "x is not a function" },
    ]);
  });
});

describe("an exclusive put whose acknowledgement was lost", () => {
  const lost = { operation: "put", fault: { kind: "lost" } } as const;

  test.each([true, false])(
    "succeeds when what is stored reads back the same (with a known hash: %s)",
    async (known) => {
      const { there } = await faulty(scripted(lost));
      const bytes = randomBytes(50_000);
      const sha256 = known ? createHash("sha256").update(bytes).digest("hex") : undefined;

      await there.put("key", sliced(bytes, 999), { size: bytes.length, exclusive: true, sha256, signal });

      expect((await readAll(there, "key")).equals(bytes)).toBe(true);
    },
  );

  test.each([
    ["other bytes of the same size", "other"],
    ["another size", "longer than it"],
  ])("is refused when somebody else stored %s in between", async (_, theirs) => {
    const { there, faults } = await faulty(scripted({ operation: "put", fault: error("unreachable") }));
    faults.schedule = (call) => {
      if (call.operation !== "put") return undefined;
      faults.schedule = undefined;
      return error("unreachable");
    };
    const slowly = async function* () {
      if (!(await faults.stat("key", { signal }))) await put(await localAt(faults.name), "key", theirs);
      yield Buffer.from("my ow");
    };

    const failure = await failureOf(there.put("key", slowly, { size: 5, exclusive: true, signal }));

    expectReason(failure, "exists");
    expect(await readText(there, "key")).toBe(theirs);
  });

  test("is refused when the first try finds the key taken, even by the same bytes", async () => {
    const { there } = await faulty(() => undefined);
    await put(there, "key", "same");

    expectReason(await failureOf(put(there, "key", "same", { exclusive: true })), "exists");
  });

  test("is tried again when the object shows itself late", async () => {
    const { there, faults } = await faulty(scripted(lost));
    let hidden = 1;
    const stat = faults.stat.bind(faults);
    faults.stat = async (key, options) => (hidden-- > 0 ? undefined : stat(key, options));

    await put(there, "key", "late", { exclusive: true });

    expect(await readText(there, "key")).toBe("late");
  });
});

describe("a get that is cut", () => {
  const bytes = randomBytes(300_000);
  const cut = { operation: "get", fault: error("unreachable"), times: 3 } as const;

  test.each([undefined, { start: 1000, end: 299_000 }])(
    "goes on where it was and gives each byte once: %j",
    async (range) => {
      const { there, faults } = await faulty(scripted(cut));
      await there.put("key", sliced(bytes, 65_536), { size: bytes.length, signal });

      const back = await readAll(there, "key", range);

      expect(back.equals(bytes.subarray(range?.start, range?.end))).toBe(true);
      expect(faults.log.filter(({ operation }) => operation === "get")).toHaveLength(4);
    },
  );

  test("goes on where it was when only the end was lost", async () => {
    const { there } = await faulty(scripted({ operation: "get", fault: { kind: "lost" } }));
    await there.put("key", sliced(bytes, 65_536), { size: bytes.length, signal });

    expect((await readAll(there, "key")).equals(bytes)).toBe(true);
  });

  test.each([undefined, bytes.length])(
    "fails when the object has another size by then (known size: %s)",
    async (size) => {
      const { there, faults } = await faulty(scripted(cut));
      await there.put("key", sliced(bytes, 65_536), { size: bytes.length, signal });
      let given = 0;

      const failure = await failureOf(
        (async () => {
          for await (const part of there.get("key", { size, signal })) {
            if (given === 0) await put(faults, "key", "x".repeat(400_000));
            given += part.length;
          }
        })(),
      );

      expectReason(failure, "failed");
      expect(failure.message).toContain("it had 300000 bytes and has 400000");
      expect(given).toBe(150_000);
    },
  );

  test("fails when the object was removed by then", async () => {
    const { there, faults } = await faulty(scripted(cut));
    await there.put("key", sliced(bytes, 65_536), { size: bytes.length, signal });
    const read = async () => {
      for await (const part of there.get("key", { signal })) {
        expect(part.length).toBeGreaterThan(0);
        await faults.remove("key", { signal });
      }
    };

    expectReason(await failureOf(read()), "not-found");
  });

  test("may be cut any number of times while it gets on", async () => {
    const large = randomBytes(12 * 1024 * 1024);
    const inner = await localAt(join(base, fresh()));
    await inner.put("key", sliced(large, 1024 * 1024), { size: large.length, signal });
    const cutting = altered(inner, {
      stat: inner.stat.bind(inner),
      async *get(key: string, options: GetOptions) {
        const start = options.range?.start ?? 0;
        const end = Math.min(large.length, start + 1024 * 1024);
        yield* inner.get(key, { ...options, range: { start, end } });
        if (end < large.length) throw destinationError("cannot read: cut", "unreachable");
      },
    });

    const back = await readAll(new RetryingDestination(cutting, LIMITS, { clock: quickClock() }), "key");

    expect(back.equals(large)).toBe(true);
  });
});

describe("a listing that is cut", () => {
  const names = Array.from({ length: 20 }, (_, index) => `key-${String(index).padStart(2, "0")}`);

  test.each([100, 3])("gives each object once when it begins anew (keys remembered: %i)", async (rememberedKeys) => {
    const { faults, there } = await faulty(
      scripted({ operation: "list", fault: error("unreachable"), times: 3 }),
      rememberedKeys,
    );
    for (const name of names) await put(faults, name, "x");
    inOrder(faults, (infos) => infos);

    expect(await listKeys(there, "key")).toEqual(names);
  });

  test("is an error when its order is unknown and it is too long to remember", async () => {
    const { faults, there } = await faulty(scripted({ operation: "list", fault: error("unreachable") }), 3);
    for (const name of names) await put(faults, name, "x");
    inOrder(faults, (infos) => infos.toReversed());

    expectReason(await failureOf(listKeys(there, "key")), "unreachable");
  });

  test("is an error when its order changes and it is too long to remember", async () => {
    const { faults, there } = await faulty(scripted({ operation: "list", fault: error("unreachable") }), 3);
    for (const name of names) await put(faults, name, "x");
    let listings = 0;
    inOrder(faults, (infos) => (listings++ === 0 ? infos : infos.toReversed()));

    expectReason(await failureOf(listKeys(there, "key")), "busy");
  });

  /** The local destination lists in the order of the file system. */
  function inOrder(faults: FaultDestination, order: (infos: { key: string }[]) => { key: string }[]): void {
    const schedule = faults.schedule;
    faults.list = async function* (prefix) {
      const infos = (await Array.fromAsync((await localAt(faults.name)).list(prefix, { signal }))).sort(
        (left, right) => (left.key < right.key ? -1 : 1),
      );
      const ordered = order(infos) as typeof infos;
      const fault = schedule?.({ operation: "list", key: prefix });
      yield* fault ? ordered.slice(0, 10) : ordered;
      if (fault) throw destinationError("cannot list: cut", "unreachable");
    };
  }
});
