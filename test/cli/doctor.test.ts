import { mkdir, readdir, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { Check } from "../../src/usecases/check.ts";
import { useCliPlace } from "../support/cli-place.ts";
import { createDatabase } from "../support/postgres.ts";

const place = useCliPlace();
const { cli } = place;

const SCHEMA = `
  create schema shop; create table shop.orders (id serial primary key); create table shop.secret (id int);
  insert into shop.orders select from generate_series(1, 3)`;

async function writeJob(url: string, more = "destinations: [{ type: local, path: ./backups }]"): Promise<void> {
  await writeFile(place.file, `version: 1\nname: shop\nsource: { url: "${url}" }\n${more}\n`);
}

async function doctor() {
  const result = await cli("doctor", place.file, "--json");
  const last = result.last() as { checks?: Check[]; grants?: { sql: string }[] };
  const byName = (name: string) => (last.checks ?? []).filter((check) => check.name === name);
  return { ...result, checks: last.checks ?? [], byName, sql: last.grants?.[0]?.sql ?? "" };
}

test("names what a login may not read, and the script that it prints is enough for a run", async () => {
  await using database = await createDatabase(18, SCHEMA);
  const user = `doctor_${database.name}`;
  await database.query(`create role ${user} login password 'canary-password'`);
  await writeJob(database.urlFor(user, "canary-password"));

  const before = await doctor();
  const statements = before.sql.split("\n").filter((line) => !line.startsWith("--"));
  await database.query(statements.join("\n"));
  const run = await cli("run", place.file);
  const after = await doctor();
  await database.query("create table shop.later (id int)");
  const later = await doctor();
  await database.query(`drop owned by ${user}; drop role ${user}`);

  expect(before.exitCode).toBe(5);
  expect(before.byName("select")).toMatchObject([
    { subject: database.name, status: "failed", message: expect.stringContaining("shop.orders, shop.secret") },
  ]);
  expect(before.byName("sequences")).toMatchObject([{ status: "failed" }]);
  expect(run.exitCode, run.stderr).toBe(0);
  expect(after.byName("select")).toMatchObject([{ status: "ok" }]);
  // Only that this login cannot know on which drive the database lies.
  expect(after.checks.filter(({ status }) => status !== "ok").map(({ name }) => name)).toEqual(["drive"]);
  expect(after.exitCode).toBe(3);
  expect(later.byName("select")).toMatchObject([{ status: "ok" }]);
  expect(before.stdout + after.stdout + before.stderr).not.toContain("canary-password");
});

test("grants the chosen tables only, and tells of row security", async () => {
  await using database = await createDatabase(
    15,
    `${SCHEMA}; alter table shop.orders enable row level security; alter table shop.orders force row level security`,
  );
  const user = `doctor_${database.name}`;
  await database.query(
    `create role ${user} login password 'pw'; grant usage on schema shop to ${user}; grant select on shop.orders to ${user}`,
  );
  await writeJob(
    database.urlFor(user, "pw"),
    "tables: { exclude: [shop.secret] }\ndestinations: [{ type: local, path: ./backups }]",
  );

  const found = await doctor();
  await database.query(`drop owned by ${user}; drop role ${user}`);

  expect(found.byName("select")).toMatchObject([{ status: "ok", message: "1 table can be read" }]);
  expect(found.byName("row security")).toMatchObject([
    { status: "failed", message: expect.stringContaining("shop.orders") },
  ]);
  expect(found.sql).toContain('GRANT SELECT ON TABLE "shop"."orders"');
  expect(found.sql).not.toContain("secret");
  expect(found.sql).toContain("BYPASSRLS");
});

test("leaves nothing at a destination, and counts what dead runs left without removing it", async () => {
  await using database = await createDatabase(18, SCHEMA);
  await writeJob(
    database.url,
    "destinations: [{ type: local, path: ./a, name: first }, { type: local, path: ./b, name: second }]",
  );
  const dead = join(place.folder, "a", "shop", database.name, "20260101T000000Z-full");
  await mkdir(dead, { recursive: true });
  for (const name of ["volume-0001.tar", "volume-0002.tar.x.in-progress"]) {
    await writeFile(join(dead, name), "x");
    await utimes(join(dead, name), 1, 1);
  }

  const found = await doctor();

  expect(found.byName("leftovers")).toMatchObject([
    { subject: "first", status: "warning", message: expect.stringMatching(/1 unfinished file and 1 object /) },
    { subject: "second", status: "ok" },
  ]);
  expect(found.byName("drive")).toContainEqual(
    expect.objectContaining({ subject: "second", status: "warning", message: expect.stringContaining("as first") }),
  );
  expect(await readdir(dead)).toHaveLength(2);
  expect(await readdir(join(place.folder, "b"))).toEqual([]);
  expect(found.exitCode).toBe(3);
});

test("goes on after a failure and ends with the first one's exit code", async () => {
  await writeFile(join(place.folder, "file"), "");
  await writeJob(
    "postgres://nobody:canary-password@127.0.0.1:1/none",
    'encryption: { recipients: ["age1wrong"] }\ndestinations: [{ type: local, path: ./file }, { type: local, path: ./good }]',
  );

  const found = await doctor();
  const people = await cli("doctor", place.file);

  expect(found.exitCode).toBe(2);
  expect(found.checks.filter(({ status }) => status === "failed").map(({ name }) => name)).toEqual([
    "encryption",
    "connection",
    "open",
  ]);
  expect(found.byName("write")).toMatchObject([{ status: "ok" }]);
  expect(people.exitCode).toBe(2);
  expect(people.stdout).toContain("nothing listens there");
  expect(people.stdout).not.toContain("canary-password");
});

test("tries the dr site, and names its field when a secret of it is missing", async () => {
  await using database = await createDatabase(18, "create table t (i int)");
  const destinations = "destinations: [{ type: local, path: ./backups }]";
  const drOf = (checks: readonly Check[]) => checks.filter(({ subject }) => subject === "dr");

  await using second = await createDatabase(18);
  await writeJob(database.url, `${destinations}\ndr: { url: "${second.url}" }`);
  const good = await doctor();
  await writeJob(database.url, `${destinations}\ndr: { url: "${database.url}" }`);
  const same = await doctor();
  await writeJob(database.url, `${destinations}\ndr: { url: "postgres://me:pw@127.0.0.1:1/shop" }`);
  const closed = await doctor();
  await writeJob(database.url, `${destinations}\ndr: { url: "\${env:NO_SUCH_URL}" }`);
  const unset = await doctor();
  await cli("run", place.file);
  const restore = await cli("restore", place.file, "--to", "dr", "--json");
  const compare = await cli("compare", place.file, "--json");

  expect(drOf(good.checks)).toMatchObject([{ name: "connection", status: "ok" }]);
  expect(drOf(same.checks)).toMatchObject([
    { status: "warning", message: `it is the same database as the primary, ${database.name}` },
  ]);
  expect(drOf(closed.checks)).toMatchObject([
    { status: "failed", message: expect.stringContaining("nothing listens") },
  ]);
  expect(closed.exitCode).toBe(5);
  const message = "cannot resolve dr.url: the environment has no NO_SUCH_URL";
  expect(drOf(unset.checks)).toMatchObject([{ status: "failed", message }]);
  expect([restore.last()["message"], compare.last()["message"]]).toEqual([message, message]);
});
