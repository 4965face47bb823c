import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { generateKeyPair } from "../../src/archive/age-keys.ts";
import type { Destination } from "../../src/destinations/destination.ts";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { openResilientDestination } from "../../src/destinations/open-resilient-destination.ts";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { openSnapshotReader } from "../../src/snapshot/open-snapshot-reader.ts";
import { openRepository } from "../../src/snapshot/repository.ts";
import { backUp } from "../../src/usecases/back-up.ts";
import { restoreIntoEmpty } from "../../src/usecases/restore-create.ts";
import { restoreRows } from "../../src/usecases/restore-rows.ts";
import { restoreSnapshot } from "../../src/usecases/restore-snapshot.ts";
import { findArchived, type ThawOptions } from "../../src/usecases/thaw-volumes.ts";
import { verifySnapshot } from "../../src/usecases/verify-snapshot.ts";
import { ID, PREFIX, writeSample } from "../snapshot/sample-snapshot.ts";
import { backUpOptions } from "../support/back-up-options.ts";
import { connectionOfUrl } from "../support/connection.ts";
import { type GlacierFake, startGlacierFake } from "../support/glacier-fake.ts";
import { createDatabase, type TestDatabase } from "../support/postgres.ts";

const signal = new AbortController().signal;
const report = () => {};
let fake: GlacierFake;
let folder: string;
let count = 0;

beforeAll(async () => {
  fake = await startGlacierFake();
});
afterAll(() => fake?.close());
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** As jobs open it, with all that stands before the real one. */
const openVault = (prefix = `v${count++}`) =>
  openResilientDestination(
    {
      type: "s3",
      name: "vault",
      bucket: "vault",
      prefix,
      endpoint: fake.endpoint,
      pathStyle: true,
      accessKeyId: "AK",
      secretAccessKey: "SK",
      storageClass: "GLACIER",
      bandwidth: 500_000_000,
    },
    { signal },
  );
const openLocal = () => openLocalDestination({ type: "local", path: join(folder, "local") }, { signal });

const asked = () => fake.requests.filter((request) => request.startsWith("POST ")).length;
/** A single byte may be tried of each volume: servers other than Amazon's let read what is named like an archive. */
const triedVolumes = () => fake.requests.filter((request) => /^GET .*\.tar$/.test(request)).length;

