import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { OperationalError } from "../../src/base/errors.ts";
import type { Destination, DestinationReason } from "../../src/destinations/destination.ts";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { makeResilient } from "../../src/destinations/open-resilient-destination.ts";
import { locateSnapshot } from "../../src/snapshot/locate-snapshot.ts";
import { openSnapshotReader } from "../../src/snapshot/open-snapshot-reader.ts";
import { type BackUpResult, backUp } from "../../src/usecases/back-up.ts";
import { chooseBase } from "../../src/usecases/choose-base.ts";
import { drillSnapshot } from "../../src/usecases/drill-snapshot.ts";
import { openBaseKeeper } from "../../src/usecases/keep-base.ts";
import { listSnapshots } from "../../src/usecases/list-snapshots.ts";
import { findPrefixes } from "../../src/usecases/open-job.ts";
import type { ProgressEvent } from "../../src/usecases/progress.ts";
import { type RestoreResult, restoreSnapshot } from "../../src/usecases/restore-snapshot.ts";
import type { BaseSnapshot } from "../../src/usecases/reuse-chunks.ts";
import { findSafetySnapshot, markUndone, takeSafetySnapshot } from "../../src/usecases/safety-snapshot.ts";
import { showSnapshot } from "../../src/usecases/show-snapshot.ts";
import { verifySnapshot } from "../../src/usecases/verify-snapshot.ts";
import { backUpOptions } from "../support/back-up-options.ts";
import { connectionOfUrl } from "../support/connection.ts";
import {
  type Fault,
  FaultDestination,
  type FaultOptions,
  type Operation,
  scripted,
  seeded,
} from "../support/fault-destination.ts";
import { createDatabase, type TestDatabase } from "../support/postgres.ts";
import { untruthsOf } from "../support/truth.ts";

const signal = new AbortController().signal;
const PREFIX = "shop/shop";
const VOLUME = /volume-0001\.tar$/;
const MANIFEST = /manifest\.json$/;
const PATIENCE = {
  retry: { attempts: 3, failedAttempts: 2, firstDelayMs: 1, maxDelayMs: 2, patienceMs: 60_000 },
  watchdog: { stallMs: 200, answerMs: 250, graceMs: 50 },
};
/** For many rounds: what is given up too soon only adds to the faults. */
const HASTE = { ...PATIENCE, watchdog: { stallMs: 40, answerMs: 50, graceMs: 20 } };
const ROUNDS = Number(process.env["ROWKEEP_FAULT_ROUNDS"] ?? 8);

let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase(
    18,
    `create table orders (id int primary key, note text);
     insert into orders select i, md5(i::text) || repeat('x', i % 50) from generate_series(1, 3000) i;
     create table parts (id int); insert into parts select generate_series(1, 500)`,
  );
});
afterAll(() => database?.[Symbol.asyncDispose]());

interface Place extends AsyncDisposable {
  readonly folder: string;
  readonly real: Destination;
  readonly faults: FaultDestination;
  /** As a job opens it. */
  readonly there: Destination;
}

async function place(options: FaultOptions = {}, patience = PATIENCE): Promise<Place> {
  const folder = await mkdtemp(join(tmpdir(), "rowkeep-faults-"));
  const real = await openLocalDestination({ type: "local", path: join(folder, "store") }, { signal });
  const faults = new FaultDestination(real, options);
  const there = makeResilient(faults, patience);
  return { folder, real, faults, there, [Symbol.asyncDispose]: () => rm(folder, { recursive: true }) };
}

function run(place: Place, ...destinations: Destination[]): Promise<BackUpResult> {
  return runOn(undefined, place, ...destinations);
}

function runOn(
  base: BaseSnapshot | undefined,
  { folder }: Place,
  ...destinations: readonly Destination[]
): Promise<BackUpResult> {
  return backUp(backUpOptions(database.url, { folder, destinations }, { track: true, base }));
}

