import { existsSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Destination, destinationError } from "../../src/destinations/destination.ts";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { findHome, type Home } from "../../src/job/home.ts";
import { type Job, readJob } from "../../src/job/read-job.ts";
import { openStateStore, type StateStore } from "../../src/job/state-store.ts";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { openRepository } from "../../src/snapshot/repository.ts";
import { parseSnapshotId } from "../../src/snapshot/snapshot-id.ts";
import { acknowledgeAnomalies } from "../../src/usecases/anomaly-brake.ts";
import { pinSnapshot } from "../../src/usecases/pin-snapshot.ts";
import { pruneAfterRun } from "../../src/usecases/prune-after-run.ts";
import { pruneDatabase, type PruneDatabaseOptions } from "../../src/usecases/prune-database.ts";
import { createFolder, never, PREFIX, type TestFolder, referringTo, writeSample } from "../snapshot/sample-snapshot.ts";

const [FIRST, SECOND, THIRD] = ["20261101T020000Z-full", "20261102T020000Z-full", "20261103T020000Z-full"] as const;
const NOW = new Date("2026-11-03T03:00:00Z");

let folder: TestFolder;
let near: Destination;
let far: Destination;
let home: Home;
let state: StateStore;

beforeEach(async () => {
  folder = await createFolder();
  const open = (name: string) =>
    openLocalDestination({ type: "local", name, path: join(folder.path, name) }, { signal: never });
  near = await open("near");
  far = await open("far");
  home = findHome({ homeFlag: join(folder.path, "home"), env: {} });
  state = await openStateStore(home, () => undefined);
});

afterEach(async () => {
  state[Symbol.dispose]();
  await folder[Symbol.asyncDispose]();
});

const pathOf = (destination: Destination, ...parts: string[]) =>
  join(folder.path, destination.name, "shop", "shop", ...parts);

async function store(
  id: string,
  manifest: Partial<Manifest> = {},
  destinations: readonly Destination[] = [near],
  base?: Manifest,
): Promise<Manifest> {
  const createdAt = parseSnapshotId(id)?.takenAt.toISOString() ?? "";
  const kind = parseSnapshotId(id)?.kind ?? "full";
  const increment = base ? { base, adopts: () => true } : {};
  return writeSample({
    destinations,
    spoolFolder: folder.spool,
    id,
    manifest: { createdAt, kind, ...manifest },
    ...increment,
  });
}

async function jobWith(retention: string): Promise<Job> {
  const path = join(folder.path, "shop.yaml");
  const places = ["near", "far"].map((name) => `{ type: local, name: ${name}, path: ${name} }`).join(", ");
  await writeFile(
    path,
    `version: 1\nname: shop\nsource: { url: "postgres://u@h/shop" }\ndestinations: [${places}]\nretention: ${retention}\n`,
  );
  return readJob(path, findHome({ homeFlag: folder.path, env: {} }), { cwd: folder.path });
}

async function prune(more: Partial<PruneDatabaseOptions> = {}, retention = "{ keepLast: 1 }") {
  return pruneDatabase({
    job: await jobWith(retention),
    home,
    prefix: PREFIX,
    destinations: [near],
    state,
    now: NOW,
    dryRun: false,
    acceptMissing: false,
    signal: never,
    report: () => undefined,
    ...more,
  });
}

const idsOf = (list: readonly { readonly id: string }[]) => list.map(({ id }) => id);

/** A destination that answers differently in one point, as no server does on command. */
function faulty(destination: Destination, fault: Partial<Destination>): Destination {
  return {
    name: destination.name,
    put: (...args) => destination.put(...args),
    get: (...args) => destination.get(...args),
    stat: (...args) => destination.stat(...args),
    list: (...args) => destination.list(...args),
    remove: (...args) => destination.remove(...args),
    [Symbol.asyncDispose]: async () => undefined,
    ...fault,
  };
}

function refusingToRemove(destination: Destination, pattern: RegExp): Destination {
  return faulty(destination, {
    remove: async (key, options) => {
      if (pattern.test(key)) throw destinationError(`cannot remove ${key}: access denied`, "denied");
      return destination.remove(key, options);
    },
  });
}

