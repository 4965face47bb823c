import { readFile, writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { useCliPlace } from "../support/cli-place.ts";
import { createDatabase, queryServer, type TestDatabase } from "../support/postgres.ts";

const place = useCliPlace();
const { cli } = place;

interface Listed {
  readonly id: string;
  readonly database: string;
}

/** A job with two databases of one server. */
async function writeJob(first: TestDatabase, second: string): Promise<void> {
  await writeFile(
    place.file,
    `version: 1\nname: m\nsource: { url: "${first.url}" }\ndatabases: [${first.name}, ${second}]\ndestinations: [{ type: local, path: ./backups }]\n`,
  );
}

async function listed(): Promise<readonly Listed[]> {
  const { exitCode, last } = await cli("list", place.file, "--json");
  expect(exitCode).toBe(0);
  return last()["snapshots"] as readonly Listed[];
}

test("all snapshots of a job have ids of their own, also those of one second", async () => {
  await using shop = await createDatabase(18, "create table t (i int); insert into t values (1)");
  await using crm = await createDatabase(18, "create table t (i int); insert into t values (2)");
  await writeJob(shop, crm.name);

  const runs = [await cli("run", place.file), await cli("run", place.file), await cli("run", place.file)];

  expect(runs.map(({ exitCode }) => exitCode)).toEqual([0, 0, 0]);
  const ids = (await listed()).map(({ id }) => id);
  expect(ids).toHaveLength(6);
  expect(new Set(ids).size).toBe(6);
});

test("an id tells its database to every command, and what a restore advises works", async () => {
  await using shop = await createDatabase(18, "create table t (i int); insert into t values (1)");
  await using crm = await createDatabase(18, "create table t (i int); insert into t values (2)");
  await writeJob(shop, crm.name);
  expect((await cli("run", place.file)).exitCode).toBe(0);
  const id = (await listed()).find(({ database }) => database === crm.name)?.id ?? expect.fail("crm has a snapshot");
  await crm.query("update t set i = 3");

  const show = await cli("show", place.file, id, "--json");
  const named = await cli("show", place.file, "latest", "--database", crm.name, "--json");
  const cat = await cli("cat", place.file, id, "t");
  const pin = await cli("pin", place.file, id, "--json");
  const verify = await cli("verify", place.file, id, "--json");
  const diff = await cli("diff", place.file, id, "latest", "--json");
  const compare = await cli("compare", place.file, "--with", id, "--json");
  const restore = await cli("restore", place.file, id, "--yes");
  const restored = await crm.query("select i from t");
  const advised = /rowkeep (undo .*) puts it back/.exec(restore.stdout)?.[1]?.split(" ") ?? [];
  const undo = await cli(...advised, "--yes");

  expect(show.last()["snapshot"]).toMatchObject({ id, database: crm.name });
  expect(named.last()["snapshot"]).toMatchObject({ id, database: crm.name });
  expect(cat.stdout).toBe("2\n");
  expect(pin.last()).toMatchObject({ id, pinned: true });
  expect(verify.last()["snapshots"]).toMatchObject([{ id, ok: true }]);
  expect([diff.exitCode, compare.exitCode, restore.exitCode, undo.exitCode]).toEqual([0, 4, 0, 0]);
  expect(restored).toEqual([["2"]]);
  expect(await crm.query("select i from t")).toEqual([["3"]]);
});

test("what could be of several databases is refused with their names as written, which --database takes", async () => {
  await using shop = await createDatabase(18, "create table t (i int); insert into t values (1)");
  const crm = `crm of ${shop.name}`;
  await queryServer(18, `create database "${crm}" template ${shop.name}`);
  try {
    await writeJob(shop, crm);
    expect((await cli("run", place.file)).exitCode).toBe(0);
    const year = String(new Date().getUTCFullYear());

    const latest = await cli("show", place.file, "latest", "--json");
    const prefix = await cli("pin", place.file, year, "--json");
    const unknown = await cli("show", place.file, "latest", "--database", "nope", "--json");
    const none = await cli("verify", place.file, "1999", "--json");
    const named = await cli("show", place.file, "latest", "--database", crm, "--json");
    const restore = await cli("restore", place.file, "latest", "--database", crm, "--yes");

    const several = { code: "several-databases", exitCode: 2, hint: "Name one with --database." };
    for (const refused of [latest, prefix]) {
      expect(refused.last()).toMatchObject(several);
      expect(refused.last()["message"]).toMatch(/databases .*crm of t_/);
    }
    expect(unknown.last()).toMatchObject({ ...several, message: expect.stringContaining("no snapshot is of nope") });
    expect(none.last()).toMatchObject({ code: "not-found", exitCode: 2 });
    expect(named.last()["snapshot"]).toMatchObject({ database: crm });
    expect(restore.stdout).toContain(`rowkeep undo ${place.file} --database '${crm}' puts it back`);
  } finally {
    await queryServer(18, `drop database if exists "${crm}" with (force)`);
  }
});

test("a run, a verify and a prune of several databases end with one line for each", async () => {
  await using shop = await createDatabase(18, "create table t (i int); insert into t values (1), (2)");
  await using crm = await createDatabase(18, "create table t (i int); insert into t values (3)");
  await writeJob(shop, crm.name);
  const text = `${await readFile(place.file, "utf8")}retention: { keepLast: 1 }\n`;
  await writeFile(place.file, text);
  const last = (shown: string, lines: number) => shown.trimEnd().split("\n").slice(-lines);

  const run = await cli("run", place.file);
  const verify = await cli("verify", place.file);
  const prune = await cli("prune", place.file, "--dry-run");
  await writeFile(place.file, text.replace(crm.name, "missing"));
  const failed = await cli("run", place.file);
  const both = await cli("run", place.file, "nowhere.yaml");
  const json = await cli("run", place.file, "--json");

  const made = (name: string, rows: number) =>
    expect.stringMatching(new RegExp(`${name} +done +\\d{8}T\\d{6}Z-full(-\\d)? +${rows} +\\d.*B +\\d.*s$`));
  const titles = (...names: string[]) => expect.stringMatching(new RegExp(`^${names.join(" +")}$`));
  expect(last(run.stdout, 4)).toEqual([
    "",
    titles("job", "database", "outcome", "snapshot", "rows", "size", "duration"),
    made(shop.name, 2),
    made(crm.name, 1),
  ]);
  expect(last(verify.stdout, 3).map((line) => line.split(/ {2,}/))).toEqual(
    [
      ["database", "good", "not wholly read", "bad"],
      ...[crm.name, shop.name].sort().map((name) => [name, "1", "0", "0"]),
    ].map((line) => line.map((cell) => cell.trim())),
  );
  expect(last(prune.stdout, 3)).toEqual([
    ...[crm.name, shop.name].sort().map((name) => `${name}: 0 snapshots would be removed; nothing was, 1 kept`),
    "together: 0 snapshots would be removed; nothing was, 2 kept",
  ]);
  expect(last(failed.stdout, 2)).toEqual([made(shop.name, 2), expect.stringMatching(/missing +failed +-$/)]);
  expect(last(both.stdout, 1)).toEqual([expect.stringMatching(/^nowhere.yaml +- +failed +-$/)]);
  expect([failed.exitCode, both.exitCode]).toEqual([5, 5]);
  expect(json.stdout).not.toContain("outcome ");
});

test("a warning of a run says which database it is about", async () => {
  await using shop = await createDatabase(18, "create table t (i int); insert into t values (1)");
  await using crm = await createDatabase(18, "create table t (i int); insert into t values (2)");
  await writeJob(shop, crm.name);
  expect((await cli("run", place.file)).exitCode).toBe(0);
  await crm.query("truncate t");

  const run = await cli("run", place.file, "--json");
  const history = await cli("history", place.file);

  const warning = `${crm.name}: public.t shrank from 1 row to 0`;
  expect(run.exitCode).toBe(3);
  expect(run.last()["warnings"]).toEqual([warning]);
  expect(history.stdout).toContain(warning);
});