/** As a job does it, from the choice of what to build on. */
async function runIncremental(place: Place, ...destinations: Destination[]): Promise<BackUpResult> {
  const keeper = openBaseKeeper(join(place.folder, "bases"));
  const none = { lock: undefined, keys: undefined };
  const chosen = await chooseBase({ destinations, prefix: PREFIX, ...none, keeper, signal });
  return await runOn(chosen.base, place, ...chosen.destinations);
}

async function drill(destinations: readonly Destination[]): Promise<void> {
  const where = { destinations, prefix: PREFIX, signal };
  const located = await locateSnapshot({ ...where, choice: { name: "latest" } });
  await using reader = openSnapshotReader({ ...where, ...located });
  const { ok, problems } = await drillSnapshot({
    reader,
    server: connectionOfUrl(database.url),
    parallel: 1,
    stallTimeoutMs: 60_000,
    now: () => new Date(),
    signal,
    report: () => undefined,
  });
  // Whatever a destination does: what could be read is what was stored.
  expect(ok, JSON.stringify(problems)).toBe(true);
}

async function failureOf(work: Promise<unknown>): Promise<OperationalError> {
  const outcome = await work.catch((error: unknown) => error);
  if (outcome instanceof OperationalError) return outcome;
  throw new Error("it did not fail as expected", { cause: outcome });
}

const error = (code: DestinationReason): Fault => ({ kind: "error", code });
const always = (operation: Operation, fault: Fault, key = /^/) => scripted({ operation, key, fault, times: 999 });
const idsOf = async (destination: Destination) => {
  const listed = await listSnapshots({ destinations: [destination], prefix: PREFIX, signal, report: () => undefined });
  return listed.snapshots.map(({ id }) => id);
};

/** What a restore must bring back. */
const digest = "select md5(string_agg(o::text, ',' order by id)) from orders o";

async function restore(destinations: readonly Destination[]): Promise<RestoreResult> {
  const where = { destinations, prefix: PREFIX, signal };
  const located = await locateSnapshot({ ...where, choice: { name: "latest" } });
  await using reader = openSnapshotReader({ ...where, ...located });
  return await restoreSnapshot({
    reader,
    target: connectionOfUrl(database.url),
    isNamed: false,
    planOnly: false,
    confirm: async () => true,
    allowConversion: false,
    ignoreMissing: false,
    stallTimeoutMs: 60_000,
    signal,
    report: () => undefined,
  });
}

