import { spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { mkdtemp, mkdir, readdir, rename, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { generateKeyPair } from "../../src/archive/age-keys.ts";
import { findHome } from "../../src/job/home.ts";
import { takeJobLock } from "../../src/job/job-lock.ts";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { openStateStore } from "../../src/job/state-store.ts";
import { parseSnapshotId } from "../../src/snapshot/snapshot-id.ts";
import { never, writeSample } from "../snapshot/sample-snapshot.ts";
import { runCli, runCliHere } from "../support/cli.ts";
import { createDatabase, type TestDatabase } from "../support/postgres.ts";

let folder: string;
let home: string;
let file: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  home = join(folder, "home");
  file = join(folder, "shop.yaml");
});

afterEach(() => rm(folder, { recursive: true, force: true }));

const cli = (...args: string[]) => runCliHere(args, { home, cwd: folder });

async function writeJob(
  database: Pick<TestDatabase, "url">,
  more: string,
  destinations = "[{ type: local, path: ./backups }]",
): Promise<void> {
  await writeFile(
    file,
    `version: 1\nname: shop\nsource: { url: "${database.url}" }\ndestinations: ${destinations}\n${more}\n`,
  );
}

interface Listed {
  readonly id: string;
  readonly pinned: boolean;
  readonly destinations: readonly string[];
}

async function listed(): Promise<readonly Listed[]> {
  const { last } = await cli("list", file, "--json");
  return last()["snapshots"] as Listed[];
}

const idsOf = (snapshots: unknown) => (snapshots as { id: string }[]).map(({ id }) => id);

async function makeSnapshots(count: number): Promise<readonly string[]> {
  for (let made = 0; made < count; made++) expect((await cli("run", file)).exitCode).toBe(0);
  return idsOf(await listed());
}

async function filesBelow(path: string): Promise<readonly string[]> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => entry.name);
}

const oneTable = (rows: number) =>
  createDatabase(18, `create table t (i int); insert into t select generate_series(1, ${rows})`);

describe("a run with a retention", () => {
  test("removes what no rule keeps once the new snapshot is complete, and says so", async () => {
    await using database = await oneTable(10);
    await writeJob(database, "retention: { keepLast: 2 }");
    const [first, second] = await makeSnapshots(2);

    const run = await cli("run", file, "--json");

    expect(run.exitCode).toBe(0);
    expect(idsOf(run.last()["removed"])).toEqual([first]);
    const left = await listed();
    expect(idsOf(left)).toEqual([second, ...idsOf(run.last()["snapshots"])]);
    expect((await cli("verify", file, "--all")).exitCode).toBe(0);
  });

  test("removes nothing when it fails", async () => {
    await using database = await oneTable(10);
    await writeJob(database, "");
    const before = await makeSnapshots(2);
    await writeFile(
      file,
      `version: 1\nname: shop\nsource: { url: "${database.urlFor("postgres", "wrong")}" }\ndestinations: [{ type: local, path: ./backups }]\nretention: { keepLast: 1 }\n`,
    );

    const run = await cli("run", file);

    expect(run.exitCode).toBe(5);
    expect(idsOf(await listed())).toEqual(before);
  });

  test("replaces the one snapshot of naming: overwrite, and only by a complete one", async () => {
    await using database = await oneTable(10);
    await writeJob(database, "naming: overwrite");
    const [first] = await makeSnapshots(1);
    await cli("verify", file);
    const second = await makeSnapshots(1);

    expect(second).toHaveLength(1);
    expect(second[0]).not.toBe(first);
    await database.query("drop role if exists blind; create role blind login password 'pw'");
    await writeFile(
      file,
      `version: 1\nname: shop\nsource: { url: "${database.urlFor("blind", "pw")}" }\ndestinations: [{ type: local, path: ./backups }]\nnaming: overwrite\n`,
    );
    expect((await cli("run", file)).exitCode).toBe(5);
    expect(idsOf(await listed())).toEqual(second);
  });

  test("lets each destination have a retention of its own, and leaves alone the one that missed the snapshot", async () => {
    await using database = await oneTable(10);
    const near = "{ type: local, path: near, name: near, retention: { keepLast: 1 } }";
    await writeJob(database, "", `[${near}, { type: local, path: far, name: far }]`);
    await makeSnapshots(2);

    const both = await listed();
    expect(both.map(({ destinations }) => destinations)).toEqual([["far"], ["near", "far"]]);
    await rename(join(folder, "near"), join(folder, "near-away"));
    await writeFile(join(folder, "near"), "");
    const missed = await cli("run", file, "--json");
    await rm(join(folder, "near"));
    await rename(join(folder, "near-away"), join(folder, "near"));

    expect(missed.exitCode).toBe(3);
    expect(missed.last()["removed"]).toEqual([]);
    expect((await listed()).map(({ destinations }) => destinations)).toEqual([["far"], ["near", "far"], ["far"]]);
  });
});

