import { hash } from "node:crypto";
import { cp, rm, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { generateKeyPair } from "../../src/archive/age-keys.ts";
import type { Destination } from "../../src/destinations/destination.ts";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { findHome, type Home } from "../../src/job/home.ts";
import { type Job, readJob } from "../../src/job/read-job.ts";
import { openStateStore, type StateStore } from "../../src/job/state-store.ts";
import { type Envelope, renderEnvelope } from "../../src/snapshot/envelope-text.ts";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { openRepository } from "../../src/snapshot/repository.ts";
import type { RetentionFacts } from "../../src/snapshot/retention-facts.ts";
import { parseSnapshotId } from "../../src/snapshot/snapshot-id.ts";
import { createKeyRing } from "../../src/snapshot/snapshot-key.ts";
import { acknowledgeAnomalies, readBrake } from "../../src/usecases/anomaly-brake.ts";
import { pinSnapshot } from "../../src/usecases/pin-snapshot.ts";
import { pruneDatabase, type PruneDatabaseOptions } from "../../src/usecases/prune-database.ts";
import { createFolder, never, PREFIX, type TestFolder, referringTo, writeSample } from "../snapshot/sample-snapshot.ts";

const [FIRST, SECOND, THIRD] = ["20261101T020000Z-full", "20261102T020000Z-full", "20261103T020000Z-full"] as const;
const NOW = new Date("2026-11-03T03:00:00Z");
const ANOMALIES = [{ schema: "public", name: "t", kind: "vanished", rowsBefore: 5, rows: 0 }] as const;

const pair = await generateKeyPair();
const keys = createKeyRing({ identities: [pair.identity] });
const stranger = await generateKeyPair();

let folder: TestFolder;
let near: Destination;
let far: Destination;
let home: Home;
let state: StateStore;
let job: Job;

beforeEach(async () => {
  folder = await createFolder();
  const open = (name: string) =>
    openLocalDestination({ type: "local", name, path: join(folder.path, name) }, { signal: never });
  near = await open("near");
  far = await open("far");
  home = findHome({ homeFlag: join(folder.path, "home"), env: {} });
  state = await openStateStore(home, () => undefined);
  const path = join(folder.path, "shop.yaml");
  await writeFile(
    path,
    `version: 1\nname: shop\nsource: { url: "postgres://u@h/shop" }\nretention: { keepLast: 1 }\n` +
      `destinations: [{ type: local, name: near, path: near }, { type: local, name: far, path: far }]\n` +
      `encryption: { recipients: [${pair.recipient}] }\n`,
  );
  job = await readJob(path, findHome({ homeFlag: folder.path, env: {} }), { cwd: folder.path });
});

afterEach(async () => {
  state[Symbol.dispose]();
  await folder[Symbol.asyncDispose]();
});

const pathOf = (id: string, name: string, place = near) => join(folder.path, place.name, "shop", "shop", id, name);

interface Stored {
  readonly destinations?: readonly Destination[];
  readonly recipient?: string;
  readonly manifest?: Partial<Manifest>;
  /** Made by this machine, which remembers it. */
  readonly own?: boolean;
}

/** Stores an encrypted snapshot as a run does. */
async function store(id: string, { destinations = [near], recipient = pair.recipient, ...more }: Stored = {}) {
  const parsed = parseSnapshotId(id);
  const manifest = { createdAt: parsed?.takenAt.toISOString() ?? "", kind: parsed?.kind ?? "full", ...more.manifest };
  const lock = { recipients: [recipient] };
  const stored = await writeSample({ destinations, spoolFolder: folder.spool, id, lock, manifest });
  if (more.own === false) return stored;
  for (const { name } of destinations) state.addStored(PREFIX, name, id);
  const envelopeSha256 = hash("sha256", await readFile(pathOf(id, "envelope.json", destinations[0])));
  state.addEncrypted(PREFIX, { id, envelopeSha256, tables: stored.tables });
  return stored;
}

/** Puts an envelope there that tells something else and is intact, as anybody could who may write. */
async function forge(id: string, facts: Partial<RetentionFacts>): Promise<void> {
  const path = pathOf(id, "envelope.json");
  const { sha256: _seal, ...envelope } = JSON.parse(await readFile(path, "utf8")) as Envelope & { sha256: string };
  const retention = { ...(envelope.retention as RetentionFacts), ...facts };
  await writeFile(`${path}.new`, renderEnvelope({ ...envelope, retention }));
  await cp(`${path}.new`, path);
}

const prune = (more: Partial<PruneDatabaseOptions> = {}) =>
  pruneDatabase({
    job,
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

const idsOf = (list: readonly { readonly id: string }[]) => list.map(({ id }) => id);

async function leftAt(place: Destination): Promise<ReadonlySet<string>> {
  const ids = new Set<string>();
  for await (const { key } of place.list(`${PREFIX}/`, { signal: never })) ids.add(key.split("/")[2] ?? "");
  return ids;
}

describe("a prune of encrypted snapshots", () => {
  test.each([
    ["without their key", undefined],
    ["with their key", keys],
  ])("does what the retention says %s", async (_, given) => {
    for (const id of [FIRST, SECOND, THIRD]) await store(id);

    const result = await prune({ keys: given });

    expect(idsOf(result.removed)).toEqual([FIRST, SECOND]);
    expect(result.kept).toMatchObject([{ id: THIRD, reasons: ["last good", "last"] }]);
    expect(result.warnings).toEqual([]);
    expect([...(await leftAt(near))]).toEqual([THIRD]);
  });

  test("counts plain ones, which the job made before, in the same rules", async () => {
    const createdAt = "2026-11-01T02:00:00.000Z";
    await writeSample({ destinations: [near], spoolFolder: folder.spool, id: FIRST, manifest: { createdAt } });
    await store(SECOND);

    expect(idsOf((await prune()).removed)).toEqual([FIRST]);
  });

  test("lets those that another machine made go, and push out none of its own", async () => {
    await store(FIRST);
    await store(SECOND);
    await store("20261102T030000Z-full", { own: false });
    await store(THIRD, { own: false });

    const result = await prune();

    expect(idsOf(result.removed)).toEqual([FIRST, "20261102T030000Z-full"]);
    expect(idsOf(result.kept)).toEqual([SECOND, THIRD]);
  });

  test("lets no plain one, which anybody could have put there, push out an encrypted one", async () => {
    await store(FIRST);
    await store(SECOND);
    const createdAt = "2026-11-03T02:00:00.000Z";
    await writeSample({ destinations: [near], spoolFolder: folder.spool, id: THIRD, manifest: { createdAt } });

    for (const given of [undefined, keys]) {
      const result = await prune({ keys: given, dryRun: true });
      expect(idsOf(result.removed)).toEqual([FIRST]);
      expect(result.kept).toMatchObject([{ id: SECOND, reasons: ["last good", "last"] }, { id: THIRD }]);
    }
  });

  test("keeps what another key opens, with and without a key at hand, and says so", async () => {
    await store(FIRST, { recipient: stranger.recipient, own: false });
    await store(SECOND);
    await store(THIRD, { recipient: stranger.recipient, own: false });

    const closed = await prune();
    const wrong = await prune({ keys });

    for (const { removed, warnings } of [closed, wrong]) {
      expect(removed).toEqual([]);
      expect(warnings).toHaveLength(2);
    }
    expect(closed.warnings[0]).toContain("other keys than those of the job");
    expect(wrong.warnings[0]).toContain("the key is wrong");
  });

  test("leaves those of another server alone", async () => {
    const { source } = await store(SECOND);
    await store(FIRST, { manifest: { source: { ...source, systemIdentifier: "1" } } });

    expect((await prune()).kept).toMatchObject([{ id: FIRST, reasons: ["of another server or job"] }, { id: SECOND }]);
  });

  test("keeps safety snapshots that another machine made: they may be ordinary ones", async () => {
    const { source } = await store(THIRD);
    const safetyOf = { restoredSnapshot: FIRST, target: source };
    await store("20261001T020000Z-full", { manifest: { safetyOf }, own: false });
    await store("20261002T020000Z-full", { manifest: { safetyOf }, own: false });

    const closed = await prune();
    const open = await prune({ keys });

    expect(closed.removed).toEqual([]);
    expect(idsOf(open.removed)).toEqual(["20261001T020000Z-full"]);
  });
});

describe("an envelope that somebody else wrote", () => {
  test.each([
    ["dates the snapshot back", { createdAt: "2026-10-01T02:00:00.000Z" }],
    ["calls it a safety snapshot", { isSafety: true }],
    ["names another server", { server: "0".repeat(32) }],
  ])("keeps the snapshot when it %s", async (_, facts) => {
    for (const id of [FIRST, SECOND]) await store(id);
    await forge(FIRST, facts);

    const result = await prune();

    expect(result.removed).toEqual([]);
    expect(await leftAt(near)).toContain(SECOND);
  });

  test("cannot take away what an incremental needs", async () => {
    const increment = "20261102T030000Z-incremental";
    await store(FIRST);
    await store("20261101T030000Z-full", { own: false });
    await store(increment, { manifest: referringTo(FIRST) });
    await forge(increment, { references: [] });

    const result = await prune();

    expect(result.removed).toEqual([]);
  });

  test("is what verify calls damaged, given the key", async () => {
    const { verifySnapshot } = await import("../../src/usecases/verify-snapshot.ts");
    await store(FIRST);
    const verify = () =>
      verifySnapshot({ destinations: [near], prefix: PREFIX, keys, signal: never, report: () => undefined });
    const before = await verify();
    await forge(FIRST, { hasAnomalies: true });

    const after = await verify();

    expect([before.ok, after.ok]).toEqual([true, false]);
    expect(after.snapshots[0]?.problems).toMatchObject([{ volume: "envelope.json" }]);
  });
});

test("an incremental whose envelope is missing keeps everything that is older, whatever full lies between", async () => {
  const increment = "20261102T030000Z-incremental";
  await store(FIRST);
  await store(SECOND);
  await store(increment, { own: false, manifest: referringTo(FIRST) });
  await store(THIRD);
  await rm(pathOf(increment, "envelope.json"));

  const result = await prune();

  expect(result.removed).toEqual([]);
  expect(result.kept[0]).toMatchObject({ id: FIRST, reasons: [`${increment} needs it`] });
});

describe("a closed snapshot counts for nothing", () => {
  test.each(["manifest.json.age", "volume-0001.tar", "envelope.json"])("when its %s is damaged", async (name) => {
    for (const id of [FIRST, SECOND, THIRD]) await store(id);
    const path = pathOf(THIRD, name);
    const bytes = await readFile(path);
    bytes[100] = (bytes[100] ?? 0) ^ 1;
    await writeFile(`${path}.new`, name.startsWith("volume") ? bytes.subarray(0, 512) : bytes);
    await cp(`${path}.new`, path);

    const result = await prune();

    expect(idsOf(result.removed)).toEqual([FIRST]);
    expect(result.kept).toMatchObject([{ id: SECOND, reasons: ["last good", "last"] }, { id: THIRD }]);
    expect(result.warnings).toEqual([expect.stringContaining("counts for nothing")]);
  });
});

describe("a pin of an encrypted snapshot", () => {
  test("needs no key, is listed, and holds at all destinations", async () => {
    for (const id of [FIRST, SECOND]) await store(id, { destinations: [near, far] });
    const where = { destinations: [near], prefix: PREFIX, signal: never };
    const pinned = await pinSnapshot({ ...where, name: FIRST, pinned: true, now: NOW });
    const newest = await pinSnapshot({ ...where, name: "latest", pinned: false, now: NOW });

    const result = await prune({ destinations: [near, far] });
    const { locked } = await openRepository(near, PREFIX).list({ signal: never });

    expect([pinned.id, newest.id]).toEqual([FIRST, SECOND]);
    expect(result.removed).toEqual([]);
    expect(locked).toMatchObject([{ id: FIRST, pinned: true }, { id: SECOND }]);
    await expect(openRepository(near, PREFIX).remove(FIRST, { signal: never })).rejects.toMatchObject({
      code: "pinned",
    });
  });
});

describe("the brake without a key", () => {
  const brake = () => readBrake({ job, prefix: PREFIX, destinations: [near], state, signal: never });

  test("stops prune, without a name, until somebody acknowledges at one destination", async () => {
    await store(FIRST, { destinations: [near, far] });
    await store(SECOND, { destinations: [near, far], manifest: { anomalies: ANOMALIES } });
    const both = { destinations: [near, far] };

    await expect(prune(both)).rejects.toMatchObject({
      code: "brake",
      message: `cannot prune shop: in ${SECOND} tables shrank or vanished (which ones, its key would tell)`,
    });
    const acknowledged = await acknowledgeAnomalies({
      job,
      prefix: PREFIX,
      destinations: [far],
      now: NOW,
      warn: () => undefined,
      signal: never,
    });
    const result = await prune(both);

    expect(acknowledged).toEqual([{ id: SECOND, database: "shop", anomalies: [] }]);
    expect(idsOf(result.removed)).toEqual([FIRST, FIRST]);
  });

  test("compares with the tables that this machine remembers of the last snapshot", async () => {
    await store(FIRST);
    const { tables } = await store(SECOND);

    const { findAnomalies, problem } = await brake();

    expect(problem).toBeUndefined();
    expect(findAnomalies(tables)).toEqual([]);
    expect(findAnomalies([]).map(({ rowsBefore }) => rowsBefore)).toEqual(tables.map(({ rows }) => rows).reverse());
  });

  test("says that it cannot compare when this machine remembers nothing", async () => {
    await store(FIRST, { own: false });

    const { findAnomalies, problem } = await brake();

    expect(problem).toContain("it is encrypted, and no key to open it was given");
    expect(findAnomalies([])).toEqual([]);
  });
});