describe("a removal that fails", () => {
  test("leaves a volume for a later run, warns, and hinders no other", async () => {
    for (const id of [FIRST, SECOND, THIRD]) await store(id);

    const result = await prune({ destinations: [refusingToRemove(near, /20261101.*volume/)] });

    expect(idsOf(result.removed)).toEqual([FIRST, SECOND]);
    expect(result.warnings).toEqual([expect.stringContaining("left for a later run")]);
    expect(existsSync(pathOf(near, FIRST, "volume-0001.tar"))).toBe(true);
    expect(existsSync(pathOf(near, FIRST, "manifest.json"))).toBe(false);
    expect(existsSync(pathOf(near, SECOND))).toBe(false);
  });

  test("keeps a snapshot whole when its manifest stays, and whatever it refers to", async () => {
    const increment = "20261102T030000Z-incremental";
    await store(FIRST);
    await store(increment, referringTo(FIRST));
    await store(SECOND);
    await store(THIRD);
    state.addStored(PREFIX, "near", increment);

    const result = await prune({ destinations: [refusingToRemove(near, /incremental\/manifest/)] });

    expect(idsOf(result.removed)).toEqual([SECOND]);
    expect(result.warnings).toHaveLength(2);
    expect(existsSync(pathOf(near, increment, "volume-0001.tar"))).toBe(true);
    expect(existsSync(pathOf(near, FIRST, "volume-0001.tar"))).toBe(true);
    expect(state.storedAt(PREFIX, "near")).toEqual([increment]);
  });
});

