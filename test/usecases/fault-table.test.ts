import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { OperationalError } from "../../src/base/errors.ts";
import type { Destination, DestinationReason } from "../../src/destinations/destination.ts";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { makeResilient } from "../../src/destinations/open-resilient-destination.ts";
import { findHome } from "../../src/job/home.ts";
import { type Job, readJob } from "../../src/job/read-job.ts";
import { openStateStore } from "../../src/job/state-store.ts";
import { locateSnapshot } from "../../src/snapshot/locate-snapshot.ts";
import { openSnapshotReader } from "../../src/snapshot/open-snapshot-reader.ts";
import { openRepository } from "../../src/snapshot/repository.ts";
import { acknowledgeAnomalies } from "../../src/usecases/anomaly-brake.ts";
import { checkDestination } from "../../src/usecases/check-destination.ts";
import { pinSnapshot } from "../../src/usecases/pin-snapshot.ts";
import { pruneDatabase } from "../../src/usecases/prune-database.ts";
import { readRows } from "../../src/usecases/read-rows.ts";
import { removeGarbage } from "../../src/usecases/remove-garbage.ts";
import { collect, never as signal, PREFIX, referringTo, writeSample } from "../snapshot/sample-snapshot.ts";
import { type Fault, FaultDestination, type Operation, type Schedule, scripted } from "../support/fault-destination.ts";
import { untruthsOf } from "../support/truth.ts";

const [FIRST, SECOND, THIRD] = [
  "20261101T020000Z-full",
  "20261102T020000Z-full",
  "20261103T020000Z-incremental",
] as const;
/** Of no snapshot: what a run left that was killed. */
const DEAD = "20261030T020000Z-full";
const NOW = new Date("2026-11-03T03:00:00Z");
const HASTE = {
  retry: { attempts: 3, failedAttempts: 2, firstDelayMs: 1, maxDelayMs: 2, patienceMs: 60_000 },
  watchdog: { stallMs: 40, answerMs: 60, graceMs: 20 },
};

const CODES: readonly DestinationReason[] = ["unreachable", "busy", "failed", "denied", "full"];
const KINDS: Readonly<Record<Operation, readonly Exclude<Fault["kind"], "error">[]>> = {
  put: ["stall", "deaf", "short", "flip", "lost", "twice"],
  get: ["stall", "deaf", "short", "flip", "lost"],
  stat: ["stall", "deaf"],
  list: ["stall", "deaf", "omit", "duplicate", "stale"],
  remove: ["stall", "deaf", "lost", "twice"],
};
/** What a second try sets right. */
const PASSING = new Set(["unreachable", "busy", "stall", "deaf", "lost", "twice", "duplicate"]);

interface Case {
  readonly operation: Operation;
  readonly fault: Fault;
  readonly times: number;
  readonly says: string;
}

const nameOf = (fault: Fault) => (fault.kind === "error" ? fault.code : fault.kind);
const isPassing = ({ fault, times }: Pick<Case, "fault" | "times">) =>
  fault.kind === "twice" || fault.kind === "duplicate" || (times === 1 && PASSING.has(nameOf(fault)));

const CASES: readonly Case[] = Object.entries(KINDS).flatMap(([operation, kinds]) =>
  [...CODES.map((code): Fault => ({ kind: "error", code })), ...kinds.map((kind): Fault => ({ kind }))].flatMap(
    (fault) => {
      // What no second try sets right is the same the first time and always; a listing may lie once.
      const counts = isPassing({ fault, times: 1 }) || operation === "list" ? [1, 999] : [999];
      const says = (times: number) => `${operation}: ${nameOf(fault)}, ${times} times`;
      return counts.map((times) => ({ operation: operation as Operation, fault, times, says: says(times) }));
    },
  ),
);

interface Place {
  readonly folder: string;
  readonly real: Destination;
  readonly faults: FaultDestination;
  readonly there: Destination;
  readonly job: Job;
}

