import { writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { runCli } from "../support/cli.ts";
import { useCliPlace } from "../support/cli-place.ts";
import { createDatabase, createDatabaseOn, type TestDatabase } from "../support/postgres.ts";
import { type PostgresServer, startPostgres } from "../support/postgres-server.ts";

const place = useCliPlace();
const { cli } = place;

/** A job with one snapshot, whose login may create databases and nothing else that matters. */
async function shop(server?: PostgresServer): Promise<TestDatabase & { readonly user: string }> {
  const rows =
    "create table orders (id int primary key, v text); insert into orders select i, 'v' || i from generate_series(1, 20000) i";
  const database = await (server ? createDatabaseOn(server.url, rows) : createDatabase(18, rows));
  const user = `shop_${database.name}`;
  await database.query(
    `create role ${user} login password 'pw' createdb; grant select on all tables in schema public to ${user}`,
  );
  const url = database.urlFor(user, "pw");
  await writeFile(
    place.file,
    `version: 1\nname: shop\nsource: { url: "${url}" }\nfiles: [${place.file}]\ndestinations: [{ type: local, path: ./backups }]\n`,
  );
  expect((await cli("run", place.file)).exitCode).toBe(0);
  return {
    ...database,
    user,
    async [Symbol.asyncDispose]() {
      await database.query(`drop owned by ${user}`);
      for (const name of await scratches(database, user)) await database.query(`drop database ${name} with (force)`);
      await database.query(`drop role ${user}`);
      await database[Symbol.asyncDispose]();
    },
  };
}

async function scratches(database: TestDatabase, user: string): Promise<readonly string[]> {
  const rows = await database.query(
    "select datname from pg_database where datname like 'rowkeep_drill_%' and pg_get_userbyid(datdba) = $1",
    [user],
  );
  return rows.map(([name]) => name ?? "");
}

test("a drill is told by its result, by list and by the history, and is no run of the job", async () => {
  await using _database = await shop();

  const drill = await cli("verify", place.file, "--drill", "--json");
  const list = await cli("list", place.file, "--json");
  const people = await cli("list", place.file);
  const history = await cli("history", place.file, "--json");

  expect(drill.exitCode, drill.stderr + drill.stdout).toBe(0);
  expect(drill.last()).toMatchObject({
    type: "result",
    ok: true,
    snapshots: [{ ok: true, rows: 20000, problems: [], drilledAt: expect.any(String) }],
    warnings: [],
  });
  const [drilled] = drill.last()["snapshots"] as { drilledAt: string }[];
  expect(list.last()).toMatchObject({ snapshots: [{ drilledAt: drilled?.drilledAt }] });
  expect(people.stdout).toContain("drilled 20");
  expect(history.last()).toMatchObject({
    runs: [
      { kind: "drill", outcome: "success", snapshot: expect.stringMatching(/-full$/) },
      { kind: "full", outcome: "success" },
    ],
  });
});

test("what a killed drill left is dropped by the next one; Ctrl-C leaves nothing", async () => {
  // Drills of other tests would drop it.
  await using server = await startPostgres(18);
  await using database = await shop(server);
  const at = (phase: string, signal: NodeJS.Signals) =>
    runCli(["verify", place.file, "--drill"], {
      home: place.home,
      during: (child) =>
        child.stderr?.on("data", (text: string) => {
          if (text.includes(phase)) child.kill(signal);
        }),
    });

  const interrupted = await at("creating definitions", "SIGINT");
  const afterInterrupt = await scratches(database, database.user);
  const killed = await at("creating definitions", "SIGKILL");
  const afterKill = await scratches(database, database.user);
  // The server needs a moment to see that the sessions of the killed process are gone.
  for (let turn = 0; turn < 100 && (await sessionsOf(database)) > 0; turn += 1)
    await new Promise((r) => setTimeout(r, 50));
  const next = await cli("verify", place.file, "--drill", "--json");

  expect(interrupted.exitCode).toBe(130);
  expect(afterInterrupt).toEqual([]);
  expect(killed.signal).toBe("SIGKILL");
  expect(afterKill).toHaveLength(1);
  expect(next.exitCode).toBe(3);
  expect(next.last()).toMatchObject({ ok: true, warnings: [expect.stringContaining(`${afterKill[0]}, left behind`)] });
  expect(await scratches(database, database.user)).toEqual([]);
});

async function sessionsOf(database: TestDatabase & { readonly user: string }): Promise<number> {
  const [row] = await database.query("select count(*) from pg_stat_activity where usename = $1", [database.user]);
  return Number(row?.[0]);
}

test("refuses what a drill cannot be asked for", async () => {
  await using database = await shop();
  await database.query(`alter role ${database.user} nocreatedb`);

  const sampled = await cli("verify", place.file, "--drill", "--sample", "5%", "--json");
  const alone = await cli("verify", place.file, "--drill-url", "postgres://nobody@localhost/x", "--json");
  const denied = await cli("verify", place.file, "--drill", "--json");

  expect(sampled.last()).toMatchObject({ code: "not-with-drill", exitCode: 2 });
  expect(alone.last()).toMatchObject({ code: "needs-drill", exitCode: 2 });
  expect(denied.last()).toMatchObject({ code: "denied", exitCode: 5, hint: expect.stringContaining("CREATEDB") });
});