describe("pruning a database", () => {
  test("keeps what a kept incremental refers to", async () => {
    await store(FIRST);
    await store(SECOND);
    await store("20261102T030000Z-incremental", referringTo(FIRST));

    const result = await prune();

    expect(idsOf(result.removed)).toEqual([SECOND]);
    expect(result.kept[0]).toMatchObject({ id: FIRST, reasons: ["20261102T030000Z-incremental needs it"] });
  });

  test("lets no incremental whose full is gone push out a snapshot that is whole", async () => {
    const increment = "20261103T030000Z-incremental";
    await store(FIRST);
    const base = await store(SECOND);
    await store(increment, {}, [near], base);
    await rm(pathOf(near, SECOND), { recursive: true });

    const result = await prune();

    expect(result.removed).toEqual([]);
    expect(result.kept.map(({ id, reasons }) => [id, reasons[0]])).toEqual([
      [FIRST, "last good"],
      [increment, "damaged: counts for nothing"],
    ]);
    expect(result.warnings).toEqual([expect.stringContaining(`it needs ${SECOND}, which is not there`)]);
  });

  test("keeps at each destination what the snapshot there refers to, though another has another one of that id", async () => {
    const increment = "20261103T030000Z-incremental";
    const first = await store(FIRST, {}, [near, far]);
    const second = await store(SECOND, {}, [near, far]);
    await store(increment, {}, [near], first);
    await store(increment, {}, [far], second);

    const result = await prune({ destinations: [near, far] });

    expect(result.removed.map(({ id, destination }) => [id, destination])).toEqual([
      [SECOND, "near"],
      [FIRST, "far"],
    ]);
  });

  test("keeps the only copy that tells what one that is damaged elsewhere needs", async () => {
    const increment = "20261102T030000Z-incremental";
    const base = await store(FIRST, {}, [near, far]);
    await store(increment, {}, [near, far], base);
    await store(THIRD, {}, [near, far]);
    await rm(pathOf(far, increment, "manifest.json"));
    await writeFile(pathOf(far, increment, "manifest.json"), "{}");

    const results = [await prune({ destinations: [near, far] }), await prune({ destinations: [near, far] })];

    expect(results.map(({ removed }) => removed)).toEqual([[], []]);
    expect(results[1]?.kept.find(({ id }) => id === increment)?.reasons).toEqual(["damaged at another destination"]);
  });

  test("tells what stays only because a later snapshot refers to it, also when it overwrites", async () => {
    const increment = "20261103T030000Z-incremental";
    const base = await store(FIRST);
    await store(increment, {}, [near], base);
    const job = { ...(await jobWith("{ keepDaily: 9 }")), naming: "overwrite" } as const;

    const result = await prune({ job, now: new Date("2026-11-03T04:00:00Z") });

    expect(result.removed).toEqual([]);
    expect(result.kept[0]).toMatchObject({ id: FIRST, reasons: [`${increment} needs it`] });
    expect(result.kept[0]?.bytesForOthers).toBe(base.volumes[0]?.size);
    expect(result.kept[1]).not.toHaveProperty("bytesForOthers");
  });

  test("goes on at the destinations that answer, and names the one that does not", async () => {
    for (const id of [FIRST, SECOND]) await store(id, {}, [near, far]);
    const dead = faulty(near, {
      list: async function* () {
        yield* [];
        throw destinationError("cannot list near: connection refused", "unreachable");
      },
    });

    const result = await prune({ destinations: [dead, far] });

    expect(result.removed).toMatchObject([{ id: FIRST, destination: "far" }]);
    expect(result.warnings).toEqual(["near was not pruned: cannot list near: connection refused"]);
    expect(existsSync(pathOf(near, FIRST))).toBe(true);
    await expect(prune({ destinations: [dead] })).rejects.toMatchObject({ kind: "destination" });
  });

  test("counts a snapshot that lacks a volume for nothing, there and nowhere else", async () => {
    for (const id of [FIRST, SECOND, THIRD]) await store(id, {}, [near, far]);
    await rm(pathOf(near, THIRD, "volume-0001.tar"));

    const result = await prune({ destinations: [near, far] });

    expect(result.kept.map(({ id, destination }) => [id, destination])).toEqual([
      [SECOND, "near"],
      [THIRD, "near"],
      [THIRD, "far"],
    ]);
    expect(result.warnings).toEqual([expect.stringContaining("lacks volumes")]);
  });

  test("reports a snapshot from the future, keeps it, and lets it push nobody out", async () => {
    for (const id of [FIRST, SECOND, "20310101T000000Z-full"]) await store(id);

    const result = await prune();

    expect(idsOf(result.kept)).toEqual([SECOND, "20310101T000000Z-full"]);
    expect(result.warnings).toEqual([expect.stringContaining("from the future")]);
  });

  test("leaves the snapshots of another server and of another job alone", async () => {
    const { source } = await store(THIRD);
    await store(FIRST, { source: { ...source, systemIdentifier: "1" } });
    await store(SECOND, { job: "other" });

    const result = await prune();

    expect(result.removed).toEqual([]);
    expect(result.kept.slice(0, 2).map(({ reasons }) => reasons)).toEqual([
      ["of another server or job"],
      ["of another server or job"],
    ]);
  });

  test("refuses while nobody knows what a damaged incremental refers to, unless another destination tells", async () => {
    const increment = "20261102T030000Z-incremental";
    await store(FIRST, {}, [near, far]);
    await store(SECOND, {}, [near, far]);
    await store(increment, referringTo(FIRST), [near, far]);
    await store(THIRD, {}, [near, far]);
    const manifest = pathOf(near, increment, "manifest.json");
    await rm(manifest);
    await writeFile(manifest, "{}");

    await expect(prune()).rejects.toMatchObject({ kind: "refused", code: "unknown-references" });
    const both = await prune({ destinations: [near, far] });

    expect(both.removed.filter(({ destination }) => destination === "near")).toMatchObject([{ id: SECOND }]);
  });

  test("holds a pin of one destination at all of them, and one that a list does not show", async () => {
    for (const id of [FIRST, SECOND, THIRD]) await store(id, {}, [near, far]);
    const pin = { prefix: PREFIX, pinned: true, now: NOW, signal: never };
    await pinSnapshot({ ...pin, destinations: [near], name: FIRST });
    const forgetful = faulty(near, {
      list: async function* (prefix, options) {
        for await (const info of near.list(prefix, options)) if (!info.key.endsWith("pinned.json")) yield info;
      },
    });

    const lied = await prune({ destinations: [forgetful] });
    const result = await prune({ destinations: [near, far] });

    expect(idsOf(lied.removed)).toEqual([SECOND]);
    expect(lied.warnings).toEqual([expect.stringContaining("it is pinned")]);
    expect(result.removed).toMatchObject([{ id: SECOND, destination: "far" }]);
    expect(existsSync(pathOf(near, FIRST, "volume-0001.tar"))).toBe(true);
  });

  test("is stopped by anomalies at one destination until they are acknowledged at one", async () => {
    const anomalies = [{ schema: "public", name: "t", kind: "vanished", rowsBefore: 5, rows: 0 }] as const;
    await store(FIRST, {}, [near, far]);
    await store(SECOND, { anomalies }, [near, far]);
    const job = await jobWith("{ keepLast: 1 }");

    await expect(prune({ destinations: [near, far] })).rejects.toMatchObject({ kind: "refused", code: "brake" });
    const dryRun = await prune({ dryRun: true });
    await acknowledgeAnomalies({
      job,
      prefix: PREFIX,
      destinations: [far],
      now: NOW,
      warn: () => undefined,
      signal: never,
    });
    const result = await prune({ destinations: [near, far] });

    expect(idsOf(dryRun.removed)).toEqual([FIRST]);
    expect(dryRun.warnings).toEqual([expect.stringContaining("public.t vanished")]);
    expect(result.removed).toHaveLength(2);
  });

  test("remembers anomalies of a snapshot whose only destination does not answer, until it does", async () => {
    const anomalies = [{ schema: "public", name: "t", kind: "vanished", rowsBefore: 5, rows: 0 }] as const;
    await store(FIRST, {}, [near, far]);
    await store(SECOND, { anomalies }, [far]);
    await store(THIRD, {}, [near, far]);
    const unreachable = faulty(far, {
      list: async function* () {
        yield* [];
        throw destinationError("cannot list far: it does not answer", "unreachable");
      },
    });
    await expect(prune({ destinations: [near, far] })).rejects.toMatchObject({ code: "brake" });

    const refused = expect.objectContaining({ code: "brake", message: expect.stringContaining(SECOND) });
    await expect(prune({ destinations: [near, unreachable] })).rejects.toEqual(refused);
    await expect(prune({ destinations: [near] })).rejects.toEqual(refused);
    const braking = { job: await jobWith("{ keepLast: 1 }"), prefix: PREFIX, now: NOW, signal: never };
    await acknowledgeAnomalies({ ...braking, destinations: [far], warn: () => undefined });
    await prune({ destinations: [near, far] });

    expect(state.brakesOf(PREFIX)).toEqual([]);
    expect(existsSync(pathOf(near, FIRST))).toBe(false);
  });

  test("takes a pin away with the snapshot's other objects in mind: it is not garbage", async () => {
    await store(FIRST);
    await openRepository(near, PREFIX).setPinned(FIRST, true, { now: NOW, signal: never });
    const later = new Date(Date.now() + 86_400_000);

    const garbage = await openRepository(near, PREFIX).findGarbage({ now: later, leaseMs: 0, signal: never });

    expect(garbage).toEqual([]);
  });
});