describe("a restore of what lies in an archive", () => {
  const SQL =
    "create table t (i int primary key, v text); insert into t select i, 'v' || i from generate_series(1, 5000) i";
  const count5000 = async (database: TestDatabase) => (await database.query("select count(*) from t"))[0]?.[0];

  async function backUpTo(url: string, ...destinations: Destination[]): Promise<Manifest> {
    const { manifest } = await backUp(backUpOptions(url, { folder, destinations }, { parallel: 1, report }));
    return manifest;
  }

  function restore(url: string, manifest: Manifest, destinations: Destination[], more: Partial<ThawOptions> = {}) {
    return restoreSnapshot({ ...optionsOf(url, manifest, destinations), ...more });
  }

  function optionsOf(url: string, manifest: Manifest, destinations: Destination[]) {
    return {
      reader: openSnapshotReader({ destinations, prefix: PREFIX, manifest, signal }),
      target: connectionOfUrl(url),
      isNamed: false,
      planOnly: false,
      confirm: async () => true,
      allowConversion: false,
      ignoreMissing: false,
      stallTimeoutMs: 60_000,
      signal,
      report,
    };
  }

  test("is refused with names and bytes before anything is read, asked or changed", async () => {
    await using database = await createDatabase(18, SQL);
    await using vault = await openVault();
    const manifest = await backUpTo(database.url, vault);
    await database.query("delete from t");
    const before = [asked(), triedVolumes() + 1];
    let confirmed = false;

    const failure = await restoreSnapshot({
      ...optionsOf(database.url, manifest, [vault]),
      confirm: async () => (confirmed = true),
      takeSafetySnapshot: async () => ({ id: "never", warnings: [], discard: async () => undefined }),
    }).catch((error: unknown) => error);

    expect(failure).toMatchObject({ kind: "refused", code: "archived", exitCode: 9 });
    expect((failure as Error).message).toMatch(/1 archived volume \(\d.* kB\) at vault .*volume-0001\.tar/);
    expect((failure as { hint?: string }).hint).toContain("--thaw");
    expect([asked(), triedVolumes()]).toEqual(before);
    expect(confirmed).toBe(false);
    expect(await count5000(database)).toBe("0");
  });

  test("shows in its plan what must be thawed, and asks for nothing", async () => {
    await using database = await createDatabase(18, SQL);
    await using vault = await openVault();
    const manifest = await backUpTo(database.url, vault);
    const before = asked();

    const options = { ...optionsOf(database.url, manifest, [vault]), planOnly: true };
    const plan = await restoreSnapshot({ ...options, thaw: { request: { days: 2 }, wait: true } });

    const [volume] = manifest.volumes;
    expect(plan.plan?.thaw).toEqual({
      volumes: [{ destination: "vault", name: "volume-0001.tar", size: volume?.size, state: "archived" }],
      bytes: volume?.size,
    });
    expect(asked()).toBe(before);
  });

  test("reads another destination that has everything, whatever its place in the order", async () => {
    await using database = await createDatabase(18, SQL);
    await using vault = await openVault();
    await using local = await openLocal();
    const manifest = await backUpTo(database.url, vault, local);
    await database.query("delete from t");
    const before = [asked(), triedVolumes() + 1];

    await restore(database.url, manifest, [vault, local]);

    expect(await count5000(database)).toBe("5000");
    expect([asked(), triedVolumes()]).toEqual(before);
  });

  test("asks for a thaw and says when to come back, again without asking twice, and then restores", async () => {
    await using database = await createDatabase(18, SQL);
    await using vault = await openVault();
    const manifest = await backUpTo(database.url, vault);
    await database.query("delete from t");
    const before = asked();
    const request = { thaw: { request: { days: 3, tier: "bulk" }, wait: false } } as const;
    const go = (more?: Partial<ThawOptions>) => restore(database.url, manifest, [vault], more);

    const first = await go(request).catch((error: unknown) => error);
    const second = await go(request).catch((error: unknown) => error);
    const bare = await go().catch((error: unknown) => error);
    fake.passHours(12);
    const result = await go();

    expect(first).toMatchObject({ kind: "refused", code: "thawing", hint: expect.stringContaining("in 12 hours") });
    expect(second).toMatchObject({ code: "thawing" });
    expect(bare).toMatchObject({ code: "thawing", hint: expect.stringContaining("--wait") });
    expect(asked() - before).toBe(1);
    expect(result.tables).toEqual([{ schema: "public", name: "t", deleted: 0, inserted: 5000 }]);
    expect(result.warnings).toEqual([]);
  });

  test("waits with growing pauses when it may, and goes on by itself", async () => {
    await using database = await createDatabase(18, SQL);
    await using vault = await openVault();
    const manifest = await backUpTo(database.url, vault);
    await database.query("delete from t");
    const waits: number[] = [];
    const clock = {
      wait: async (delayMs: number) => {
        waits.push(delayMs);
        fake.passHours(1);
      },
    };

    await restore(database.url, manifest, [vault], { thaw: { request: { days: 3 }, wait: true }, clock });

    expect(await count5000(database)).toBe("5000");
    expect(waits).toHaveLength(5);
    expect(waits).toEqual(waits.toSorted((left, right) => left - right));
    expect(waits[0]).toBe(60_000);
    expect(Math.max(...waits)).toBeLessThanOrEqual(15 * 60_000);
  });

  test("of chosen rows thaws before its plan, which counts them, and asks for nothing when it only plans", async () => {
    await using database = await createDatabase(18, SQL);
    await using vault = await openVault();
    const manifest = await backUpTo(database.url, vault);
    await database.query("delete from t where i < 10");
    const options = { ...optionsOf(database.url, manifest, [vault]), tables: ["t"], where: "i < 20" };
    const clock = { wait: async () => fake.passHours(1) };
    const wish = { thaw: { request: { days: 3 }, wait: true }, clock, mode: "insert-missing" as const };
    const before = asked();

    const planned = restoreRows({ ...options, ...wish, planOnly: true });
    await expect(planned).rejects.toMatchObject({ kind: "refused", code: "archived" });
    expect(asked()).toBe(before);
    const done = await restoreRows({ ...options, ...wish });

    expect(done.tables).toMatchObject([{ inserted: 9 }]);
    expect(await count5000(database)).toBe("5000");
  });

  test("ends its waiting at once when it is aborted, and changes nothing", async () => {
    await using database = await createDatabase(18, SQL);
    await using vault = await openVault();
    const manifest = await backUpTo(database.url, vault);
    await database.query("delete from t where i > 10");
    const controller = new AbortController();
    const startedAt = performance.now();

    const failure = await restoreSnapshot({
      ...optionsOf(database.url, manifest, [vault]),
      thaw: { request: { days: 1 }, wait: true },
      report: (event) => {
        if (event.type === "phase" && event.text.startsWith("waiting")) setTimeout(() => controller.abort(), 20);
      },
      signal: controller.signal,
    }).catch((error: unknown) => error);

    expect((failure as Error).name).toBe("AbortError");
    expect(performance.now() - startedAt).toBeLessThan(10_000);
    expect(await count5000(database)).toBe("10");
  });

  test("passes on that a class has no fast thaw", async () => {
    await using database = await createDatabase(18, SQL);
    await using vault = await openVault();
    const manifest = await backUpTo(database.url, vault);
    for (const [key, stored] of fake.objects) {
      if (stored.storageClass === "GLACIER") fake.objects.set(key, { ...stored, storageClass: "DEEP_ARCHIVE" });
    }
    const thaw = { request: { days: 1, tier: "expedited" }, wait: false } as const;

    await expect(restore(database.url, manifest, [vault], { thaw })).rejects.toMatchObject({
      kind: "destination",
      code: "unsupported",
    });
  });

  test("makes an empty database only once everything can be read, and looks at the target before it asks", async () => {
    await using database = await createDatabase(18, SQL);
    await using vault = await openVault();
    const manifest = await backUpTo(database.url, vault);
    await using empty = await createDatabase(18);
    const create = (url: string, more: Partial<ThawOptions>) =>
      restoreIntoEmpty({
        ...optionsOf(url, manifest, [vault]),
        parallel: 2,
        grants: false,
        owners: false,
        ...more,
      });
    const thaw = { request: { days: 1 }, wait: true } as const;
    const clock = { wait: async () => fake.passHours(3) };
    const before = asked();

    await expect(create(empty.url, {})).rejects.toMatchObject({ code: "archived" });
    await expect(create(database.url, { thaw, clock })).rejects.toMatchObject({ code: "not-empty" });
    expect(asked()).toBe(before);
    await create(empty.url, { thaw, clock });

    expect(await count5000(empty)).toBe("5000");
  });
});

