import { mkdtemp, readdir, readFile, rm, stat, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { generateKeyPair, type Lock } from "../../src/archive/age-keys.ts";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { findHome, type Home } from "../../src/job/home.ts";
import { takeJobLock } from "../../src/job/job-lock.ts";
import type { Job } from "../../src/job/read-job.ts";
import { parseEnvelope, renderEnvelope } from "../../src/snapshot/envelope-text.ts";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { openRepository } from "../../src/snapshot/repository.ts";
import { createKeyRing } from "../../src/snapshot/snapshot-key.ts";
import { type SyncJobOptions, type SyncResult, syncJob } from "../../src/usecases/sync-job.ts";
import { verifySnapshot } from "../../src/usecases/verify-snapshot.ts";
import { ID, never, PREFIX, type SampleOptions, writeSample } from "../snapshot/sample-snapshot.ts";

const OTHER_ID = "20261122T020000Z-full";

class Places implements AsyncDisposable {
  readonly path: string;
  readonly home: Home;
  readonly job: Job;

  constructor(path: string, names: readonly string[]) {
    this.path = path;
    this.home = findHome({ homeFlag: join(path, "home"), env: {} });
    this.job = {
      version: 1,
      name: "shop",
      path: join(path, "shop.yaml"),
      folder: path,
      // Nobody listens there: a sync has no business with the database.
      source: { url: "postgres://me@127.0.0.1:1/shop" },
      destinations: names.map((name) => ({ type: "local", name, path: name })),
    };
  }

  open(name: string) {
    return openLocalDestination({ type: "local", path: join(this.path, name), name }, { signal: never });
  }

  objects(name: string, id = ID): string {
    return join(this.path, name, PREFIX, id);
  }

  async write(names: readonly string[], options: Partial<SampleOptions> = {}): Promise<Manifest> {
    const destinations = await Promise.all(names.map((name) => this.open(name)));
    return writeSample({ destinations, spoolFolder: join(this.path, "spool"), volumeBytes: 16 * 1024, ...options });
  }

  sync(options: Partial<SyncJobOptions> = {}): Promise<SyncResult> {
    const { job, home } = this;
    const now = () => new Date();
    return syncJob({ job, home, env: {}, now, dryRun: false, signal: never, report: () => {}, ...options });
  }

  /** Ids of the snapshots that are listed there and verify. */
  async goodAt(name: string, keys?: ReturnType<typeof createKeyRing>): Promise<string[]> {
    const destination = await this.open(name);
    const list = await openRepository(destination, PREFIX, { keys }).list({ signal: never });
    expect(list.damaged).toEqual([]);
    const good: string[] = [];
    for (const { id } of list.snapshots) {
      const { ok } = await verifySnapshot({
        destinations: [destination],
        prefix: PREFIX,
        keys,
        id,
        signal: never,
        report: () => {},
      });
      if (ok) good.push(id);
    }
    return good;
  }

  async flip(name: string, object: string, id = ID): Promise<void> {
    const path = join(this.objects(name, id), object);
    const bytes = await readFile(path);
    bytes[700] = (bytes[700] ?? 0) ^ 4;
    await writeFile(path, bytes);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
  }
}

async function createPlaces(...names: string[]): Promise<Places> {
  return new Places(await mkdtemp(join(tmpdir(), "rowkeep-sync-")), names);
}

async function filesBelow(path: string): Promise<string[]> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

test("copies what destinations miss, each what it misses, and then nothing any more", async () => {
  await using places = await createPlaces("one", "two", "three");
  await places.write(["one"]);
  await places.write(["one", "two"], { id: OTHER_ID });

  const result = await places.sync();
  const again = await places.sync();

  expect(result).toMatchObject({ warnings: [], unknown: [] });
  expect(result.snapshots.map(({ id, destination, status }) => `${id} ${destination} ${status}`).sort()).toEqual([
    `${ID} three copied`,
    `${ID} two copied`,
    `${OTHER_ID} three copied`,
  ]);
  expect(result.snapshots.find(({ id }) => id === ID)).toMatchObject({ database: "shop", volumes: 2, from: ["one"] });
  for (const name of ["one", "two", "three"]) expect(await places.goodAt(name)).toEqual([ID, OTHER_ID]);
  expect(again.snapshots).toEqual([]);
  expect(again.destinations.map(({ status }) => status)).toEqual(["complete", "complete", "complete"]);
  expect(await filesBelow(join(places.home.state, "spool"))).toEqual([]);
});

test("copies an encrypted snapshot without its key", async () => {
  await using places = await createPlaces("one", "two");
  const pair = await generateKeyPair();
  await places.write(["one"], { lock: { recipients: [pair.recipient] } });

  const result = await places.sync();

  expect(result.snapshots).toMatchObject([{ id: ID, destination: "two", status: "copied" }]);
  expect(await places.goodAt("two", createKeyRing({ identities: [pair.identity] }))).toEqual([ID]);
});

const INCREMENT = "20261122T030000Z-incremental";

/** A full and what looks like an incremental on it. */
async function writeIncrement(places: Places, names: readonly string[], lock?: Lock): Promise<void> {
  const full = await places.write(names, { lock });
  const { volumes } = full;
  const encryption = lock && ({ format: "age" } as const);
  const references = [{ id: ID, codec: "zstd" as const, ...(encryption ? { encryption } : {}), volumes }];
  const manifest = { kind: "incremental", version: 2, references, createdAt: "2026-11-22T03:00:00.000Z" } as const;
  await places.write(names, { id: INCREMENT, lock, manifest });
}

const fatesOf = ({ snapshots }: SyncResult) => snapshots.map(({ id, status }) => `${id} ${status}`);

test.each([false, true])("copies an incremental behind what it refers to (encrypted: %s)", async (isEncrypted) => {
  await using places = await createPlaces("one", "two");
  const lock = { recipients: [(await generateKeyPair()).recipient] };
  await writeIncrement(places, ["one"], isEncrypted ? lock : undefined);

  const result = await places.sync();

  expect(result.warnings).toEqual([]);
  expect(fatesOf(result)).toEqual([`${ID} copied`, `${INCREMENT} copied`]);
});

test.each([false, true])(
  "leaves an incremental out where what it refers to is not whole (encrypted: %s)",
  async (is) => {
    await using places = await createPlaces("one", "two");
    const lock = { recipients: [(await generateKeyPair()).recipient] };
    await writeIncrement(places, ["one"], is ? lock : undefined);
    // Nobody has this volume right any more.
    await places.flip("one", "volume-0002.tar");

    const result = await places.sync();

    expect(fatesOf(result)).toEqual([`${ID} failed`, `${INCREMENT} failed`]);
    expect(result.snapshots[1]?.error).toMatchObject({ code: "missing-reference" });
    expect(result.warnings.at(-1)).toContain(
      `cannot copy ${INCREMENT} to two: it needs ${ID}, which two does not have`,
    );
    expect(await filesBelow(places.objects("two", INCREMENT))).toEqual([]);
  },
);

test("leaves an incremental out where another snapshot has the name of what it refers to", async () => {
  await using places = await createPlaces("one", "two");
  await writeIncrement(places, ["one"]);
  await places.write(["two"], { compression: { codec: "gzip", level: 6 } });

  const result = await places.sync();

  expect(result.warnings).toContainEqual(expect.stringContaining(`two has another snapshot with this id`));
  expect(await filesBelow(places.objects("two", INCREMENT))).toEqual([]);
});

test("leaves an encrypted incremental out when its envelope does not tell what it refers to", async () => {
  await using places = await createPlaces("one", "two");
  await writeIncrement(places, ["one"], { recipients: [(await generateKeyPair()).recipient] });
  const path = join(places.objects("one", INCREMENT), "envelope.json");
  const { sha256: _, retention: __, ...envelope } = parseEnvelope(await readFile(path), path);
  await rm(path);
  await writeFile(path, renderEnvelope(envelope));

  const result = await places.sync();

  expect(fatesOf(result)).toEqual([`${ID} copied`, `${INCREMENT} failed`]);
  expect(result.warnings).toEqual([expect.stringContaining("nobody can tell which earlier snapshots it needs")]);
  expect(await filesBelow(places.objects("two", INCREMENT))).toEqual([]);
});

test.each<[string, (objects: string) => Promise<void>]>([
  ["a volume", (objects) => rm(join(objects, "volume-0002.tar"))],
  ["the end of a volume", (objects) => truncate(join(objects, "volume-0001.tar"), 1000)],
  ["the manifest", (objects) => rm(join(objects, "manifest.json"))],
  ["the end of the manifest", (objects) => truncate(join(objects, "manifest.json"), 500)],
])("gives a destination back %s that it lost", async (_, harm) => {
  await using places = await createPlaces("one", "two");
  await places.write(["one"]);
  await places.write(["two"]);
  await harm(places.objects("one"));

  const result = await places.sync();

  expect(result.snapshots).toMatchObject([{ id: ID, destination: "one", status: "copied", from: expect.anything() }]);
  expect(await places.goodAt("one")).toEqual([ID]);
  expect(await places.goodAt("two")).toEqual([ID]);
});

test("sends anew what a dead run left in the right size with wrong bytes, and nothing else", async () => {
  await using places = await createPlaces("one", "two");
  await places.write(["one"]);
  await places.write(["two"]);
  await rm(join(places.objects("two"), "manifest.json"));
  await places.flip("two", "volume-0002.tar");

  const result = await places.sync();

  expect(result.snapshots).toMatchObject([{ destination: "two", status: "copied", volumes: 1 }]);
  expect(await places.goodAt("two")).toEqual([ID]);
});

test("never spreads a damaged volume: another source is taken, or the snapshot is not copied", async () => {
  await using places = await createPlaces("bad", "good", "target");
  await places.write(["bad"]);
  await places.write(["bad", "good"], { id: OTHER_ID });
  for (const id of [ID, OTHER_ID]) await places.flip("bad", "volume-0002.tar", id);

  const result = await places.sync();

  const found = new Map(result.snapshots.map((one) => [`${one.id} ${one.destination}`, one]));
  expect(found.get(`${ID} target`)).toMatchObject({
    status: "failed",
    error: { code: "no-good-source", kind: "archive" },
  });
  expect(found.get(`${OTHER_ID} target`)).toMatchObject({ status: "copied", from: ["bad", "good"] });
  expect(await places.goodAt("target")).toEqual([OTHER_ID]);
  expect(result.warnings).toContainEqual(expect.stringMatching(/bad\/.*volume-0002\.tar: it is damaged/));
  expect(result.destinations.map(({ status }) => status)).toEqual(["complete", "incomplete", "incomplete"]);
});

test("never spreads a damaged manifest, nor takes it for a missing one when nobody has a good one", async () => {
  await using places = await createPlaces("bad", "target");
  await places.write(["bad"]);
  await places.flip("bad", "manifest.json");

  const result = await places.sync();

  expect(result.unknown).toMatchObject([{ id: ID, error: { code: "no-good-source", kind: "archive" } }]);
  expect(await filesBelow(join(places.path, "target"))).toEqual([]);
});

test("never replaces another good snapshot that bears the same id", async () => {
  await using places = await createPlaces("one", "two");
  await places.write(["one"]);
  await places.write(["two"], { compression: { codec: "none", level: 0 } });
  const before = await readFile(join(places.objects("two"), "manifest.json"));

  const result = await places.sync();

  expect(result.snapshots).toMatchObject([{ destination: "two", status: "failed", error: { code: "other-snapshot" } }]);
  expect(await readFile(join(places.objects("two"), "manifest.json"))).toEqual(before);
  expect(await places.goodAt("two")).toEqual([ID]);
});

test("carries on what is known of the content, not that another copy was verified", async () => {
  await using places = await createPlaces("one", "two");
  await places.write(["one"]);
  const instant = "2026-11-23T00:00:00.000Z";
  const marks = { verifiedAt: instant, undoneAt: instant };
  await openRepository(await places.open("one"), PREFIX).mark(ID, marks, { signal: never });

  await places.sync();

  const { snapshots } = await openRepository(await places.open("two"), PREFIX).list({ signal: never });
  expect(snapshots[0]?.undoneAt).toBe(instant);
  expect(snapshots[0]?.verifiedAt).toBeUndefined();
});

test("tells with dryRun what is missing where, and changes nothing", async () => {
  await using places = await createPlaces("one", "two");
  await places.write(["one"]);

  const result = await places.sync({ dryRun: true });

  expect(result.snapshots).toMatchObject([
    { id: ID, destination: "two", status: "planned", volumes: 2, from: ["one"] },
  ]);
  expect(await filesBelow(join(places.path, "two"))).toEqual([]);
});

test("copies only from the source that was named", async () => {
  await using places = await createPlaces("one", "two", "three");
  await places.write(["one"]);
  await places.write(["two"], { id: OTHER_ID });

  const result = await places.sync({ from: "two" });

  expect(result.snapshots.map(({ id }) => id)).toEqual([OTHER_ID, OTHER_ID]);
  expect(await places.goodAt("three")).toEqual([OTHER_ID]);
  await expect(places.sync({ from: "four" })).rejects.toMatchObject({ kind: "usage", code: "unknown-destination" });
});

test("completes the others when one cannot be used, says why, and fails when none can", async () => {
  await using places = await createPlaces("one", "two", "dead");
  await places.write(["one"]);
  await writeFile(join(places.path, "dead"), "");

  const result = await places.sync();

  expect(result.destinations).toMatchObject([
    { name: "one", status: "complete" },
    { name: "two", status: "complete" },
    { name: "dead", status: "failed", error: { kind: "destination" } },
  ]);
  expect(await places.goodAt("two")).toEqual([ID]);
  await expect(places.sync({ from: "dead" })).rejects.toMatchObject({ kind: "destination" });
  for (const name of ["one", "two"]) await rm(join(places.path, name), { recursive: true });
  for (const name of ["one", "two"]) await writeFile(join(places.path, name), "");
  await expect(places.sync()).rejects.toMatchObject({ kind: "destination" });
});

test("does not work beside a run of the same job", async () => {
  await using places = await createPlaces("one", "two");
  using _lock = await takeJobLock(places.home, "shop", { command: "sync", now: new Date() });

  await expect(places.sync()).rejects.toMatchObject({ kind: "locked" });
});

/** Puts as many other bytes in the place of an object: no listing shows it. */
async function spoil(places: Places, name: string, object: string): Promise<void> {
  const path = join(places.objects(name), object);
  const { length } = await readFile(path);
  await rm(path);
  await writeFile(path, Buffer.alloc(length, 0x20));
}

test.each([
  [false, "manifest.json"],
  [true, "manifest.json.age"],
  [true, "key.age"],
  [true, "envelope.json"],
] as const)(
  "repairs what looks the same in the listing and is damaged (encrypted: %s, %s)",
  async (isEncrypted, object) => {
    await using places = await createPlaces("one", "two", "three");
    const pair = await generateKeyPair();
    await places.write(["one", "two", "three"], isEncrypted ? { lock: { recipients: [pair.recipient] } } : {});
    const keys = createKeyRing({ identities: [pair.identity] });
    await spoil(places, "one", object);

    const planned = await places.sync({ dryRun: true });
    const result = await places.sync();
    const again = await places.sync();

    expect(planned.snapshots).toMatchObject([{ id: ID, destination: "one", status: "planned", volumes: 0 }]);
    expect(result.snapshots).toMatchObject([{ id: ID, destination: "one", status: "copied", volumes: 0 }]);
    expect(result.warnings).toEqual([expect.stringContaining(`one/${PREFIX}/${ID}/${object}`)]);
    expect(again).toMatchObject({ snapshots: [], warnings: [] });
    for (const name of ["one", "two", "three"]) expect(await places.goodAt(name, keys)).toEqual([ID]);
  },
);

/** Rot: neither size nor time tells of it. */
async function rot(places: Places, name: string): Promise<void> {
  const path = join(places.objects(name), "manifest.json");
  const { atime, mtime } = await stat(path);
  await spoil(places, name, "manifest.json");
  await utimes(path, atime, mtime);
}

test("reads no manifest again that is listed as it was when it was found good", async () => {
  await using places = await createPlaces("one", "two");
  await places.write(["one", "two"]);
  await places.sync();
  await rot(places, "one");

  const again = await places.sync();
  const planned = await places.sync({ dryRun: true, readsAll: true });
  const later = await places.sync({ now: () => new Date(Date.now() + 31 * 24 * 3_600_000) });

  expect(again).toMatchObject({ snapshots: [], warnings: [] });
  expect(planned.snapshots).toMatchObject([{ id: ID, destination: "one", status: "planned" }]);
  expect(later.snapshots).toMatchObject([{ id: ID, destination: "one", status: "copied" }]);
  expect(await places.goodAt("one")).toEqual([ID]);
});

test("reads the manifests that were read before where one of them was changed, or is at one more destination", async () => {
  await using places = await createPlaces("one", "two");
  await places.write(["one", "two"]);
  await places.sync();
  await spoil(places, "one", "manifest.json");
  const changed = await places.sync();
  const { job } = places;
  const three = { type: "local", name: "three", path: "three" } as const;

  const added = await places.sync({ job: { ...job, destinations: [...job.destinations, three] } });

  expect(fatesOf(changed)).toEqual([`${ID} copied`]);
  expect(added.snapshots).toMatchObject([{ id: ID, destination: "three", status: "copied" }]);
});

test("names a snapshot whose manifest is damaged everywhere, though the listings are the same", async () => {
  await using places = await createPlaces("one", "two");
  await places.write(["one", "two"]);
  for (const name of ["one", "two"]) await spoil(places, name, "manifest.json");

  const result = await places.sync();

  expect(result.unknown).toMatchObject([{ id: ID, error: { kind: "archive" } }]);
  expect(result.snapshots).toEqual([]);
});

test("replaces neither of two snapshots with one id that look the same in the listings", async () => {
  await using places = await createPlaces("one", "two");
  await places.write(["one"]);
  await places.write(["two"], { manifest: { finishedAt: "2026-11-21T02:00:19.000Z" } });

  const result = await places.sync();

  expect(result.snapshots).toMatchObject([
    { id: ID, destination: "two", status: "failed", error: { code: "other-snapshot" } },
  ]);
});
