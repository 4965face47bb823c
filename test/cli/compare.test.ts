import { mkdir, mkdtemp, mkdtempDisposable, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { runCliHere } from "../support/cli.ts";
import { createDatabase, type TestDatabase } from "../support/postgres.ts";

let folder: string;
let file: string;
let primary: TestDatabase;
let dr: TestDatabase;

const SQL =
  "create table orders (id int primary key, v text); insert into orders select i, 'v' || i from generate_series(1, 500) i";

const jobText = (more = "") =>
  `version: 1\nname: shop\nsource: { url: "${primary.url}" }\ndestinations: [{ type: local, path: ./backups }]\n${more}`;
const cli = (...args: string[]) => runCliHere(args, { home: join(folder, "home"), cwd: folder });

describe("rowkeep compare", () => {
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
    file = join(folder, "shop.yaml");
    [primary, dr] = await Promise.all([createDatabase(15, SQL), createDatabase(18, SQL)]);
    await writeFile(file, jobText(`dr: { url: "${dr.url}" }\n`));
  });

  afterEach(async () => {
    await Promise.all([primary[Symbol.asyncDispose](), dr[Symbol.asyncDispose]()]);
    await rm(folder, { recursive: true, force: true });
  });

  test("ends with 0 when primary and dr are equal, with 4 and the keys when they differ", async () => {
    const equal = await cli("compare", file, "--json");
    await dr.query("update orders set v = 'other' where id in (3, 400); delete from orders where id = 5");
    const different = await cli("compare", file, "--rows", "--json");
    const shown = await cli("compare", file, "--rows");
    const counted = await cli("compare", file, "--count", "--json");

    expect([equal.exitCode, different.exitCode, shown.exitCode, counted.exitCode]).toEqual([0, 4, 4, 4]);
    expect(equal.last()).toMatchObject({
      type: "result",
      equal: true,
      tables: [{ schema: "public", name: "orders", equal: true, left: { rows: 500 }, right: { rows: 500 } }],
    });
    expect(different.last()["tables"]).toMatchObject([
      {
        equal: false,
        differences: [
          { key: { id: "3" }, kind: "changed", columns: ["v"] },
          { key: { id: "5" }, kind: "onlyLeft" },
          { key: { id: "400" }, kind: "changed", columns: ["v"] },
        ],
      },
    ]);
    expect(shown.stdout).toMatch(/public\.orders +500 +499 +2 changed, 1 only left/);
    expect(shown.stdout).toContain("only left   id=5");
    expect(shown.stdout).not.toContain("other");
  });

  test("shows every row below its own table, also where a table has no changed rows", async () => {
    const more = "create table people (id int primary key); insert into people values (1), (2)";
    await Promise.all([primary.query(more), dr.query(more)]);
    await dr.query("update orders set v = 'other' where id = 3; delete from people where id = 2");
    await primary.query("delete from people where id = 1");

    const shown = await cli("compare", file, "--rows");

    const rows = ["public.orders: changed rows differ in v", "  changed     id=3 in v", "public.people:"];
    expect(shown.stdout).toContain([...rows, "  only right  id=1", "  only left   id=2", ""].join("\n"));
  });

  test("a dr site that is the primary itself is no second site: nothing is compared with it or restored to it", async () => {
    await writeFile(file, jobText(`dr: { url: "${primary.url}" }\n`));
    expect((await cli("run", file)).exitCode).toBe(0);

    const compared = await cli("compare", file, "--json");
    const restored = await cli("restore", file, "latest", "--to", "dr", "--yes", "--json");
    const back = await cli("restore", file, "latest", "--to", primary.url, "--yes", "--json");

    expect([compared.exitCode, restored.exitCode, back.exitCode]).toEqual([9, 9, 0]);
    expect(compared.last()["message"]).toContain("its dr site is the same database as its primary");
    expect(restored.last()["message"]).toContain("it is no second site, the snapshot was taken from it");
  });

  test("compares the primary with a snapshot, and two snapshots", async () => {
    expect((await cli("run", file)).exitCode).toBe(0);
    const same = await cli("compare", file, "--with", "latest", "--json");
    await primary.query("update orders set v = 'new' where id = 7");
    const changed = await cli("compare", file, "--with", "latest", "--rows", "--json");
    expect((await cli("run", file)).exitCode).toBe(0);
    const snapshots = (await cli("list", file, "--json")).last()["snapshots"] as { id: string }[];
    const [first, second] = snapshots.map(({ id }) => id) as [string, string];
    const stored = await cli("compare", file, first, "--with", second, "--rows", "--json");

    expect([same.exitCode, changed.exitCode, stored.exitCode]).toEqual([0, 4, 4]);
    for (const { last } of [changed, stored]) {
      expect(last()["tables"]).toMatchObject([{ differences: [{ key: { id: "7" }, kind: "changed" }] }]);
    }
  });

  test("compares every job that has a dr site, and goes on when one fails", async () => {
    const jobs = join(folder, "home", "jobs");
    await mkdir(jobs, { recursive: true });
    const text = jobText(`dr: { url: "${dr.url}" }\n`);
    await writeFile(join(jobs, "a.yaml"), text.replace("name: shop", "name: a"));
    await writeFile(join(jobs, "b.yaml"), text.replace("name: shop", "name: b").replace(primary.name, "gone"));
    await writeFile(join(jobs, "c.yaml"), jobText().replace("name: shop", "name: c"));

    const all = await cli("compare", "--all", "--json");

    expect(all.exitCode).toBe(5);
    expect(all.last()).toMatchObject({
      equal: false,
      jobs: [
        { job: "a", equal: true },
        { job: "b", error: expect.stringContaining("does not exist") },
      ],
    });
  });

  test("names the nearest table for a pattern that matches none", async () => {
    const refused = await cli("compare", file, "--tables", "order", "--json");

    expect(refused.exitCode).toBe(2);
    expect(refused.last()).toMatchObject({ code: "unknown-table", hint: "Did you mean orders?" });
  });
});

test.each([
  [["compare"], "missing-argument"],
  [["compare", "no-dr.yaml", "--all"], "both-chosen"],
  [["compare", "no-dr.yaml", "latest"], "missing-with"],
  [["compare", "no-dr.yaml"], "no-dr"],
])("refuses %j", async (args, code) => {
  await using place = await mkdtempDisposable(join(tmpdir(), "rowkeep-test-"));
  await writeFile(
    join(place.path, "no-dr.yaml"),
    `version: 1\nname: shop\nsource: { url: "postgres://u@127.0.0.1:1/shop" }\ndestinations: [{ type: local, path: ./backups }]\n`,
  );

  const refused = await runCliHere([...args, "--json"], { home: join(place.path, "home"), cwd: place.path });

  expect([refused.exitCode, refused.last()["code"]]).toEqual([2, code]);
});