describe("rowkeep prune", () => {
  const [first, second, third] = ["20261101T020000Z-full", "20261102T020000Z-full", "20261103T020000Z-full"] as const;
  const store = () => join(folder, "backups", "shop", "shop");

  /** Stores three snapshots as runs do, without a database, and a job with this retention. */
  async function storeThree(retention: string): Promise<void> {
    await writeJob({ url: "postgres://nobody@127.0.0.1:1/shop" }, `retention: ${retention}`);
    await using destination = await openLocalDestination(
      { type: "local", path: join(folder, "backups") },
      { signal: never },
    );
    using state = await openStateStore(findHome({ homeFlag: home, env: {} }), () => undefined);
    for (const id of [first, second, third]) {
      const createdAt = parseSnapshotId(id)?.takenAt.toISOString() ?? "";
      const spoolFolder = join(folder, "spool");
      await writeSample({ destinations: [destination], spoolFolder, id, manifest: { createdAt } });
      state.addStored("shop/shop", "local:./backups", id);
    }
  }

  test("tells with --dry-run what it would do and why, then does it, and touches nothing that is not rowkeep's", async () => {
    await storeThree("{ keepLast: 2 }");
    const copy = join(store(), `${first}-copy`);
    await mkdir(copy);
    await writeFile(join(copy, "manifest.json"), "{}");
    const folders = [join(store(), first), store(), join(folder, "backups")];
    for (const path of folders) await writeFile(join(path, "volume-notes.tar"), "mine");

    const plan = await cli("prune", file, "--dry-run", "--json");
    const listedAfterPlan = await listed();
    const prune = await cli("prune", file, "--json");

    expect([plan.exitCode, prune.exitCode]).toEqual([0, 0]);
    expect(listedAfterPlan).toHaveLength(3);
    for (const result of [plan, prune]) {
      expect(result.last()["removed"]).toMatchObject([{ id: first, reason: "no rule keeps it" }]);
      expect(result.last()["kept"]).toMatchObject([
        { id: second, reasons: ["last"] },
        { id: third, reasons: ["last good", "last"] },
      ]);
    }
    expect(idsOf(await listed())).toEqual([second, third]);
    for (const path of folders) expect(existsSync(join(path, "volume-notes.tar"))).toBe(true);
    expect(await filesBelow(join(store(), first))).toEqual(["volume-notes.tar"]);
    expect(await filesBelow(copy)).toEqual(["manifest.json"]);
  });

  test("keeps a pinned snapshot, which list shows, until its pin is taken away", async () => {
    await storeThree("{ keepLast: 1 }");

    const pin = await cli("pin", file, first, "--json");
    await cli("prune", file);
    const pinned = await listed();
    const human = await cli("list", file);
    await cli("unpin", file, first);
    await cli("prune", file);

    expect(pin.last()).toMatchObject({ id: first, pinned: true, destinations: ["local:./backups"] });
    expect(pinned).toMatchObject([
      { id: first, pinned: true },
      { id: third, pinned: false },
    ]);
    expect(human.stdout).toContain("pinned");
    expect(idsOf(await listed())).toEqual([third]);
    expect(existsSync(join(store(), first))).toBe(false);
  });

  test("refuses a job without a retention, an empty one, and a job that is running", async () => {
    const database = { url: "postgres://nobody@127.0.0.1:1/shop" };
    await writeJob(database, "");
    const none = await cli("prune", file, "--json");
    await writeJob(database, "retention: { keepLast: 0, keepWithin: 0d }");
    const empty = await cli("prune", file, "--json");
    await writeJob(database, "retention: { keepLast: 1 }");
    using _lock = await takeJobLock(findHome({ homeFlag: home, env: {} }), "shop", {
      command: "sync",
      now: new Date(),
    });
    const locked = await cli("prune", file, "--json");

    expect([none.exitCode, none.last()["code"]]).toEqual([2, "no-retention"]);
    expect([empty.exitCode, empty.last()["code"]]).toEqual([2, "invalid-job"]);
    expect([locked.exitCode, locked.last()["code"]]).toEqual([8, "locked"]);
  });

  test("refuses a list that misses what a rule would keep, until somebody says that this is right", async () => {
    await storeThree("{ keepLast: 2 }");
    await rename(join(store(), third), join(folder, "away"));

    const missing = await cli("prune", file, "--json");
    const untouched = idsOf(await listed());
    const accepted = await cli("prune", file, "--accept-missing", "--json");
    const again = await cli("prune", file, "--json");

    expect([missing.exitCode, missing.last()["code"]]).toEqual([9, "suspicious-listing"]);
    expect(missing.last()["message"]).toContain(third);
    expect(untouched).toEqual([first, second]);
    expect([accepted.exitCode, again.exitCode]).toEqual([0, 0]);
    expect(idsOf(await listed())).toEqual([first, second]);
  });

  test("does not mind that another machine pruned what no rule keeps", async () => {
    await storeThree("{ keepLast: 1 }");
    await rm(join(store(), first), { recursive: true });

    const prune = await cli("prune", file, "--json");

    expect([prune.exitCode, idsOf(prune.last()["removed"])]).toEqual([0, [second]]);
  });

  test("killed behind the manifest leaves only unlisted volumes, which a later prune removes", async () => {
    await storeThree("{ keepLast: 2 }");
    const path = join(store(), first);
    for (let number = 2; number < 600; number++) {
      writeFileSync(join(path, `volume-${String(number).padStart(4, "0")}.tar`), "x");
    }

    await runCli(["prune", file], {
      home,
      cwd: folder,
      during: (child) => {
        const timer = setInterval(() => {
          if (existsSync(join(path, "manifest.json"))) return;
          child.kill("SIGKILL");
          clearInterval(timer);
        }, 1);
      },
    });
    const left = await filesBelow(path);
    const verify = await cli("verify", file, "--all");
    const young = await cli("prune", file);
    const leftWhileYoung = await filesBelow(path);
    const yesterday = new Date(Date.now() - 86_400_000);
    for (const name of leftWhileYoung) await utimes(join(path, name), yesterday, yesterday);
    const prune = await cli("prune", file);

    expect(left.length).toBeGreaterThan(0);
    expect(left.every((name) => /^volume-\d+\.tar$|^removing-/.test(name))).toBe(true);
    expect(idsOf(await listed())).toEqual([second, third]);
    expect([verify.exitCode, young.exitCode, prune.exitCode]).toEqual([0, 0, 0]);
    expect(leftWhileYoung).toHaveLength(left.length);
    expect(existsSync(path)).toBe(false);
  });

  test("keeps a damaged snapshot, counts it for nothing, and ends with 3", async () => {
    await storeThree("{ keepLast: 1 }");
    const manifest = join(store(), third, "manifest.json");
    await rm(manifest);
    await writeFile(manifest, "{}");

    const prune = await cli("prune", file, "--json");

    expect(prune.exitCode).toBe(3);
    expect(prune.last()["kept"]).toMatchObject([{ id: second, reasons: ["last good", "last"] }, { id: third }]);
    expect(idsOf(prune.last()["removed"])).toEqual([first]);
  });

  test("refuses a missing or empty folder where runs have stored snapshots, and makes none", async () => {
    await storeThree("{ keepLast: 1 }");
    using state = await openStateStore(findHome({ homeFlag: home, env: {} }), () => undefined);
    state.addRun({ job: "shop", kind: "full", startedAt: "2026-11-03T02:00:00Z", durationMs: 1, outcome: "success" });
    await rm(join(folder, "backups"), { recursive: true });

    const missing = await cli("prune", file, "--json");
    const accepted = await cli("prune", file, "--accept-missing", "--json");
    const isMade = existsSync(join(folder, "backups"));
    await mkdir(join(folder, "backups"));
    const empty = await cli("prune", file, "--json");

    expect([missing.exitCode, missing.last()["code"]]).toEqual([9, "suspicious-listing"]);
    expect([accepted.exitCode, accepted.last()["removed"]]).toEqual([3, []]);
    expect(String(accepted.last()["warnings"])).toContain("cannot open local:./backups: its folder does not exist");
    expect(isMade).toBe(false);
    expect([empty.exitCode, empty.last()["code"]]).toEqual([9, "suspicious-listing"]);
  });

  test.each([[], ["--dry-run"]])("makes no folder for a job that never ran %s", async (...flags) => {
    await writeJob({ url: "postgres://nobody@127.0.0.1:1/shop" }, "retention: { keepLast: 1 }");

    const prune = await cli("prune", file, ...flags, "--json");

    expect([prune.exitCode, prune.last()["kept"], prune.last()["warnings"]]).toEqual([0, [], []]);
    expect(existsSync(join(folder, "backups"))).toBe(false);
  });

  test("prunes the other destinations while a folder is missing, forgets nothing of it, and ends with 3", async () => {
    await storeThree("{ keepLast: 2 }");
    await writeJob(
      { url: "postgres://nobody@127.0.0.1:1/shop" },
      "retention: { keepLast: 2 }",
      "[{ type: local, path: ./backups }, { type: local, path: ./far, name: far }]",
    );
    using state = await openStateStore(findHome({ homeFlag: home, env: {} }), () => undefined);
    state.addStored("shop/shop", "far", third);

    const plan = await cli("prune", file, "--dry-run", "--json");
    const prune = await cli("prune", file, "--accept-missing", "--json");

    expect([plan.exitCode, prune.exitCode]).toEqual([3, 3]);
    for (const result of [plan, prune]) {
      expect(result.last()["warnings"]).toEqual(["far was not pruned: cannot open far: its folder does not exist"]);
      expect(result.last()["removed"]).toMatchObject([{ id: first, destination: "local:./backups" }]);
    }
    expect(existsSync(join(folder, "far"))).toBe(false);
    expect(state.storedAt("shop/shop", "far")).toEqual([third]);
  });
});