describe("the volumes of a snapshot in an archive", () => {
  async function sampleAt(...destinations: Destination[]) {
    const manifest = await writeSample({ destinations, spoolFolder: join(folder, "spool"), volumeBytes: 16 * 1024 });
    const reader = openSnapshotReader({ destinations, prefix: PREFIX, manifest, signal });
    const all = manifest.tables.flatMap(({ segments }) => segments.flatMap(({ chunks }) => chunks));
    return { manifest, reader, all };
  }

  test("are only those that the chosen chunks lie in", async () => {
    await using vault = await openVault();
    const { reader, all } = await sampleAt(vault);
    const [first] = all;

    const one = await reader.readStates(first ? [first] : [], { signal });
    const both = await reader.readStates(all, { signal });

    expect(one.archived).toMatchObject([{ name: "volume-0001.tar", state: "archived" }]);
    expect(both.archived.map(({ name }) => name)).toEqual(["volume-0001.tar", "volume-0002.tar"]);
  });

  test("are asked for where one is on its way already", async () => {
    await using vault = await openVault();
    await using other = await openVault();
    const { reader, all } = await sampleAt(vault, other);
    await other.thaw?.(`${PREFIX}/${ID}/volume-0002.tar`, { days: 1, signal });

    const { archived } = await reader.readStates(all, { signal });

    expect(archived.map(({ destination, state }) => [destination === other, state])).toEqual([
      [false, "archived"],
      [true, "thawing"],
    ]);
  });

  test("come with a warning when what was thawed is archived again within a day", async () => {
    await using vault = await openVault();
    const { reader, all } = await sampleAt(vault);
    for (const name of ["volume-0001.tar", "volume-0002.tar"]) {
      await vault.thaw?.(`${PREFIX}/${ID}/${name}`, { days: 2, signal });
    }
    fake.passHours(5);
    const { readableUntil } = await reader.readStates(all, { signal });
    const hoursBefore = (hours: number) => new Date((readableUntil?.getTime() ?? 0) - hours * 3_600_000);
    const options = { reader, signal, report };

    const early = await findArchived(options, all, hoursBefore(25));
    const late = await findArchived(options, all, hoursBefore(23));

    expect(early).toEqual({ archived: [], warnings: [] });
    expect(late.warnings).toEqual([`thawed volumes can be read only until ${readableUntil?.toISOString()}`]);
  });

  test("are said to be archived, not damaged and not verified, and the rest is verified", async () => {
    await using vault = await openVault();
    const { manifest } = await sampleAt(vault);
    await vault.thaw?.(`${PREFIX}/${ID}/volume-0001.tar`, { days: 1, signal });
    fake.passHours(5);
    const warnings: string[] = [];
    const verify = (sample?: number) =>
      verifySnapshot({
        destinations: [vault],
        prefix: PREFIX,
        ...(sample === undefined ? {} : { sample }),
        signal,
        report: (event) => event.type === "warning" && warnings.push(event.message),
      });

    const result = await verify();

    const { snapshots } = await openRepository(vault, PREFIX).list({ signal });
    const archived = { volumes: ["volume-0002.tar"], bytes: manifest.volumes[1]?.size };
    expect(result).toMatchObject({ ok: false, unread: [], snapshots: [{ ok: true, problems: [], archived }] });
    expect(result.snapshots[0]?.chunks).toBeGreaterThan(0);
    expect(warnings).toEqual([`${ID} at vault: 1 volume archived, not verified`]);
    expect(snapshots[0]?.verifiedAt).toBeUndefined();
    expect((await verify(0.9)).snapshots).toMatchObject([{ ok: true, archived }]);
  });

  test("are said to be archived without the key too", async () => {
    await using vault = await openVault();
    const { recipient } = await generateKeyPair();
    const lock = { recipients: [recipient] };
    await writeSample({ destinations: [vault], spoolFolder: join(folder, "spool"), lock });

    const result = await verifySnapshot({ destinations: [vault], prefix: PREFIX, signal, report });

    const archived = { volumes: ["volume-0001.tar"] };
    expect(result).toMatchObject({ ok: false, snapshots: [{ ok: true, locked: true, problems: [], archived }] });
    // The manifest is not archived: its hash was checked.
    expect(result.snapshots[0]?.bytes).toBeGreaterThan(0);
  });

  test("are damaged all the same when one is missing or has another size", async () => {
    await using vault = await openVault("damaged");
    await sampleAt(vault);
    const second = `damaged/${PREFIX}/${ID}/volume-0002.tar`;
    const stored = fake.objects.get(second);
    if (stored) fake.objects.set(second, { ...stored, bytes: stored.bytes.subarray(1) });
    fake.objects.delete(`damaged/${PREFIX}/${ID}/volume-0001.tar`);

    const { snapshots } = await verifySnapshot({ destinations: [vault], prefix: PREFIX, signal, report });

    expect(snapshots[0]).toMatchObject({ ok: false });
    expect(snapshots[0]?.problems.map(({ volume }) => volume)).toEqual(["volume-0001.tar", "volume-0002.tar"]);
  });
});