let template: string;
beforeAll(async () => {
  template = await mkdtemp(join(tmpdir(), "rowkeep-faults-"));
  const real = await openLocalDestination({ type: "local", path: join(template, "store") }, { signal });
  const more = { destinations: [real], spoolFolder: join(template, "spool") };
  await writeSample({ ...more, id: FIRST, manifest: { createdAt: "2026-11-01T02:00:00.000Z" } });
  await writeSample({ ...more, id: SECOND, manifest: { createdAt: "2026-11-02T02:00:00.000Z" } });
  const anomalies = [{ schema: "public", name: "orders", kind: "shrunk", rowsBefore: 9000, rows: 1600 }] as const;
  const increment = { kind: "incremental", createdAt: "2026-11-03T02:00:00.000Z", ...referringTo(SECOND) } as const;
  await writeSample({ ...more, id: THIRD, manifest: { ...increment, anomalies } });
  await cp(join(template, "store", PREFIX, FIRST), join(template, "store", PREFIX, DEAD), { recursive: true });
  await rm(join(template, "store", PREFIX, DEAD, "manifest.json"));
  const place = `{ type: local, path: ${JSON.stringify(join(template, "store"))} }`;
  await writeFile(
    join(template, "shop.yaml"),
    `version: 1\nname: shop\nsource: { url: "postgres://u@h/shop" }\ndestinations: [${place}]\nretention: { keepLast: 1 }\n`,
  );
});
afterAll(() => rm(template, { recursive: true, force: true }));

/** A command; what it gives are claims that must be true when the faults are over. */
interface Command {
  readonly run: (place: Place) => Promise<(place: Place, fault: Fault) => Promise<void>>;
  /** Kinds of error that it may end with. */
  readonly kinds: readonly string[];
  /** Snapshots that it may remove. */
  readonly mayRemove?: readonly string[];
}

const listOf = async ({ real }: Place) => (await openRepository(real, PREFIX).list({ signal })).snapshots;
const isListed = async (place: Place, id: string) => (await listOf(place)).some((one) => one.id === id);

async function acknowledge({ there, job }: Place): Promise<readonly string[]> {
  const options = { job, prefix: PREFIX, destinations: [there], now: NOW, signal, warn: () => undefined };
  return (await acknowledgeAnomalies(options)).map(({ id }) => id);
}

const COMMANDS: Readonly<Record<string, Command>> = {
  prune: {
    kinds: ["destination", "refused", "archive"],
    mayRemove: [FIRST],
    async run(place) {
      const home = findHome({ homeFlag: join(place.folder, "home"), env: {} });
      using state = await openStateStore(home, () => undefined);
      await acknowledge({ ...place, there: place.real });
      const common = { home, job: place.job, prefix: PREFIX, destinations: [place.there], now: NOW, dryRun: false };
      const options = { ...common, state, acceptMissing: false, signal, report: () => undefined };
      const { removed, warnings } = await pruneDatabase(options);
      return async () => {
        for (const { id } of removed) expect(await isListed(place, id)).toBe(false);
        if (removed.length === 0) expect(warnings).not.toEqual([]);
      };
    },
  },
  "the removal of garbage": {
    kinds: [],
    async run(place) {
      const warnings: string[] = [];
      const warn = (message: string) => warnings.push(message);
      const now = new Date(Date.now() + 7 * 3_600_000);
      await removeGarbage({ destinations: [place.there], prefix: PREFIX, now, warn, signal });
      return async (_, { kind }) => {
        const left = await Array.fromAsync(place.real.list(`${PREFIX}/${DEAD}/`, { signal }));
        // What no listing shows waits for one that does.
        if (left.length > 0 && kind !== "omit") expect(warnings).not.toEqual([]);
      };
    },
  },
  pin: {
    kinds: ["destination", "archive"],
    async run(place) {
      const options = { destinations: [place.there], prefix: PREFIX, name: SECOND, pinned: true, now: NOW, signal };
      const { destinations } = await pinSnapshot(options);
      return async () => {
        expect(destinations).toEqual([place.there.name]);
        expect((await listOf(place)).find(({ id }) => id === SECOND)?.pinned).toBe(true);
      };
    },
  },
  acknowledge: {
    kinds: ["destination", "archive"],
    async run(place) {
      const ids = await acknowledge(place);
      return async () => {
        const marked = (await listOf(place)).filter(({ acknowledgedAt }) => acknowledgedAt !== undefined);
        expect(marked.map(({ id }) => id)).toEqual(ids);
      };
    },
  },
  cat: {
    kinds: ["destination", "archive"],
    async run({ there }) {
      const where = { destinations: [there], prefix: PREFIX, signal };
      const located = await locateSnapshot({ ...where, choice: { name: FIRST } });
      await using reader = openSnapshotReader({ ...where, ...located });
      const { pieces } = readRows({ reader, table: "public.orders", format: "tsv", signal });
      const text = await collect(
        (async function* () {
          for await (const { bytes } of pieces) yield bytes;
        })(),
      );
      return async () => expect(text.toString().trimEnd().split("\n")).toHaveLength(1600);
    },
  },
};

