import { readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { sealJson } from "../../src/snapshot/sealed-json.ts";
import { runCli, runCliHere } from "../support/cli.ts";
import { useCliPlace } from "../support/cli-place.ts";
import { openSession } from "../support/other-session.ts";
import { createDatabase, type TestDatabase } from "../support/postgres.ts";

const place = useCliPlace();
const { cli } = place;

async function shop(): Promise<TestDatabase> {
  const database = await createDatabase(
    18,
    `create table people (id int primary key, v text); insert into people values (1, 'snapshot');
     create table orders (id int primary key, person int references people); insert into orders values (1, 1)`,
  );
  await writeJob(database);
  expect((await cli("run", place.file)).exitCode).toBe(0);
  return database;
}

async function writeJob({ url }: Pick<TestDatabase, "url">, more = ""): Promise<void> {
  await writeFile(
    place.file,
    `version: 1\nname: shop\nsource: { url: "${url}" }\ndestinations: [{ type: local, path: ./backups }]\n${more}\n`,
  );
}

/** Restores in a process that is killed when the query gives `t`. */
async function restoreUntil(database: TestDatabase, condition: string): Promise<void> {
  await killWhen(database, condition, ["restore", place.file, "latest", "--tables", "people", "--yes"]);
}

async function killWhen(database: TestDatabase, condition: string, args: readonly string[]): Promise<void> {
  const killed = await runCli(args, {
    home: place.home,
    cwd: place.folder,
    during: (child) => {
      void expect
        .poll(() => database.query(`select ${condition}`), { timeout: 30_000 })
        .toEqual([["t"]])
        .finally(() => child.kill("SIGKILL"));
    },
  });
  expect(killed.signal).toBe("SIGKILL");
}

const WAITS = `exists (select from pg_stat_activity where application_name = 'rowkeep restore'
  and wait_event_type = 'Lock' and datname = current_database())`;

type Fields = Readonly<Record<string, unknown>>;

async function changeManifest({ name }: TestDatabase, id: string, change: (manifest: Fields) => Fields): Promise<void> {
  const path = join(place.folder, "backups", "shop", name, id, "manifest.json");
  const { sha256: _seal, ...manifest } = JSON.parse(await readFile(path, "utf8")) as Fields;
  await writeFile(path, sealJson({ ...manifest, ...change(manifest) }));
}

/** How many sessions wait for a lock. */
const WAITING = `select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`;

describe("rowkeep undo", () => {
  test("names what restore can be told to do where the tables have changed since", async () => {
    await using database = await shop();
    await cli("restore", place.file, "--tables", "orders", "--yes");
    await database.query("alter table orders drop column person");

    const undo = await cli("undo", place.file, "--yes", "--json");

    expect([undo.exitCode, undo.last()["code"]]).toEqual([9, "drift"]);
    expect(undo.last()["hint"]).toMatch(/^rowkeep restore shop \S+ puts these rows back, too/);
  });

  test("passes over a restore that was killed before its COMMIT: it replaced nothing", async () => {
    await using database = await shop();
    await database.query("update people set v = 'first'");
    const done = await cli("restore", place.file, "latest", "--tables", "people", "--yes");
    await database.query("update people set v = 'second'");
    await using reader = await openSession(database.url);
    // Who reads keeps the restore from taking the foreign key off, when it has its safety snapshot.
    await reader.query("begin; select from orders");
    await restoreUntil(database, WAITS);
    await reader.query("commit");
    await database.query("update people set v = 'work of two weeks'");

    const undo = await cli("undo", place.file, "--yes");
    const again = await cli("undo", place.file, "--yes", "--json");

    expect([done.exitCode, undo.exitCode]).toEqual([0, 0]);
    expect(await database.query("select v from people")).toEqual([["first"]]);
    expect(again.last()).toMatchObject({ code: "nothing-to-undo" });
  });

  test("has nothing to undo when the only restore was killed before its COMMIT", async () => {
    await using database = await shop();
    await using reader = await openSession(database.url);
    await reader.query("begin; select from orders");
    await restoreUntil(database, WAITS);
    await reader.query("commit");

    const undo = await cli("undo", place.file, "--yes", "--json");

    expect(undo.exitCode).toBe(2);
    expect(undo.last()).toMatchObject({
      code: "nothing-to-undo",
      message: expect.stringContaining("no restore that was committed has left a safety snapshot"),
    });
  });

  test("puts back what a restore replaced that was killed just after its COMMIT", async () => {
    await using database = await shop();
    await database.query(
      "create materialized view slow as select v, pg_sleep(2)::text from people; update people set v = 'before'",
    );
    await restoreUntil(database, "exists (select from people where v = 'snapshot')");

    const undo = await cli("undo", place.file, "--yes");

    expect(undo.exitCode).toBe(0);
    expect(await database.query("select v from people")).toEqual([["before"]]);
  });

  test("says that it does not know what became of the restore where the server cannot tell", async () => {
    await using database = await shop();
    await using elsewhere = await createDatabase(15);
    await cli("restore", place.file, "latest", "--tables", "people", "--yes");
    // The job's address leads to another server now, which has a database of this name.
    await elsewhere.query(`create database ${database.name}`);
    const moved = new URL(elsewhere.url);
    moved.pathname = `/${database.name}`;
    await writeJob({ url: moved.href });

    const undo = await cli("undo", place.file, "--yes");
    await elsewhere.query(`drop database ${database.name} with (force)`);

    expect(undo.exitCode).toBe(9);
    expect(undo.stderr).toMatch(/was committed is not known: only .* can tell/);
    expect(await database.query("select v from people")).toEqual([["snapshot"]]);
  });

  test("puts back the last restore of the database that --to names, not a later one of another", async () => {
    await using database = await shop();
    await using dr = await createDatabase(18, "create table people (id int primary key, v text)");
    await writeJob(database, `dr: { url: "${dr.url}" }`);
    await database.query("update people set v = 'primary'");
    await dr.query("insert into people values (2, 'dr')");
    const restored = ["restore", place.file, "latest", "--tables", "people", "--yes"];
    await cli(...restored);
    await cli(...restored, "--to", "dr");

    const primary = await cli("undo", place.file, "--to", "primary", "--yes");
    const again = await cli("undo", place.file, "--to", database.url, "--yes", "--json");
    const ofDr = await cli("undo", place.file, "--yes");

    expect([primary.exitCode, ofDr.exitCode], primary.stderr).toEqual([0, 0]);
    expect(again.last()).toMatchObject({
      code: "nothing-to-undo",
      message: expect.stringContaining("it was undone at"),
    });
    expect(await database.query("select v from people")).toEqual([["primary"]]);
    expect(await dr.query("select v from people")).toEqual([["dr"]]);
  });

  test("puts nothing into a database that no restore has written to", async () => {
    await using database = await shop();
    await using other = await createDatabase(18, "create table people (id int primary key, v text)");
    await cli("restore", place.file, "latest", "--tables", "people", "--yes");
    await other.query("insert into people values (1, 'other')");

    const undo = await cli("undo", place.file, "--to", other.url, "--yes", "--json");

    expect(undo.exitCode).toBe(2);
    expect(undo.last()).toMatchObject({
      code: "nothing-to-undo",
      message: expect.stringContaining(`no restore into ${other.name} at`),
    });
    expect([await database.query("select v from people"), await other.query("select v from people")]).toEqual([
      [["snapshot"]],
      [["other"]],
    ]);
  });

  test("is refused when somebody restored again before it got its locks", async () => {
    await using database = await shop();
    await database.query("update people set v = 'first'; create table notes (id int)");
    await cli("run", place.file);
    await cli("restore", place.file, "latest", "--tables", "people", "--yes");
    await using writer = await openSession(database.url);
    await writer.query("begin; update people set v = 'work' where id = 1");

    const waiting = cli("undo", place.file, "--yes", "--json");
    await expect.poll(() => database.query(`select ${WAITS}`), { timeout: 30_000 }).toEqual([["t"]]);
    const meanwhile = await cli("restore", place.file, "latest", "--tables", "notes", "--yes");
    await writer.query("commit");
    const undo = await waiting;

    expect([meanwhile.exitCode, undo.exitCode]).toEqual([0, 9]);
    expect(undo.last()).toMatchObject({
      code: "restored-meanwhile",
      message: expect.stringContaining("another one meanwhile"),
    });
    expect(await database.query("select v from people")).toEqual([["work"]]);
  });

  test("is refused after a restore without a safety snapshot, and names the one of the restore before", async () => {
    await using database = await shop();
    await database.query("update people set v = 'first'");
    const kept = await cli("restore", place.file, "latest", "--tables", "people", "--yes", "--json");
    const unkept = await cli("restore", place.file, "latest", "--tables", "orders", "--yes", "--no-safety");
    const id = String(kept.last()["safetySnapshot"]);

    const undo = await cli("undo", place.file, "--yes", "--json");
    const restored = await cli("restore", place.file, id, "--yes", "--json");
    const undone = await cli("undo", place.file, "--yes");

    expect([kept.exitCode, unkept.exitCode, undo.exitCode]).toEqual([0, 0, 2]);
    expect(undo.last()).toMatchObject({
      code: "nothing-to-undo",
      message: expect.stringContaining("it took no safety snapshot"),
      hint: expect.stringContaining(`rowkeep restore shop ${id} `),
    });
    expect([restored.exitCode, undone.exitCode]).toEqual([0, 0]);
    expect(await database.query("select v from people")).toEqual([["snapshot"]]);
  });

  test("is refused where nobody is asked and a destination did not answer: the last one may be there", async () => {
    await using database = await shop();
    const job = (await readFile(place.file, "utf8")).replace(
      "./backups }",
      "./backups }, { type: local, path: ./far }",
    );
    await writeFile(place.file, job);
    await database.query("update people set v = 'first'");
    await cli("restore", place.file, "latest", "--tables", "people", "--yes");
    await rm(join(place.folder, "far"), { recursive: true });
    await writeFile(join(place.folder, "far"), "a drive that is away");

    const unasked = await cli("undo", place.file, "--json");
    const undo = await cli("undo", place.file, "--yes", "--json");
    const plan = await cli("undo", place.file, "--plan", "--json");
    const before = await database.query("select v from people");
    const restored = await cli("restore", place.file, String(plan.last()["snapshot"]), "--yes");

    for (const { exitCode, last } of [unasked, undo]) {
      expect(exitCode).toBe(9);
      expect(last()).toMatchObject({
        code: "needs-confirmation",
        message: expect.stringMatching(/the newest safety snapshot may be at \S+far, which was not read: /),
        hint: expect.stringContaining(`rowkeep restore shop ${String(plan.last()["snapshot"])}`),
      });
    }
    expect([plan.exitCode, restored.exitCode]).toEqual([3, 3]);
    expect(before).toEqual([["snapshot"]]);
    expect(await database.query("select v from people")).toEqual([["first"]]);
  });

  test("is refused where nobody is asked and a newer manifest is damaged: it may be of the last restore", async () => {
    await using database = await shop();
    const restore = async (value: string) => {
      await database.query(`update people set v = '${value}'`);
      const { last } = await cli("restore", place.file, "latest", "--tables", "people", "--yes", "--json");
      return String(last()["safetySnapshot"]);
    };
    const older = await restore("first");
    const newer = await restore("second");
    await changeManifest(database, newer, () => ({ tables: "rotten" }));
    await database.query("update people set v = 'since'");

    const undo = await cli("undo", place.file, "--yes", "--json");
    const plan = await cli("undo", place.file, "--plan", "--json");
    const before = await database.query("select v from people");
    await changeManifest(database, older, () => ({ tables: "rotten" }));
    const lost = await cli("undo", place.file, "--yes", "--json");

    expect([undo.exitCode, plan.exitCode, lost.exitCode]).toEqual([9, 0, 7]);
    expect(undo.last()).toMatchObject({ code: "needs-confirmation", hint: expect.stringContaining(older) });
    expect(plan.last()).toMatchObject({ warnings: [expect.stringContaining(newer)] });
    expect(lost.last()["message"]).toMatch(/no restore has left a safety snapshot where rowkeep could look/);
    expect(before).toEqual([["since"]]);
  });

  test("is not refused after a restore without a safety snapshot that failed", async () => {
    await using database = await shop();
    await database.query("update people set v = 'first'");
    await cli("restore", place.file, "latest", "--tables", "people", "--yes");
    await database.query("update orders set id = 2; alter table orders add constraint c check (id > 1)");
    const failed = await cli("restore", place.file, "latest", "--tables", "orders", "--yes", "--no-safety");

    const undo = await cli("undo", place.file, "--yes");

    expect([failed.exitCode, undo.exitCode], undo.stderr).toEqual([5, 0]);
    expect(await database.query("select v from people")).toEqual([["first"]]);
  });

  test("puts rows back once when two wait for the same lock, and keeps what was written in between", async () => {
    await using database = await shop();
    await database.query(
      "create materialized view slow as select v, pg_sleep(1)::text from people; update people set v = 'before'",
    );
    await cli("restore", place.file, "latest", "--tables", "people", "--yes");
    await using holder = await openSession(database.url);
    await holder.query("begin; update people set v = 'held'");
    const waiting = (count: number) => expect.poll(() => database.query(WAITING)).toEqual([[String(count)]]);

    const first = cli("undo", place.file, "--yes");
    await waiting(1);
    const written = database.query("insert into people values (2, 'work')");
    await waiting(2);
    const second = cli("undo", place.file, "--yes", "--json");
    await waiting(3);
    await holder.query("rollback");
    const [done, again] = await Promise.all([first, second, written]);

    expect([done.exitCode, again.exitCode]).toEqual([0, 2]);
    expect(again.last()).toMatchObject({ code: "nothing-to-undo" });
    expect(await database.query("select v from people order by id")).toEqual([["before"], ["work"]]);
  });

  test("has nothing to undo after an undo that was killed just after its COMMIT", async () => {
    await using database = await shop();
    await database.query(
      "create materialized view slow as select v, pg_sleep(1)::text from people; update people set v = 'before'",
    );
    await cli("restore", place.file, "latest", "--tables", "people", "--yes");
    await killWhen(database, "exists (select from people where v = 'before')", ["undo", place.file, "--yes"]);
    await database.query("update people set v = 'work'");

    const again = await cli("undo", place.file, "--yes", "--json");

    expect(again.exitCode).toBe(2);
    expect(again.last()).toMatchObject({ code: "nothing-to-undo" });
    expect(await database.query("select v from people")).toEqual([["work"]]);
  });

  test("puts rows back after an undo that was killed before its COMMIT", async () => {
    await using database = await shop();
    await database.query("update people set v = 'before'");
    await cli("restore", place.file, "latest", "--tables", "people", "--yes");
    await using reader = await openSession(database.url);
    await reader.query("begin; select from orders");
    await killWhen(database, WAITS, ["undo", place.file, "--yes"]);
    await reader.query("commit");

    const again = await cli("undo", place.file, "--yes");

    expect(again.exitCode, again.stderr).toBe(0);
    expect(await database.query("select v from people")).toEqual([["before"]]);
  });

  test("is refused where nobody is asked and the server has forgotten whether the restore was committed", async () => {
    await using database = await shop();
    await database.query("update people set v = 'before'");
    const kept = await cli("restore", place.file, "latest", "--tables", "people", "--yes", "--json");
    const id = String(kept.last()["safetySnapshot"]);
    // What the server cannot know is what it answers for one that it has forgotten.
    await changeManifest(database, id, ({ safetyOf }) => ({
      safetyOf: { ...(safetyOf as object), transaction: "999999999999" },
    }));

    const undo = await cli("undo", place.file, "--yes", "--json");
    const plan = await cli("undo", place.file, "--plan", "--json");
    const before = await database.query("select v from people");
    const restored = await cli("restore", place.file, id, "--yes");

    expect([undo.exitCode, plan.exitCode, restored.exitCode]).toEqual([9, 0, 0]);
    expect(undo.last()).toMatchObject({
      code: "needs-confirmation",
      message: expect.stringMatching(/^cannot undo the last restore of shop: whether .* was committed is not known/),
      hint: expect.stringContaining(`rowkeep restore shop ${id}`),
    });
    expect(before).toEqual([["snapshot"]]);
    expect(await database.query("select v from people")).toEqual([["before"]]);
  });

  test("is refused where nobody is asked and a clock was set back between two restores", async () => {
    await using database = await shop();
    const restored = ["restore", place.file, "latest", "--tables", "people", "--yes", "--json"];
    await database.query("update people set v = 'first'");
    const first = String((await cli(...restored)).last()["safetySnapshot"]);
    const ahead = "20991231T235959Z-full";
    await changeManifest(database, first, () => ({ id: ahead, createdAt: "2099-12-31T23:59:59.000Z" }));
    const folder = join(place.folder, "backups", "shop", database.name);
    await rename(join(folder, first), join(folder, ahead));
    await database.query("update people set v = 'second'");
    const second = String((await cli(...restored)).last()["safetySnapshot"]);

    const undo = await cli("undo", place.file, "--yes", "--json");

    expect(undo.exitCode).toBe(9);
    expect(undo.last()).toMatchObject({
      code: "needs-confirmation",
      message: expect.stringContaining(`${ahead} or ${second}`),
    });
    expect(await database.query("select v from people")).toEqual([["snapshot"]]);
  });
});

test("a run during a restore takes the old rows of all its tables, never a mixture", async () => {
  await using database = await createDatabase(
    18,
    `create function slow(v text) returns boolean language plpgsql as $$ begin
       if v = 'old' and current_setting('application_name') = 'rowkeep restore' then perform pg_sleep(2); end if;
       return true; end $$;
     create table a (v text); insert into a values ('old'); create table b (v text check (slow(v))); insert into b values ('old')`,
  );
  await writeJob(database);
  await cli("run", place.file);
  await database.query("update a set v = 'new'; update b set v = 'new'");
  const elsewhere = { home: join(place.folder, "elsewhere"), cwd: place.folder };

  const restoring = cli("restore", place.file, "latest", "--yes");
  const sleeping = `select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()`;
  await expect.poll(() => database.query(sleeping), { timeout: 20_000 }).toEqual([["1"]]);
  const run = await runCliHere(["run", place.file], elsewhere);
  const stillRestoring = await database.query(sleeping);
  const restored = await restoring;
  const rows = [];
  for (const table of ["a", "b"]) rows.push((await cli("cat", place.file, "latest", table)).stdout.trim());

  expect([run.exitCode, restored.exitCode, stillRestoring]).toEqual([0, 0, [["1"]]]);
  expect(rows).toEqual(["new", "new"]);
  expect(await database.query("select v from a union all select v from b")).toEqual([["old"], ["old"]]);
});
