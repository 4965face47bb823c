import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { runCliHere } from "../support/cli.ts";
import { createDatabase, type TestDatabase } from "../support/postgres.ts";
import { untilAlone } from "../support/until-alone.ts";

// One chain of incrementals with everything that one can have; every test restores its third snapshot by another path.

const SCHEMA = `
  create table t (id int primary key, v text);
  insert into t select i, repeat(md5(i::text), 9) from generate_series(1, 20000) i;
  create table keyless (a int, v text); insert into keyless select i % 7, 'k' from generate_series(1, 900) i;
  create table still (i int primary key); insert into still select generate_series(1, 50);
  create table fickle (id int primary key, v text); insert into fickle select i, 'old' from generate_series(1, 400) i;
  create table parted (id int primary key, v text) partition by range (id);
  create table parted_1 partition of parted for values from (0) to (500);
  create table parted_2 partition of parted for values from (500) to (2000);
  insert into parted select i, 'p' from generate_series(1, 1500) i`;

const CHANGES = [
  `update t set v = 'first' where id % 500 = 0; delete from t where id in (7, 8); delete from keyless where ctid in (select ctid from keyless where a = 3 limit 4);
   update parted set v = 'moved', id = id + 600 where id between 100 and 110 and id + 600 > 1500`,
  `update t set v = 'second' where id % 1000 = 0 or id = 9; delete from t where id = 500; insert into t values (7, 'again');
   drop table fickle; create table fickle (id int primary key, v text); insert into fickle values (1, 'new'), (2, E'tab\\tend');
   alter table parted detach partition parted_1; delete from parted_1 where id < 20; insert into parted values (1900, 'late')`,
  `update keyless set v = v || 'x' where a < 5; alter table parted attach partition parted_1 for values from (0) to (500);
   insert into t select i, 'much' from generate_series(30001, 30050) i; delete from t where id between 1000 and 1020`,
  "update t set v = 'later' where id < 5000; delete from keyless; delete from parted; drop table still; truncate fickle",
];

const TABLES = ["t", "keyless", "still", "fickle", "parted", "parted_1"];

let folder: string;
let database: TestDatabase;
let file: string;
/** The snapshots, the full first. */
const ids: string[] = [];
/** The rows at the instant of each. */
const truths: Awaited<ReturnType<typeof rowsOf>>[] = [];

const cli = (...args: string[]) => runCliHere(args, { home: join(folder, "home"), cwd: folder });

async function rowsOf(one: TestDatabase): Promise<Record<string, unknown>> {
  const rows: Record<string, unknown> = {};
  for (const table of TABLES) {
    rows[table] = await one.query(`select x::text from ${table} x order by 1`).catch(() => undefined);
  }
  return rows;
}

const jobWith = (destinations: string) =>
  writeFile(
    file,
    `version: 1\nname: shop\nsource: { url: "${database.url}" }\ndestinations: [${destinations}]\nsafety: { maxShrink: 100% }\n`,
  );

const LOCAL = "{ type: local, path: ./backups }";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  file = join(folder, "shop.yaml");
  database = await createDatabase(18, SCHEMA);
  await jobWith(LOCAL);
  for (const change of ["select 1", ...CHANGES]) {
    for (const statement of change.split("; ")) await database.query(statement);
    await untilAlone(database);
    const made = await cli("run", file, "--incremental", "--json");
    const [snapshot] = made.last()["snapshots"] as { id: string }[];
    ids.push(snapshot?.id ?? "");
    truths.push(await rowsOf(database));
  }
});