describe.each(Object.entries(COMMANDS))("%s", (_, { run, kinds, mayRemove = [] }) => {
  test("survives every fault of a destination and never says what is not so", { timeout: 120_000 }, async () => {
    const home = findHome({ homeFlag: join(template, "home"), env: {} });
    const job = await readJob(join(template, "shop.yaml"), home, { cwd: template });
    await using calm = await openPlace(job);
    await (await run(calm))(calm, { kind: "twice" });
    const used = new Set(calm.faults.log.map(({ operation }) => operation));

    // Where it never asks nothing can go wrong.
    for (const one of CASES.filter(({ operation }) => used.has(operation))) {
      await using place = await openPlace(job, scripted(one));
      const { faults, real } = place;

      const outcome = await run(place).catch((error: unknown) => error);

      faults.schedule = undefined;
      if (typeof outcome !== "function") {
        expect(outcome, one.says).toBeInstanceOf(OperationalError);
        expect(kinds, `${one.says}: ${String(outcome)}`).toContain((outcome as OperationalError).kind);
        expect(isPassing(one), `${one.says}: ${String(outcome)}`).toBe(false);
      } else if (faults.damaged.size === 0) {
        await outcome(place, one.fault);
      }
      expect(await untruthsOf(real, faults, PREFIX), one.says).toEqual([]);
      for (const id of [FIRST, SECOND, THIRD].filter((kept) => !mayRemove.includes(kept))) {
        expect(await isListed(place, id), `${one.says}: ${id}`).toBe(true);
      }
    }
  });
});

async function openPlace(job: Job, schedule?: Schedule): Promise<Place & AsyncDisposable> {
  const folder = await mkdtemp(join(tmpdir(), "rowkeep-faults-"));
  await cp(join(template, "store"), join(folder, "store"), { recursive: true });
  const real = await openLocalDestination({ type: "local", path: join(folder, "store") }, { signal });
  const faults = new FaultDestination(real, { ...(schedule ? { schedule } : {}), seed: 3 });
  const there = makeResilient(faults, HASTE);
  return { folder, real, faults, there, job, [Symbol.asyncDispose]: () => rm(folder, { recursive: true }) };
}

test("doctor survives every fault of a destination, and calls none sound that fails for good", {
  timeout: 120_000,
}, async () => {
  // Neither is a fault that one object could notice.
  const harmless = new Set(["twice", "duplicate", "stale"]);
  for (const one of CASES) {
    const folder = await mkdtemp(join(tmpdir(), "rowkeep-faults-"));
    const real = await openLocalDestination({ type: "local", path: folder }, { signal });
    const faults = new FaultDestination(real, { schedule: scripted(one), seed: 1 });

    const checks = await checkDestination(makeResilient(faults, HASTE), { now: () => new Date(), signal });

    faults.schedule = undefined;
    const bad = checks.filter(({ status }) => status !== "ok");
    const isSeen = one.times > 1 && !harmless.has(one.fault.kind);
    if (isSeen) expect(bad.length, `${one.says}: ${JSON.stringify(checks)}`).toBeGreaterThan(0);
    const left = await Array.fromAsync(real.list("", { signal }));
    if (left.length > 0)
      expect(
        bad.map(({ name }) => name),
        one.says,
      ).toContain("delete");
    await rm(folder, { recursive: true });
  }
});
