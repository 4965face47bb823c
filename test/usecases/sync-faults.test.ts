import { rm } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openSpool } from "../../src/archive/spool.ts";
import { OperationalError } from "../../src/base/errors.ts";
import { makeResilient } from "../../src/destinations/open-resilient-destination.ts";
import { copySnapshot, readGoodParts } from "../../src/snapshot/copy-snapshot.ts";
import { openRepository } from "../../src/snapshot/repository.ts";
import { planSync } from "../../src/usecases/plan-sync.ts";
import { createFolder, ID, never, PREFIX, type TestFolder, writeSample } from "../snapshot/sample-snapshot.ts";
import { type Fault, FaultDestination, type Schedule, scripted, seeded } from "../support/fault-destination.ts";
import { untruthsOf } from "../support/truth.ts";

const ROUNDS = Number(process.env["ROWKEEP_FAULT_ROUNDS"] ?? 8);
const PATIENCE = {
  retry: { attempts: 3, failedAttempts: 2, firstDelayMs: 1, maxDelayMs: 2, patienceMs: 60_000 },
  watchdog: { stallMs: 800, answerMs: 1000, graceMs: 50 },
};
/** For many rounds: what is given up too soon only adds to the faults. */
const HASTE = { ...PATIENCE, watchdog: { stallMs: 40, answerMs: 50, graceMs: 20 } };
const VOLUME = /volume-0002\.tar$/;
const MANIFEST = /manifest\.json$/;

interface Pair extends AsyncDisposable {
  readonly source: TestFolder;
  readonly target: TestFolder;
  readonly from: FaultDestination;
  readonly to: FaultDestination;
}

async function createPair(seed = 1): Promise<Pair> {
  const [source, target] = [await createFolder(), await createFolder()];
  await writeSample({ destinations: [source.destination], spoolFolder: source.spool, volumeBytes: 16 * 1024 });
  return {
    source,
    target,
    from: new FaultDestination(source.destination, { seed }),
    to: new FaultDestination(target.destination, { seed }),
    async [Symbol.asyncDispose]() {
      await source[Symbol.asyncDispose]();
      await target[Symbol.asyncDispose]();
    },
  };
}

/** Copies what the target misses, through destinations as a job opens them. */
async function copy({ from, to, target }: Pair, patience = PATIENCE): Promise<void> {
  const destinations = [makeResilient(from, patience), makeResilient(to, patience)];
  const options = { prefix: PREFIX, signal: never, onFailure: () => {} };
  await using spool = await openSpool(join(target.path, "spool"));
  const { missed, unknown } = await planSync({
    ...options,
    destinations,
    isSource: (destination) => destination === destinations[0],
    onUnread: (_, error) => {
      throw error;
    },
    onDamaged: () => {},
  });
  if (unknown[0]) throw unknown[0].error;
  for (const { id, listed, sources, target: place } of missed) {
    const parts = await readGoodParts({ ...options, id }, listed);
    await copySnapshot({ ...options, id, parts, sources, target: place, spool, onBytes: () => {} });
  }
}

async function idsAt(folder: TestFolder): Promise<string[]> {
  const { snapshots } = await openRepository(folder.destination, PREFIX).list({ signal: never });
  return snapshots.map(({ id }) => id);
}

const once = (kind: "put" | "get", key: RegExp, fault: Fault): Schedule => scripted({ operation: kind, key, fault });

test.each<[string, Fault]>([
  ["a cut line", { kind: "error", code: "unreachable" }],
  ["a busy server", { kind: "error", code: "busy" }],
  ["a stalled line", { kind: "stall" }],
  ["a lost acknowledgement", { kind: "lost" }],
  ["a doubled request", { kind: "twice" }],
])("a copy survives %s at every kind of object", async (_, fault) => {
  for (const key of [VOLUME, MANIFEST]) {
    await using pair = await createPair();
    pair.to.schedule = once("put", key, fault);

    await copy(pair);

    pair.to.schedule = undefined;
    expect(await idsAt(pair.target)).toEqual([ID]);
    expect(await untruthsOf(pair.target.destination, pair.to, PREFIX)).toEqual([]);
  }
});

test("a copy survives a bit that flips on the way from the source", async () => {
  await using pair = await createPair();
  pair.from.schedule = once("get", VOLUME, { kind: "flip" });

  await copy(pair);

  expect(await untruthsOf(pair.target.destination, pair.to, PREFIX)).toEqual([]);
  expect(await idsAt(pair.target)).toEqual([ID]);
});

test.each<[string, "put" | "get", RegExp, Fault]>([
  ["half a volume that its server calls done", "put", VOLUME, { kind: "short" }],
  ["a manifest that reads back differently", "put", MANIFEST, { kind: "flip" }],
  ["half a manifest that its server calls done", "put", MANIFEST, { kind: "short" }],
])("a copy is not listed for %s", async (_, operation, key, fault) => {
  await using pair = await createPair();
  pair.to.schedule = scripted({ operation, key, fault, times: 99 });

  await expect(copy(pair)).rejects.toBeInstanceOf(OperationalError);

  expect(await idsAt(pair.target)).toEqual([]);
  pair.to.schedule = undefined;
  // From now on nothing there may be damaged any more.
  pair.to.damaged.clear();
  await copy(pair);
  expect(await idsAt(pair.target)).toEqual([ID]);
  expect(await untruthsOf(pair.target.destination, pair.to, PREFIX)).toEqual([]);
});

test("a copy is taken back when a volume goes away behind it", async () => {
  await using pair = await createPair();
  const volume = join(pair.target.path, "store", PREFIX, ID, "volume-0001.tar");
  let isGone = false;
  pair.to.schedule = ({ operation, key }) => {
    // A run on another machine that gives its own copy up there.
    if (operation === "put" && MANIFEST.test(key) && !isGone) {
      isGone = true;
      void rm(volume, { force: true });
    }
    return undefined;
  };

  await expect(copy(pair)).rejects.toMatchObject({ kind: "destination" });

  expect(await idsAt(pair.target)).toEqual([]);
});

test("whatever goes wrong wherever, no wrong snapshot is listed, and a later copy is whole", {
  timeout: 120_000,
}, async () => {
  for (let seed = 1; seed <= ROUNDS; seed++) {
    const rate = [0.1, 0.25][seed % 2] ?? 0;
    await using pair = await createPair(seed);
    pair.from.schedule = seeded(seed * 2, rate);
    pair.to.schedule = seeded(seed * 2 + 1, rate);

    const failure: unknown = await copy(pair, HASTE).catch((error: unknown) => error);
    pair.from.schedule = undefined;
    pair.to.schedule = undefined;
    if (failure !== undefined) expect(failure, `seed ${seed}`).toBeInstanceOf(OperationalError);
    const untruths = await untruthsOf(pair.target.destination, pair.to, PREFIX);
    // A server that stores flipped bits is found out by verify, not by the copy: sizes are all that it is asked for.
    expect(untruths, `seed ${seed}`).toEqual([]);
    if (pair.to.damaged.size > 0) continue;
    await copy(pair);
    expect(await idsAt(pair.target), `seed ${seed}`).toEqual([ID]);
  }
});