afterAll(async () => {
  await database[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

test("show tells how each table was stored and why, and what the snapshot builds on", async () => {
  const { last } = await cli("show", file, ids[2] ?? "", "--json");
  const { stdout } = await cli("show", file, ids[2] ?? "");

  const reason = "it is another table of the same name; it was read again, and 1 of its 1 chunk changed";
  expect(last()["tables"]).toEqual(
    expect.arrayContaining([
      expect.objectContaining({ name: "t", method: "delta" }),
      expect.objectContaining({ name: "keyless", method: "unchanged" }),
      expect.objectContaining({ name: "fickle", method: "full", reason }),
    ]),
  );
  expect(stdout).toMatch(/fickle.*full: it is another table of the same name/);
  expect(stdout).toMatch(new RegExp(`builds on +.*${ids[0]}`));
});

test.each([1, 2, 3, 4])("snapshot %i of the chain fills an empty database", async (index) => {
  await using other = await createDatabase(18);

  const { exitCode } = await cli("restore", file, ids[index] ?? "", "--to", other.url, "--create", "--yes", "--json");

  expect(exitCode).toBe(0);
  expect(await rowsOf(other)).toEqual(truths[index]);
});

test("chosen tables and chosen rows are those of the snapshot", async () => {
  await using other = await createDatabase(18, SCHEMA);
  const id = ids[3] ?? "";
  const to = ["--to", other.url, "--yes", "--no-safety", "--json"];

  const tables = await cli("restore", file, id, "--tables", "keyless,parted_2", ...to);
  const rows = await cli(
    "restore",
    file,
    id,
    "--tables",
    "t",
    "--where",
    "id in (7, 8, 9, 500, 2000)",
    "--mode",
    "replace",
    ...to,
  );

  expect([tables.exitCode, rows.exitCode]).toEqual([0, 0]);
  const { keyless } = await rowsOf(other);
  expect(keyless).toEqual(truths[3]?.["keyless"]);
  expect(await other.query("select id, left(v, 8) from t where id in (7, 8, 9, 500, 2000) order by 1")).toEqual([
    ["7", "again"],
    ["9", "second"],
    ["2000", "second"],
  ]);
});

test("cat gives the rows of the snapshot, of a partitioned table too", async () => {
  const id = ids[3] ?? "";
  const counts = await Promise.all(
    ["t", "keyless", "parted"].map(
      async (table) => (await cli("cat", file, id, table)).stdout.trim().split("\n").length,
    ),
  );
  const some = await cli("cat", file, id, "t", "--where", "id in (8, 500, 1010, 1999, 30007)", "--columns", "id");

  const truth = truths[3] as Record<string, unknown[]>;
  expect(counts).toEqual(["t", "keyless", "parted"].map((table) => truth[table]?.length));
  expect(some.stdout.trim().split("\n")).toEqual(["1999", "30007"]);
});

test("diff finds the rows in which two snapshots of a chain differ", async () => {
  const { last } = await cli("diff", file, ids[1] ?? "", ids[2] ?? "", "--table", "t", "--rows", "--json");

  const [table] = last()["tables"] as { differences: { kind: string; key: { id: string } }[] }[];
  const keys = (kind: string) =>
    table?.differences
      .filter((one) => one.kind === kind)
      .map(({ key }) => Number(key.id))
      .sort((a, b) => a - b);
  expect(keys("onlyLeft")).toEqual([500]);
  expect(keys("onlyRight")).toEqual([7]);
  expect(keys("changed")).toEqual([9, ...Array.from({ length: 20 }, (_, index) => (index + 1) * 1000)]);
});

test("the database is equal to its last snapshot and not to the one before, and a drill of that one is good", async () => {
  const [before, last] = [ids[3] ?? "", ids[4] ?? ""];

  const equal = await cli("compare", file, "--with", last, "--json");
  const different = await cli("compare", file, "--with", before, "--json");
  const drilled = await cli("verify", file, before, "--drill", "--json");

  expect([equal.exitCode, different.exitCode, drilled.exitCode]).toEqual([0, 4, 0]);
});

test("a restore in place and its undo, both of a chain", async () => {
  await using other = await createDatabase(18);
  const here = ["--to", other.url];
  await cli("restore", file, ids[1] ?? "", ...here, "--create", "--yes");
  const before = await rowsOf(other);

  const restored = await cli("restore", file, ids[3] ?? "", "--tables", "t,keyless", ...here, "--yes", "--json");
  const after = await rowsOf(other);
  const undone = await cli("undo", file, ...here, "--yes", "--json");

  expect([restored.exitCode, undone.exitCode]).toEqual([0, 0]);
  expect([after["t"], after["keyless"]]).toEqual([truths[3]?.["t"], truths[3]?.["keyless"]]);
  expect(await rowsOf(other)).toEqual(before);
});

test("a copy made by sync restores without the place it was made from, and a prune leaves what it needs", async () => {
  await using other = await createDatabase(18);
  await jobWith(`${LOCAL}, { type: local, name: second, path: ./second }`);
  const synced = await cli("sync", file, "--json");
  await rename(join(folder, "backups"), join(folder, "gone"));
  await jobWith("{ type: local, name: second, path: ./second, retention: { keepLast: 2 } }");

  // A table vanished, as it should.
  await cli("acknowledge", file);
  const pruned = await cli("prune", file, "--json");
  const verified = await cli("verify", file, "--json");
  const restored = await cli("restore", file, ids[3] ?? "", "--to", other.url, "--create", "--yes", "--json");

  await rename(join(folder, "gone"), join(folder, "backups"));
  await jobWith(LOCAL);
  expect((pruned.last()["removed"] as { id: string }[]).map(({ id }) => id)).toEqual([]);
  expect([synced.exitCode, pruned.exitCode, verified.exitCode, restored.exitCode]).toEqual([0, 0, 0, 0]);
  expect(await rowsOf(other)).toEqual(truths[3]);
});