describe("the anomaly brake", () => {
  test("makes a run that lost rows a warning and stops prune until it is acknowledged", async () => {
    await using database = await oneTable(1000);
    await writeJob(database, "retention: { keepLast: 1 }");
    const [full] = await makeSnapshots(1);
    await database.query("delete from t where i > 400");

    const shrunk = await cli("run", file, "--json");
    const again = await cli("run", file, "--json");
    const prune = await cli("prune", file, "--json");
    const human = await cli("list", file);
    const before = idsOf(await listed());
    const acknowledge = await cli("acknowledge", file, "--json");
    const after = await cli("run", file, "--json");

    expect([shrunk.exitCode, again.exitCode]).toEqual([3, 3]);
    expect(shrunk.last()["warnings"]).toContain("public.t shrank from 1,000 rows to 400");
    expect(String(again.last()["warnings"])).toContain("rowkeep acknowledge shop");
    expect([prune.exitCode, prune.last()["code"]]).toEqual([9, "brake"]);
    expect(human.stdout).toContain("tables lost rows");
    expect(before).toHaveLength(3);
    expect(before[0]).toBe(full);
    expect(acknowledge.last()["acknowledged"]).toMatchObject([
      { id: before[1], anomalies: [{ name: "t", kind: "shrunk", rowsBefore: 1000, rows: 400 }] },
    ]);
    expect([after.exitCode, idsOf(after.last()["removed"])]).toEqual([0, before]);
    expect(await listed()).toHaveLength(1);
  });

  test("notices a table that vanished, also without a retention, and names once one that the job no longer wants", async () => {
    await using database = await oneTable(1000);
    await database.query("create table u (i int); insert into u values (1); create table v as select * from t");
    await writeJob(database, "");
    await makeSnapshots(1);
    await database.query("drop table u");
    await writeJob(database, "tables: { exclude: [v] }");

    const run = await cli("run", file, "--json");
    const nothing = await cli("prune", file, "--json");
    const again = await cli("run", file, "--json");

    expect(run.exitCode).toBe(3);
    expect(run.last()["warnings"]).toEqual(["public.u vanished: it had 1 row"]);
    expect(run.last()["snapshots"]).toMatchObject([{ noLongerWanted: { excluded: ["public.v"], schemaOnly: [] } }]);
    expect([again.exitCode, again.last()["warnings"]]).toEqual([0, []]);
    expect(again.last()["snapshots"]).not.toHaveProperty("0.noLongerWanted");
    expect(nothing.last()["code"]).toBe("no-retention");
  });

  test("names every table that a narrower job leaves out, and lets prune go on", async () => {
    await using database = await oneTable(5);
    await database.query("create table a (i int); create table b as select 1; create table c as select 1");
    await writeJob(database, "retention: { keepLast: 1 }");
    const [first] = await makeSnapshots(1);
    await writeJob(database, "tables: { include: [t, c], schemaOnly: [c] }\nretention: { keepLast: 1 }");

    const run = await cli("run", file, "--json");

    expect([run.exitCode, run.last()["warnings"]]).toEqual([0, []]);
    expect(run.last()["snapshots"]).toMatchObject([
      { noLongerWanted: { excluded: ["public.a", "public.b"], schemaOnly: ["public.c"] } },
    ]);
    expect(idsOf(run.last()["removed"])).toEqual([first]);
    await writeJob(database, "tables: { include: [c] }");
    expect((await cli("run", file)).stdout).toContain("      no longer backed up, as the job says: public.t\n");
  });

  test("takes the job's own share, and compares nothing with a safety snapshot", async () => {
    await using database = await oneTable(1000);
    await database.query("create table other as select * from t");
    await writeJob(database, "safety: { maxShrink: 80% }");
    const [first] = await makeSnapshots(1);
    await database.query("delete from t where i > 300");
    expect((await cli("run", file)).exitCode).toBe(0);
    expect((await cli("restore", file, String(first), "--tables", "t", "--yes")).exitCode).toBe(0);
    await database.query("delete from other where i > 100");

    const run = await cli("run", file, "--json");

    expect(run.exitCode).toBe(3);
    expect(run.last()["warnings"]).toEqual(["public.other shrank from 1,000 rows to 100"]);
  });
});

