import { readdirSync, rmSync, statSync } from "node:fs";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { generateKeyPair } from "../../src/archive/age-keys.ts";
import { openDestination } from "../../src/destinations/open-destination.ts";
import { findHome } from "../../src/job/home.ts";
import { readJob } from "../../src/job/read-job.ts";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { openSnapshotReader } from "../../src/snapshot/open-snapshot-reader.ts";
import { volumeOf } from "../../src/snapshot/parse-manifest.ts";
import { openRepository } from "../../src/snapshot/repository.ts";
import { createKeyRing } from "../../src/snapshot/snapshot-key.ts";
import type { Report } from "../../src/usecases/progress.ts";
import { pinSnapshot } from "../../src/usecases/pin-snapshot.ts";
import { pruneJob } from "../../src/usecases/prune-job.ts";
import { runJob } from "../../src/usecases/run-job.ts";
import { verifySnapshot } from "../../src/usecases/verify-snapshot.ts";
import { type Content, contentOf, truthOf } from "../support/increments.ts";
import { createDatabase, type TestDatabase } from "../support/postgres.ts";
import { untilAlone } from "../support/until-alone.ts";

const never = new AbortController().signal;
const TABLES = ["a", "b", "c", "d", "e"] as const;

/** Four tables of the same size and one of twice as much, with values that no compression makes smaller. */
const SQL = TABLES.map(
  (name) =>
    `create table ${name} (id int primary key, v text);
     insert into ${name} select i, (select string_agg(md5(random()::text || i || k), '') from generate_series(1, 16) k)
       from generate_series(1, ${name === "e" ? 400 : 200}) i;`,
).join("\n");

interface ShopOptions {
  /** Retention by destination; left out: one that keeps the last two. */
  readonly retentions?: Readonly<Record<string, string>>;
  readonly encryption?: "with its key" | "without its key" | undefined;
}