describe("a run", () => {
  test.each<[string, Fault]>([
    ["a cut line", error("unreachable")],
    ["a busy server", error("busy")],
    ["a stalled line", { kind: "stall" }],
    ["a lost acknowledgement", { kind: "lost" }],
    ["a doubled request", { kind: "twice" }],
  ])("survives %s at every kind of object", async (_, fault) => {
    await using at = await place({
      schedule: scripted({ operation: "put", key: VOLUME, fault }, { operation: "put", key: MANIFEST, fault }),
    });

    const { manifest, destinations } = await run(at, at.there);

    expect(destinations.map(({ status }) => status)).toEqual(["stored"]);
    expect(await idsOf(at.there)).toEqual([manifest.id]);
    expect(await untruthsOf(at.real, at.faults, PREFIX)).toEqual([]);
  });

  test("says which destination failed, why and how often it was tried, and is whole at the other", async () => {
    await using bad = await place({ schedule: always("put", error("unreachable")) });
    await using good = await place();

    const { manifest, destinations } = await run(good, bad.there, good.there);

    expect(destinations.map(({ status }) => status)).toEqual(["failed", "stored"]);
    expect(destinations[0]?.error).toMatchObject({ kind: "destination", code: "unreachable" });
    expect(destinations[0]?.error?.message).toMatch(/\(tried 3 times in \d/);
    expect([await idsOf(bad.real), await idsOf(good.real)]).toEqual([[], [manifest.id]]);
    expect(await untruthsOf(good.real, good.faults, PREFIX)).toEqual([]);
  });

  test("fails with the destinations' error when all of them fail, and the next one is whole", async () => {
    await using first = await place({ quotaBytes: 1000 });
    await using second = await place({ schedule: always("put", error("denied")) });

    const failure = await failureOf(run(first, first.there, second.there));
    second.faults.schedule = undefined;
    const { manifest } = await run(first, second.there);

    expect(failure).toMatchObject({ kind: "destination", exitCode: 6 });
    expect(failure.message).toContain("every destination failed");
    expect(await idsOf(first.real)).toEqual([]);
    expect(await idsOf(second.real)).toEqual([manifest.id]);
  });

  test("is not misled into another run's folder by a listing that leaves things out", async () => {
    await using at = await place();
    const { manifest } = await run(at, at.there);
    at.faults.schedule = always("list", { kind: "omit" });

    await run(at, at.there).catch((failure: unknown) => expect(failure).toMatchObject({ code: "id-taken" }));

    at.faults.schedule = undefined;
    expect(await idsOf(at.real)).toContain(manifest.id);
    expect(await untruthsOf(at.real, at.faults, PREFIX)).toEqual([]);
  });
});

describe("list and show", () => {
  test.each<[string, Operation, Fault]>([
    ["a cut listing", "list", error("unreachable")],
    ["a stalled listing", "list", { kind: "stall" }],
    ["a listing that says everything twice", "list", { kind: "duplicate" }],
    ["a cut manifest", "get", error("unreachable")],
    ["a stalled manifest", "get", { kind: "stall" }],
    ["a busy server", "get", error("busy")],
  ])("survive %s", async (_, operation, fault) => {
    await using at = await place();
    const { manifest } = await run(at, at.there);
    at.faults.schedule = scripted({ operation, fault });

    expect(await idsOf(at.there)).toEqual([manifest.id]);

    at.faults.schedule = scripted({ operation, fault });
    const options = { destinations: [at.there], prefix: PREFIX, signal, report: () => undefined };
    const { snapshot } = showSnapshot(await locateSnapshot({ ...options, choice: { name: "latest" } }));
    expect(snapshot.id).toBe(manifest.id);
  });

  test("do not show what was removed, though the listing still does", async () => {
    await using at = await place();
    const { manifest } = await run(at, at.there);
    for (const name of ["manifest.json", "volume-0001.tar"]) {
      await at.faults.remove(`${PREFIX}/${manifest.id}/${name}`, { signal });
    }
    at.faults.schedule = always("list", { kind: "stale" });

    expect(await idsOf(at.there)).toEqual([]);
  });

  test("name a destination that does not answer, and fail when it is the only one", async () => {
    await using bad = await place();
    await using good = await place();
    await run(good, bad.there, good.there);
    bad.faults.schedule = always("list", error("unreachable"));
    const options = { prefix: PREFIX, signal, report: () => undefined };

    const both = await listSnapshots({ ...options, destinations: [bad.there, good.there] });

    expect(both.snapshots).toHaveLength(1);
    expect(both.warnings).toEqual([expect.stringContaining("is not in the list")]);
    expect(await failureOf(listSnapshots({ ...options, destinations: [bad.there] }))).toMatchObject({ exitCode: 6 });
  });
});

test("a safety snapshot names the destinations that do not have it", async () => {
  await using bad = await place();
  await using good = await place();
  bad.faults.schedule = always("put", error("denied"));

  const { id, warnings } = await keepOrders(good, bad, good);

  expect(warnings).toEqual([
    expect.stringMatching(`${bad.there.name} does not have the safety snapshot ${id}: cannot `),
  ]);
});

test("an undo that is done stays done when a destination cannot take its mark", async () => {
  await using bad = await place();
  await using good = await place();
  const { id } = await keepOrders(good, bad, good);
  const askOutcome = async () => "committed" as const;
  const where = { job: "shop", destinations: [bad.there, good.there], prefix: PREFIX, signal, askOutcome };
  bad.faults.schedule = always("put", error("denied"));

  const warnings = await markUndone((await findSafetySnapshot(where)).snapshot, {
    prefix: PREFIX,
    now: new Date(),
    signal,
  });

  expect(warnings).toEqual([expect.stringContaining(`does not know that ${id} was put back`)]);
  await expect(findSafetySnapshot(where)).rejects.toMatchObject({ code: "nothing-to-undo" });
});

test("nobody is told that there is no snapshot while a destination that may have one does not answer", async () => {
  await using bad = await place();
  await using empty = await place();
  await run(bad, bad.there);
  bad.faults.schedule = always("list", error("unreachable"));

  const failure = await failureOf(findPrefixes("shop", [bad.there, empty.there], { signal }));

  expect(failure).toMatchObject({ kind: "destination", code: "unreachable" });
});

describe("verify", () => {
  const verify = (destinations: readonly Destination[], report: (event: ProgressEvent) => void = () => undefined) =>
    verifySnapshot({ destinations, prefix: PREFIX, signal, report });

  test.each<[string, Fault]>([
    ["a cut line", error("unreachable")],
    ["a busy server", error("busy")],
    ["a stalled line", { kind: "stall" }],
    ["a line that ends early", { kind: "short" }],
    ["a bit that was flipped on the way", { kind: "flip" }],
  ])("does not call a snapshot damaged for %s", async (_, fault) => {
    await using at = await place();
    await run(at, at.there);
    for (const key of [VOLUME, MANIFEST]) {
      // The listing reads the manifest first.
      const after = key === MANIFEST ? 1 : 0;
      at.faults.schedule = scripted({ operation: "get", key, fault, after });

      const result = await verify([at.there]);

      expect(result, String(key)).toMatchObject({ ok: true, snapshots: [{ ok: true, problems: [] }] });
    }
  });

  test("warns of a bit that was flipped on the way", async () => {
    await using at = await place();
    await run(at, at.there);
    at.faults.schedule = scripted({ operation: "get", key: VOLUME, fault: { kind: "flip" } });
    const warnings: string[] = [];

    await verify([at.there], (event) => {
      if (event.type === "warning") warnings.push(event.message);
    });

    expect(warnings).toEqual([expect.stringContaining("read back wrong once")]);
  });

  test("calls a snapshot damaged whose stored bytes are, in whatever object", async () => {
    for (const key of [VOLUME, MANIFEST]) {
      await using at = await place();
      const { manifest } = await run(at, at.there);
      const name = `${PREFIX}/${manifest.id}/${key === VOLUME ? "volume-0001.tar" : "manifest.json"}`;
      const bytes = await Array.fromAsync(at.real.get(name, { signal }));
      at.faults.schedule = scripted({ operation: "put", fault: { kind: "flip" } });
      const whole = Buffer.concat(bytes);
      await at.faults.put(
        name,
        async function* () {
          yield whole;
        },
        { size: whole.length, signal },
      );

      const result = await verify([at.there]);

      expect(result.ok).toBe(false);
      expect(result.snapshots[0]?.problems.length).toBeGreaterThan(0);
    }
  });

  test("does not call damaged what did not answer, and verifies the other destination all the same", async () => {
    for (const schedule of [
      always("list", error("unreachable")),
      always("get", error("unreachable"), VOLUME),
      always("get", error("busy"), MANIFEST),
    ]) {
      await using bad = await place();
      await using good = await place();
      await run(good, bad.there, good.there);
      bad.faults.schedule = schedule;

      const both = await verify([bad.there, good.there]);
      const alone = await failureOf(verify([bad.there]));

      expect(both).toMatchObject({ ok: false, snapshots: [{ destination: good.there.name, ok: true }] });
      expect(both.unread).toMatchObject([{ destination: bad.there.name, error: { kind: "destination" } }]);
      expect(alone).toMatchObject({ exitCode: 6 });
    }
  });
});

describe("a restore", () => {
  test.each<[string, Fault]>([
    ["a cut line", error("unreachable")],
    ["a busy server", error("busy")],
    ["a stalled line", { kind: "stall" }],
  ])("survives %s", async (_, fault) => {
    await using at = await place();
    await run(at, at.there);
    const before = await database.query(digest);
    await database.query("delete from orders where id % 2 = 0");
    at.faults.schedule = scripted({ operation: "get", key: VOLUME, fault, times: 2 });

    await restore([at.there]);

    expect(await database.query(digest)).toEqual(before);
  });

  test.each<[string, Fault, object]>([
    ["a line that is cut for good", error("unreachable"), { kind: "destination", code: "unreachable" }],
    ["access that is denied", error("denied"), { kind: "destination", code: "denied" }],
    ["a volume that always ends early", { kind: "short" }, { kind: "archive", code: "truncated" }],
    ["flipped bits", { kind: "flip" }, { kind: "archive", code: "hash-mismatch" }],
  ])("changes nothing for %s, and takes another destination where there is one", async (_, fault, expected) => {
    await using bad = await place();
    await using good = await place();
    await run(good, bad.there, good.there);
    const before = await database.query(digest);
    await database.query("update orders set note = 'damaged' where id = 7");
    const damaged = await database.query(digest);
    bad.faults.schedule = always("get", fault, VOLUME);

    expect(await failureOf(restore([bad.there]))).toMatchObject(expected);
    expect(await database.query(digest)).toEqual(damaged);

    await restore([bad.there, good.there]);
    expect(await database.query(digest)).toEqual(before);
  });
});

test("whatever goes wrong wherever, every command ends well or with its error, and no wrong snapshot is listed", {
  timeout: 600_000,
}, async () => {
  const outcomes = new Set<string>();
  for (let seed = 1; seed <= ROUNDS; seed++) {
    const rate = [0.05, 0.15, 0.3][seed % 3] ?? 0;
    await using one = await place({ schedule: seeded(seed * 2, rate), seed }, HASTE);
    await using two = await place({ schedule: seeded(seed * 2 + 1, rate), seed }, HASTE);
    const destinations = [one.there, two.there];
    const where = { destinations, prefix: PREFIX, signal, report: () => undefined };
    const commands: Record<string, () => Promise<unknown>> = {
      run: () => run(one, ...destinations),
      list: () => listSnapshots(where),
      verify: () => verifySnapshot(where),
      show: async () => showSnapshot(await locateSnapshot({ ...where, choice: { name: "latest" } })),
      "run again": () => run(one, ...destinations),
      incremental: () => runIncremental(one, ...destinations),
      ...(seed % 4 === 1 ? { drill: () => drill(destinations) } : {}),
    };

    for (const [name, command] of Object.entries(commands)) {
      const failure = await command().catch((reason: unknown) => reason ?? new Error("nothing was thrown"));
      if (!(failure instanceof Error)) continue;
      expect(failure, `${name}, seed ${seed}`).toBeInstanceOf(OperationalError);
      outcomes.add(`${(failure as OperationalError).kind} ${(failure as OperationalError).code}`);
    }

    const before = await database.query(digest);
    await database.query("update orders set note = note || 'x' where id = 7");
    const damaged = await database.query(digest);
    const isRestored = await restore(destinations).then(
      () => true,
      (failure: unknown) => {
        expect(failure, `restore, seed ${seed}`).toBeInstanceOf(OperationalError);
        return false;
      },
    );
    expect(await database.query(digest), `restore, seed ${seed}`).toEqual(isRestored ? before : damaged);

    for (const { real, faults } of [one, two]) {
      faults.schedule = undefined;
      expect(await untruthsOf(real, faults, PREFIX), `seed ${seed}`).toEqual([]);
    }
  }
  expect([...outcomes].filter((outcome) => !/^(destination|archive) |^usage not-found$/.test(outcome))).toEqual([]);
});

/** Takes a safety snapshot of the orders. */
function keepOrders({ folder }: Place, ...places: readonly Place[]) {
  return takeSafetySnapshot(
    {
      connection: connectionOfUrl(database.url),
      job: "shop",
      prefix: PREFIX,
      destinations: places.map(({ there }) => there),
      spoolFolder: join(folder, "spool"),
      restoredSnapshot: "20261121T020000Z-full",
      largeObjects: true,
      stallTimeoutMs: 60_000,
      signal,
      report: () => undefined,
    },
    {
      tables: [{ schema: "public", name: "orders" }],
      target: {
        engine: "postgres",
        version: "18.4",
        database: database.name,
        encoding: "UTF8",
        user: "postgres",
        isReplica: false,
      },
      transaction: "1000",
    },
  );
}