describe("a machine that has only the public key", () => {
  test("replaces its one snapshot, sees rows that were lost, and writes no name of a table to the destination", async () => {
    await using database = await oneTable(1000);
    await database.query("alter table t rename to canary_table");
    const { identity, recipient } = await generateKeyPair();
    await writeFile(join(folder, "mine.key"), identity);
    await writeJob(database, `naming: overwrite\nencryption: { recipients: [${recipient}] }`);

    const [first] = await makeSnapshots(1);
    const [second, ...more] = await makeSnapshots(1);
    await database.query("delete from canary_table where i > 400");
    const shrunk = await cli("run", file, "--json");
    const human = await cli("list", file);
    const braked = await cli("prune", file, "--json");
    await cli("acknowledge", file);
    const after = await cli("prune", file, "--json");
    const opened = await cli("list", file, "--identity", "mine.key", "--json");

    expect(more).toEqual([]);
    expect(second).not.toBe(first);
    expect([shrunk.exitCode, braked.exitCode, after.exitCode]).toEqual([3, 9, 0]);
    expect(shrunk.last()["warnings"]).toContain("public.canary_table shrank from 1,000 rows to 400");
    expect(human.stdout).toContain("tables lost rows");
    expect(braked.last()).toMatchObject({ code: "brake" });
    expect(idsOf(after.last()["removed"])).toEqual([second]);
    expect(opened.last()["snapshots"]).toMatchObject([{ rows: 400, anomalies: [{ name: "canary_table" }] }]);
    const leaks = (path: string) =>
      spawnSync("grep", ["-rlaF", "canary_table", join(folder, path)], { encoding: "utf8" });
    expect(leaks("backups").stdout).toBe("");
    // This machine reads the database anyway, and must know what to compare the next snapshot with.
    expect(leaks("home").stdout).toContain("state.sqlite");
    expect(leaks("home").stdout).not.toContain("summaries.sqlite");
  });
});
