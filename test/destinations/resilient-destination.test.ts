import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { randomBytes } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import {
  makeResilient,
  openResilientDestination,
  type ResilienceOptions,
} from "../../src/destinations/open-resilient-destination.ts";
import { destinationError } from "../../src/destinations/destination.ts";
import { altered, FaultDestination, scripted, storms } from "../support/fault-destination.ts";
import { describeDestination, expectReason, failureOf, fresh, put, readAll, sliced } from "./contract.ts";

const signal = new AbortController().signal;
const QUICK: ResilienceOptions = {
  retry: { attempts: 5, failedAttempts: 3, firstDelayMs: 2, maxDelayMs: 10, patienceMs: 60_000 },
  watchdog: { stallMs: 150, answerMs: 300, graceMs: 100 },
};
/** Promises hold on a slow machine, too. */
const CALM: ResilienceOptions = { ...QUICK, watchdog: { stallMs: 10_000, answerMs: 10_000, graceMs: 100 } };

let base: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), "rowkeep-resilient-"));
});
afterAll(() => rm(base, { recursive: true }));

const localAt = (path: string) => openLocalDestination({ type: "local", path }, { signal });

describeDestination("a destination of a job", async () => {
  const path = await mkdtemp(join(tmpdir(), "rowkeep-resilient-"));
  const open = () => openResilientDestination({ type: "local", path, bandwidth: 200_000_000 }, { ...CALM, signal });
  return {
    destination: await open(),
    another: open,
    rawNames: () => readdir(path, { recursive: true }),
    [Symbol.asyncDispose]: () => rm(path, { recursive: true }),
  };
});

describeDestination("a destination that is busy again and again", async () => {
  const path = await mkdtemp(join(tmpdir(), "rowkeep-resilient-"));
  const patient = {
    ...CALM,
    retry: { attempts: 20, failedAttempts: 3, firstDelayMs: 1, maxDelayMs: 5, patienceMs: 60_000 },
  };
  const open = async () =>
    makeResilient(new FaultDestination(await localAt(path), { schedule: storms(3, 2) }), patient);
  return {
    destination: await open(),
    another: open,
    rawNames: () => readdir(path, { recursive: true }),
    [Symbol.asyncDispose]: () => rm(path, { recursive: true }),
  };
});

describe("a destination of a job", () => {
  test("can what its real one can, and tries that again", async () => {
    let asked = 0;
    const real = altered(await localAt(join(base, fresh())), {
      thaw: async () => {
        asked += 1;
        if (asked === 1) throw destinationError("cannot thaw object: come again", "busy");
        return { state: "thawing", withinHours: 5 };
      },
    });
    const there = makeResilient(real, { ...QUICK, bandwidth: 1_000_000 });
    const { listFolders: _folders, removeUnfinished: _unfinished, thaw: _thaw, ...less } = real;
    const bare = makeResilient(less, { ...QUICK, bandwidth: 1_000_000 });
    await put(there, "shop/shop/object", "x");

    expect(await there.listFolders?.("shop", { signal })).toEqual(["shop"]);
    expect(await there.removeUnfinished?.("shop/", { olderThanMs: 0, signal })).toBe(0);
    expect(await there.thaw?.("object", { days: 3, signal })).toEqual({ state: "thawing", withinHours: 5 });
    expect(asked).toBe(2);
    expect([bare.listFolders, bare.removeUnfinished, bare.thaw]).toEqual([undefined, undefined, undefined]);
  });

  test("tries a stalled transfer again and goes on where a stalled read was", async () => {
    const faults = new FaultDestination(await localAt(join(base, fresh())), {
      schedule: scripted(
        { operation: "put", fault: { kind: "stall" } },
        { operation: "get", fault: { kind: "deaf" }, times: 2 },
      ),
    });
    const there = makeResilient(faults, QUICK);
    const bytes = randomBytes(200_000);

    await there.put("key", sliced(bytes, 50_000), { size: bytes.length, exclusive: true, signal });

    expect((await readAll(there, "key")).equals(bytes)).toBe(true);
  });

  test("does not take a throttled transfer for a stalled one", async () => {
    // A piece every 250 ms, and four transfers that share the line.
    const patient = { ...QUICK, watchdog: { stallMs: 2000, answerMs: 2000, graceMs: 100 } };
    const there = makeResilient(await localAt(join(base, fresh())), { ...patient, bandwidth: 60_000 });
    const bytes = randomBytes(30_000);

    const keys = ["a", "b", "c", "d"];

    await Promise.all(keys.map((key) => there.put(key, sliced(bytes, 60_000), { size: bytes.length, signal })));

    expect((await readAll(there, "a")).equals(bytes)).toBe(true);
  });

  test("is tried a few times when it refuses the connection", async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    await new Promise((resolve) => server.close(resolve));
    const waits: number[] = [];
    const clock = {
      now: () => 0,
      random: () => 0.5,
      wait: async (delayMs: number) => {
        waits.push(delayMs);
      },
    };

    const failure = await failureOf(
      openResilientDestination(
        { type: "sftp", host: "127.0.0.1", port, path: "/x", user: "u", password: "p", hostKey: "SHA256:x" },
        { clock, signal },
      ),
    );

    expectReason(failure, "unreachable");
    expect(failure.message).toContain("(tried 3 times in ");
    expect(waits).toHaveLength(2);
  });

  test("fails at once when nothing that waits could mend it", async () => {
    const path = join(base, fresh());
    await writeFile(path, "a file where a folder should be");
    const startedAt = performance.now();

    await failureOf(openResilientDestination({ type: "local", path }, { signal }));

    expect(performance.now() - startedAt).toBeLessThan(900);
  });

  test("removes unfinished objects where the destination knows how to", async () => {
    const path = join(base, fresh());
    const there = await openResilientDestination({ type: "local", path }, { ...QUICK, signal });
    await put(there, "key", "x");
    await writeFile(join(path, "dead.in-progress"), "x");

    expect(await there.removeUnfinished?.("", { olderThanMs: -1000, signal })).toBe(1);
  });
});