describe("pruning after a run", () => {
  async function afterRun(manifest: Manifest, more: { readonly problem?: string; readonly now?: Date } = {}) {
    const warnings: string[] = [];
    const destinations = [{ name: "near", status: "stored" as const }];
    const removed = await pruneAfterRun({
      job: await jobWith("{ keepLast: 1 }"),
      home,
      prefix: PREFIX,
      destinations: [near, far],
      state,
      startedAt: more.now ?? NOW,
      now: more.now ?? NOW,
      result: { manifest, destinations, durationMs: 0 },
      brake: { findAnomalies: () => [], noLongerWanted: { excluded: [], schemaOnly: [] }, problem: more.problem },
      warn: (message) => warnings.push(message),
      signal: never,
      report: () => undefined,
    });
    return { removed, warnings };
  }

  test("works only where the new snapshot is", async () => {
    for (const id of [FIRST, SECOND]) await store(id, {}, [near, far]);
    const manifest = await store("20261103T025900Z-full");

    const { removed, warnings } = await afterRun(manifest);

    expect(removed).toMatchObject([
      { id: FIRST, destination: "near" },
      { id: SECOND, destination: "near" },
    ]);
    expect(warnings).toEqual([]);
    expect(state.storedAt(PREFIX, "near")).toEqual([manifest.id]);
  });

  test("heeds a pin at a destination that it does not prune", async () => {
    for (const id of [FIRST, SECOND]) await store(id, {}, [near, far]);
    const manifest = await store("20261103T025900Z-full");
    await openRepository(far, PREFIX).setPinned(FIRST, true, { now: NOW, signal: never });

    const { removed } = await afterRun(manifest);

    expect(idsOf(removed)).toEqual([SECOND]);
  });

  test("waits when the clocks differ by more than five minutes, in either direction, or nothing was compared", async () => {
    await store(FIRST);
    const manifest = await store(THIRD);
    const skewed = [new Date("2026-11-03T01:50:00Z"), new Date("2026-11-03T02:10:00Z")];

    for (const now of skewed) {
      const { removed, warnings } = await afterRun(manifest, { now });
      expect(removed).toEqual([]);
      expect(warnings).toEqual([expect.stringContaining("differ by 10 minutes")]);
    }
    const { warnings } = await afterRun(manifest, { problem: "access denied", now: new Date("2026-11-03T02:00:00Z") });
    expect(warnings).toEqual([expect.stringContaining("could not be compared")]);
    expect(existsSync(pathOf(near, FIRST))).toBe(true);
  });
});
