import { mkdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { runCli, runCliHere } from "../support/cli.ts";
import { useCliPlace } from "../support/cli-place.ts";
import { startGlacierFake } from "../support/glacier-fake.ts";
import { createDatabase, type TestDatabase } from "../support/postgres.ts";

const place = useCliPlace();
const { cli } = place;

async function shop(): Promise<TestDatabase> {
  const database = await createDatabase(
    18,
    `create table orders (id int primary key, v text); insert into orders select i, repeat('v' || i, 40) from generate_series(1, 60000) i;
     create table people (id int primary key); insert into people values (1), (2)`,
  );
  await writeFile(
    place.file,
    `version: 1\nname: shop\nsource: { url: "${database.url}" }\ndestinations: [{ type: local, path: ./backups }]\n`,
  );
  expect((await cli("run", place.file)).exitCode).toBe(0);
  return database;
}

describe("rowkeep restore", () => {
  test("needs --yes without a terminal, and changes nothing before it has it", async () => {
    await using database = await shop();
    await database.query("delete from orders where id > 10");

    const restore = await cli("restore", place.file, "--json");

    expect(restore.exitCode).toBe(9);
    expect(restore.last()).toMatchObject({
      type: "error",
      code: "needs-confirmation",
      hint: expect.stringContaining("--yes"),
    });
    expect(await database.query("select count(*) from orders")).toEqual([["10"]]);
  });

  test("tells that the rows are there when the files behind them cannot be put back", async () => {
    await using database = await createDatabase(
      18,
      "create table people (id int primary key); insert into people values (1)",
    );
    const [folder, target] = [join(place.folder, "certs"), join(place.folder, "target")];
    await mkdir(folder);
    await writeFile(join(folder, "key"), "secret");
    await writeFile(
      place.file,
      `version: 1\nname: shop\nsource: { url: "${database.url}" }\nfiles: [${folder}]\ndestinations: [{ type: local, path: ./backups }]\n`,
    );
    await cli("run", place.file);
    await database.query("insert into people values (2)");
    const count = async () => (await database.query("select count(*) from people"))[0]?.[0];

    // A file where a folder must be is seen before anything is changed, a folder where the file must be is not.
    await mkdir(dirname(join(target, folder)), { recursive: true });
    await writeFile(join(target, folder), "");
    const early = await cli("restore", place.file, "--files-to", target, "--yes", "--json");
    const before = await count();
    await rm(join(target, folder));
    await mkdir(join(target, folder, "key"), { recursive: true });
    const late = await cli("restore", place.file, "--files-to", target, "--yes", "--json");

    expect([early.exitCode, early.last()["code"], before]).toEqual([9, "not-a-folder", "2"]);
    expect([late.exitCode, late.last()["code"], await count()]).toEqual([9, "unwritable", "1"]);
    const told = expect.stringContaining(
      "has the rows of the snapshot, but not all of its files were restored; rowkeep undo",
    );
    expect([early.last()["warnings"], late.last()["warnings"]]).toEqual([undefined, [told]]);
  });

  test("plans, restores chosen tables, and undo puts back what was replaced, once", async () => {
    await using database = await shop();
    await database.query("update orders set v = 'new'; delete from people");

    const plan = await cli("restore", place.file, "latest", "--tables", "orders", "--plan", "--json");
    const restore = await cli("restore", place.file, "latest", "--tables", "orders", "--yes", "--json");
    const restored = await database.query(
      "select count(*) filter (where v = 'new'), (select count(*) from people) from orders",
    );
    const undo = await cli("undo", place.file, "--yes", "--json");
    const again = await cli("undo", place.file, "--yes", "--json");

    const expected = [{ schema: "public", name: "orders", deleted: 60_000, inserted: 60_000 }];
    expect([plan.exitCode, restore.exitCode, undo.exitCode, again.exitCode]).toEqual([0, 0, 0, 2]);
    expect([plan.last()["tables"], restore.last()["tables"]]).toEqual([expected, expected]);
    expect(restored).toEqual([["0", "0"]]);
    expect(restore.last()["safetySnapshot"]).toEqual(expect.any(String));
    expect(await database.query("select count(*) from orders where v = 'new'")).toEqual([["60000"]]);
    expect(again.last()).toMatchObject({ code: "nothing-to-undo" });
  });

  test("names the snapshot and the target in a plan, also when that is all that is asked for", async () => {
    await using database = await shop();
    await using elsewhere = await createDatabase(15, "create table people (id int primary key)");

    const text = await cli("restore", place.file, "latest", "--plan");
    const rows = await cli("restore", place.file, "latest", "--tables", "people", "--where", "id = 1", "--plan");
    const other = await cli("restore", place.file, "latest", "--tables", "people", "--to", elsewhere.url, "--plan");
    const json = await cli("restore", place.file, "latest", "--plan", "--json");

    const ofSnapshot = `snapshot  \\S+-full of ${database.name} at \\S+:\\d+, taken \\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\dZ\n`;
    for (const [{ stdout }, target] of [
      [text, database.name],
      [rows, database.name],
      [other, elsewhere.name],
    ] as const) {
      expect(stdout).toMatch(new RegExp(`${ofSnapshot}target    ${target} at \\S+:\\d+ as postgres, PostgreSQL 1`));
      expect(stdout).toContain("nothing was changed");
    }
    expect(json.last()).toMatchObject({ source: { database: database.name }, target: { database: database.name } });
    expect(json.last()["createdAt"]).toEqual(expect.any(String));
  });

  test("that was rolled back is nothing that undo puts back", async () => {
    await using database = await shop();
    await database.query("delete from people where id = 2");
    const done = await cli("restore", place.file, "latest", "--tables", "people", "--yes");
    await database.query("update orders set v = 'other'; alter table orders add constraint c check (v = 'other')");
    const failed = await cli("restore", place.file, "latest", "--tables", "orders", "--yes");
    const rows = await cli("restore", place.file, "latest", "--tables", "orders", "--where", "id = 7", "--yes");
    await database.query("alter table orders drop constraint c; update orders set v = 'work of two weeks'");

    const undo = await cli("undo", place.file, "--yes");

    expect([done.exitCode, failed.exitCode, rows.exitCode, undo.exitCode]).toEqual([0, 5, 5, 0]);
    expect(await database.query("select distinct v from orders")).toEqual([["work of two weeks"]]);
    expect(await database.query("select id from people")).toEqual([["1"]]);
  });

  test("refuses a snapshot that is named beside --at: one of both would be ignored", async () => {
    await using _database = await shop();

    const restore = await cli("restore", place.file, "latest", "--at", "2026-01-01", "--plan", "--json");

    expect(restore.exitCode).toBe(2);
    expect(restore.last()).toMatchObject({ code: "both-chosen" });
  });

  test("leaves large objects alone in the undo of a restore that left them alone", async () => {
    await using database = await shop();
    await database.query("select lo_from_bytea(7001, 'at the restore')");
    await cli("restore", place.file, "latest", "--tables", "people", "--yes");
    await database.query("select lo_put(7001, 0, 'since the restore')");

    const undo = await cli("undo", place.file, "--yes");

    expect(undo.exitCode).toBe(0);
    expect(await database.query("select convert_from(lo_get(7001), 'UTF8')")).toEqual([["since the restore"]]);
  });

  test("names the nearest table for a pattern that matches none", async () => {
    await using _database = await shop();

    const restore = await cli("restore", place.file, "--tables", "order", "--yes");

    expect(restore.exitCode).toBe(2);
    expect(restore.stderr).toContain("Did you mean orders?");
  });

  test("killed at any moment leaves the old rows or the new ones, never a mixture", async () => {
    await using database = await shop();
    await database.query("update orders set v = 'old'");
    for (const afterMs of [400, 600, 800, 1000, 1200]) {
      const args = ["restore", place.file, "latest", "--tables", "orders", "--yes", "--no-safety"];
      await runCli(args, {
        home: place.home,
        cwd: place.folder,
        during: (child) => setTimeout(() => child.kill("SIGKILL"), afterMs),
      });
      await expect
        .poll(
          () => database.query("select count(*) from pg_stat_activity where application_name = 'rowkeep restore'"),
          { timeout: 10_000 },
        )
        .toEqual([["0"]]);
      const [row] = await database.query("select count(*), count(*) filter (where v = 'old') from orders");
      expect([
        ["60000", "60000"],
        ["60000", "0"],
      ]).toContainEqual(row);
      await database.query("update orders set v = 'old'");
    }
  });

  test("makes a whole database elsewhere, and refuses one that is not empty", async () => {
    await using _database = await shop();
    await using empty = await createDatabase(18);

    const planned = await cli(
      "restore",
      place.file,
      "--create",
      "--to",
      empty.url,
      "--tables",
      "people",
      "--plan",
      "--json",
    );
    const create = await cli("restore", place.file, "--create", "--to", empty.url, "--yes", "--json");
    const again = await cli("restore", place.file, "--create", "--to", empty.url, "--yes", "--json");

    expect([planned.exitCode, create.exitCode, again.exitCode]).toEqual([0, 0, 9]);
    expect(planned.last()).toMatchObject({ tables: [{ name: "people" }], notes: [] });
    expect(again.last()).toMatchObject({ code: "not-empty" });
    expect(await empty.query("select count(*), (select count(*) from people) from orders")).toEqual([["60000", "2"]]);
  });
});

test("an exported file is imported into an empty database", async () => {
  await using database = await createDatabase(
    18,
    "create table t (i int primary key, v text); insert into t values (1, 'a')",
  );
  await using empty = await createDatabase(18);

  const written = await cli("export", database.url, "shop.rowkeep");
  const create = await cli("import", "shop.rowkeep", empty.url, "--create", "--yes");
  await empty.query("update t set v = 'spoilt'");
  const replace = await cli("import", "shop.rowkeep", empty.url, "--yes", "--json");

  expect([written.exitCode, create.exitCode, replace.exitCode]).toEqual([0, 0, 0]);
  expect(await empty.query("select * from t")).toEqual([["1", "a"]]);
});

test("a URL of the command line may lie in the environment or a file, as those of job files", async () => {
  await using database = await shop();
  await using other = await createDatabase(18);
  await using third = await createDatabase(18);
  await writeFile(join(place.folder, "other"), other.url, { mode: 0o600 });
  const options = { home: place.home, cwd: place.folder, env: { SHOP_URL: database.url, THIRD: third.name } };
  const here = (...args: string[]) => runCliHere(args, options);
  const inParts = third.url.replace(third.name, "${env:THIRD}");

  const missing = await here("export", "${env:NO_URL}", "shop.rowkeep", "--json");
  const missingToo = await here("verify", place.file, "--drill", "--drill-url", "${env:NO_URL}", "--json");
  const results = [
    await here("export", "${env:SHOP_URL}", "shop.rowkeep"),
    await here("import", "shop.rowkeep", inParts, "--create", "--yes"),
    await here("restore", place.file, "--to", "file:other", "--create", "--yes"),
  ];

  expect(missing.last()).toMatchObject({
    code: "secret",
    message: "cannot resolve the url: the environment has no NO_URL",
  });
  expect(missingToo.last()).toMatchObject({ message: "cannot resolve --drill-url: the environment has no NO_URL" });
  expect(results.map(({ exitCode }) => exitCode)).toEqual([0, 0, 0]);
  for (const { query } of [other, third]) expect(await query("select count(*) from orders")).toEqual([["60000"]]);
});

describe("rowkeep restore from an archive", () => {
  test("is refused, asks with --thaw, says when to come back, and then restores; verify calls it archived", async () => {
    const fake = await startGlacierFake();
    try {
      await using database = await createDatabase(18, "create table t (i int); insert into t values (1), (2)");
      await writeFile(
        place.file,
        `version: 1\nname: cold\nsource: { url: "${database.url}" }\ndestinations:\n  - { name: vault, type: s3, bucket: vault, endpoint: "${fake.endpoint}", pathStyle: true, accessKeyId: AK, secretAccessKey: SK, storageClass: DEEP_ARCHIVE }\n`,
      );
      expect((await cli("run", place.file, "--json")).last()).toMatchObject({ type: "result" });
      await database.query("delete from t");

      const verify = await cli("verify", place.file, "--json");
      const undecided = await cli("restore", place.file, "--yes");
      const plan = await cli("restore", place.file, "--plan");
      const unattended = await cli("restore", place.file, "--thaw", "--wait");
      const wrong = await cli("restore", place.file, "--thaw-tier", "bulk");
      const asked = await cli("restore", place.file, "--thaw=3", "--thaw-tier", "bulk", "--yes", "--json");
      fake.passHours(48);
      const restored = await cli("restore", place.file, "--yes", "--json");

      expect(verify.exitCode).toBe(3);
      expect(verify.last()).toMatchObject({
        ok: false,
        snapshots: [{ ok: true, archived: { volumes: ["volume-0001.tar"] } }],
      });
      expect([undecided.exitCode, plan.exitCode, unattended.exitCode, wrong.exitCode]).toEqual([9, 0, 9, 2]);
      expect(undecided.stderr).toContain("volume-0001.tar");
      expect(plan.stdout).toMatch(/must be thawed first.*\n +volume-0001\.tar at vault, .*archived/);
      expect(unattended.stderr).toContain("--yes");
      expect(asked.exitCode).toBe(9);
      expect(asked.last()).toMatchObject({ type: "error", code: "thawing", hint: expect.stringContaining("48 hours") });
      expect(restored.exitCode).toBe(0);
      expect(await database.query("select count(*) from t")).toEqual([["2"]]);
    } finally {
      await fake.close();
    }
  });
});