/** A job of a database at one machine. */
async function openShop(database: TestDatabase, options: ShopOptions = {}) {
  const { retentions = { near: "{ keepLast: 2 }" }, encryption } = options;
  const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  const prefix = `shop/${database.name}`;
  const home = findHome({ homeFlag: join(folder, "home"), env: {} });
  const pair = await generateKeyPair();
  const keys = encryption && createKeyRing({ identities: [pair.identity] });
  const identity = encryption === "with its key" ? `, identity: "file:${join(folder, "key")}"` : "";
  await writeFile(join(folder, "key"), `${pair.identity}\n`, { mode: 0o600 });
  const names = Object.keys(retentions);
  const places = names.map(
    (name) => `  - { type: local, name: ${name}, path: ${name}, retention: ${retentions[name]} }\n`,
  );
  await writeFile(
    join(folder, "shop.yaml"),
    `version: 1\nname: shop\nsource: { url: "${database.url}" }\ndestinations:\n${places.join("")}` +
      (encryption ? `encryption: { recipients: [${pair.recipient}]${identity} }\n` : ""),
  );
  const job = await readJob(join(folder, "shop.yaml"), home, { cwd: folder });
  const near = await openDestination({ type: "local", name: "near", path: join(folder, "near") }, { signal: never });
  const repository = openRepository(near, prefix, { keys });
  const quiet = { job, home, env: {}, node: "test", now: () => new Date(), stallTimeoutMs: 60_000 };
  const truths = new Map<string, Content>();
  const silent: Report = () => undefined;
  return {
    repository,
    /** Makes an incremental, or the first full, and remembers what it must restore. */
    async run({ signal = never, report = silent } = {}) {
      await untilAlone(database);
      const result = await runJob({ ...quiet, kind: "incremental", signal, report });
      const [made] = result.snapshots;
      if (!made) throw new Error("nothing was made");
      truths.set(made.id, await truthOf(database.url));
      return { ...result, made, manifest: (await repository.open(made.id, { signal: never })).manifest };
    },
    prune: () => pruneJob({ ...quiet, dryRun: false, acceptMissing: false, signal: never, report: silent }),
    /** Compares all that is there with the rows of its instant, and verifies its bytes. */
    async expectAllExact(name = "near") {
      const place = await openDestination({ type: "local", name, path: join(folder, name) }, { signal: never });
      const there = openRepository(place, prefix, { keys });
      for (const id of await there.ids({ signal: never })) {
        const opened = await there.open(id, { signal: never });
        await using reader = openSnapshotReader({ destinations: [place], prefix, ...opened, keys, signal: never });
        const truth = truths.get(id);
        expect(await contentOf(reader), id).toEqual(truth);
        const verified = await verifySnapshot({
          destinations: [place],
          prefix,
          id,
          keys,
          signal: never,
          report: silent,
        });
        expect(verified.ok, id).toBe(true);
      }
    },
    ids: () => repository.ids({ signal: never }),
    pin: (name: string) =>
      pinSnapshot({ destinations: [near], prefix, name, pinned: true, now: new Date(), signal: never }),
    /** Loses what this machine remembers. */
    async forget() {
      for (const name of readdirSync(home.state)) if (name.startsWith("state.sqlite")) await rm(join(home.state, name));
    },
    /** Bytes of all files of the snapshots at a destination. */
    bytes: (name = "near") => bytesBelow(join(folder, name)),
    pathOf: (id: string, name: string) => join(folder, "near", prefix, id, name),
    folders: () => readdirSync(join(folder, "near", prefix)).sort(),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}

function bytesBelow(folder: string): number {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
}

/** The rows stay, and nearly all of their bytes go. */
async function empty(database: TestDatabase, ...tables: readonly string[]): Promise<void> {
  for (const table of tables) await database.query(`update ${table} set v = ''`);
}

/** Empties most tables between runs, and then does next to nothing for some more; tells what became of each run. */
async function wither(database: TestDatabase, shop: Awaited<ReturnType<typeof openShop>>) {
  const full = await shop.run();
  const rounds: { readonly manifest: Manifest; readonly bytes: number; readonly removed: readonly string[] }[] = [];
  for (const tables of [["a", "b"], ["c", "d"], [], []]) {
    await empty(database, ...tables);
    await database.query("update a set v = v || 'x' where id = 1");
    const { manifest, removed } = await shop.run();
    await shop.expectAllExact();
    rounds.push({ manifest, bytes: shop.bytes(), removed: removed.map(({ id }) => id) });
  }
  return { full, rounds };
}

const referencesOf = ({ references = [] }: Manifest) => references.map(({ id }) => id);

describe("a series of incrementals", () => {
  test.each([
    { major: 15 as const, encryption: undefined, how: "plain" },
    { major: 18 as const, encryption: "with its key" as const, how: "encrypted, with the key at hand" },
  ])(
    "gives the room of a full back that is mostly dead, and every snapshot stays exact (PostgreSQL $major, $how)",
    { timeout: 120_000 },
    async ({ major, encryption }) => {
      await using database = await createDatabase(major, SQL);
      await using shop = await openShop(database, { encryption });

      const { full, rounds } = await wither(database, shop);

      const size = full.manifest.volumes[0]?.size ?? 0;
      const carrying = rounds.filter(({ manifest }) => manifest.carriedOver);
      expect(carrying[0]?.manifest.carriedOver?.from).toContain(full.made.id);
      // Of the tables only the last one, and little else.
      expect(carrying[0]?.manifest.carriedOver?.bytes).toBeLessThan(0.4 * size);
      expect(carrying[0]?.manifest.carriedOver?.bytes).toBeGreaterThan(0.25 * size);
      for (const { manifest } of carrying) expect(manifest.kind).toBe("incremental");
      expect(rounds.some(({ removed }) => removed.includes(full.made.id))).toBe(true);
      expect(rounds[1]?.bytes).toBeGreaterThan(size);
      expect(rounds.at(-1)?.bytes).toBeLessThan(0.6 * size);
    },
  );

  test("keeps all on a machine with only the public key, which cannot read it", { timeout: 120_000 }, async () => {
    await using database = await createDatabase(18, SQL);
    await using shop = await openShop(database, { encryption: "without its key" });

    const { full, rounds } = await wither(database, shop);

    for (const { manifest } of rounds) {
      expect(manifest.kind).toBe("incremental");
      expect(manifest.carriedOver).toBeUndefined();
      expect(referencesOf(manifest)).toContain(full.made.id);
    }
    expect(await shop.ids()).toContain(full.made.id);
  });

  test("keeps all while another destination wants it for itself", { timeout: 120_000 }, async () => {
    await using database = await createDatabase(18, SQL);
    await using shop = await openShop(database, { retentions: { near: "{ keepLast: 2 }", far: "{ keepLast: 50 }" } });

    const { full, rounds } = await wither(database, shop);

    for (const { manifest } of rounds) {
      expect(manifest.carriedOver).toBeUndefined();
      expect(referencesOf(manifest)).toContain(full.made.id);
    }
  });
});

/** A shop whose next incremental carries over what is left of the full. */
async function openWithered(database: TestDatabase, places: readonly string[] = ["near"]) {
  const retentions = Object.fromEntries(places.map((name) => [name, "{ keepLast: 1 }"]));
  const shop = await openShop(database, { retentions });
  const full = await shop.run();
  await empty(database, "a", "b", "c");
  await shop.run();
  await empty(database, "d");
  return Object.assign(shop, { full });
}

describe("an incremental that carries over", () => {
  test("says how many bytes, and leaves nothing behind when it is stopped in the middle", {
    timeout: 60_000,
  }, async () => {
    await using database = await createDatabase(18, SQL);
    await using shop = await openWithered(database);
    const before = shop.folders();
    const stopped = new AbortController();
    let begun = 0;
    const stopping: Report = (event) => {
      if (event.type === "phase" && event.text.startsWith("storing again")) begun += 1;
      // What was needed of the full is stored by then.
      if (begun === 2) stopped.abort();
    };

    await expect(shop.run({ signal: stopped.signal, report: stopping })).rejects.toThrow(/abort/i);

    expect(stopped.signal.aborted).toBe(true);
    expect(shop.folders()).toEqual(before);
    await shop.expectAllExact();
    const { made, manifest } = await shop.run();
    expect(made.carriedOver).toEqual(manifest.carriedOver);
    expect(made.storedBytes).toBeGreaterThanOrEqual(made.carriedOver?.bytes ?? Infinity);
    await shop.expectAllExact();
  });

  test("is exact at every destination though another machine removes what it reads at one of them", {
    timeout: 60_000,
  }, async () => {
    await using database = await createDatabase(18, SQL);
    await using shop = await openWithered(database, ["near", "far"]);
    const earlier = await shop.ids();
    let left = earlier;
    const removing: Report = (event) => {
      if (event.type !== "phase" || !event.text.startsWith("storing again")) return;
      for (const id of left) rmSync(dirname(shop.pathOf(id, "manifest.json")), { recursive: true });
      left = [];
    };

    const { made, removed } = await shop.run({ report: removing });

    expect(made.carriedOver?.from).toEqual(earlier);
    expect(made.destinations.map(({ status }) => status)).toEqual(["stored", "stored"]);
    expect(removed.map(({ id, destination }) => `${destination}: ${id}`)).toEqual(earlier.map((id) => `far: ${id}`));
    await shop.expectAllExact("near");
    await shop.expectAllExact("far");
  });

  test("leaves alone what a snapshot needs that was pinned since the last prune", { timeout: 60_000 }, async () => {
    await using database = await createDatabase(18, SQL);
    await using shop = await openWithered(database);
    const newest = (await shop.ids()).at(-1) ?? "";
    const pinned = await shop.pin(newest);

    const { manifest } = await shop.run();

    expect(pinned.destinations).toEqual(["near"]);
    expect(manifest.carriedOver).toBeUndefined();
    expect(referencesOf(manifest)).toContain(shop.full.made.id);
  });

  test("becomes a full when a chunk turns out to be damaged", { timeout: 60_000 }, async () => {
    await using database = await createDatabase(18, SQL);
    await using shop = await openWithered(database);
    const { manifest } = shop.full;
    const chunk = manifest.tables.find(({ name }) => name === "e")?.segments[0]?.chunks[0];
    if (!chunk) throw new Error("the table has no chunk");
    await using file = await open(shop.pathOf(manifest.id, volumeOf(manifest, chunk)?.name ?? ""), "r+");
    await file.write(Buffer.from("damage"), 0, 6, chunk.offset + 100);

    const { made } = await shop.run();

    expect(made.kind).toBe("full");
    expect(made.reason).toMatch(/is damaged/);
  });

  test("learns from rowkeep prune as well, and carries nothing over while nobody pruned", {
    timeout: 60_000,
  }, async () => {
    await using database = await createDatabase(18, SQL);
    await using shop = await openWithered(database);
    await shop.forget();

    const first = await shop.run();
    await shop.forget();
    await shop.prune();
    const second = await shop.run();

    expect(first.manifest.carriedOver).toBeUndefined();
    expect(second.manifest.carriedOver?.from).toContain(shop.full.made.id);
  });
});
