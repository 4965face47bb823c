import { execFileSync } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { generateKeyPair } from "../../src/archive/age-keys.ts";
import { runCliHere } from "../support/cli.ts";
import { createDatabase, type TestDatabase } from "../support/postgres.ts";
import { untilAlone } from "../support/until-alone.ts";

let folder: string;
let home: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  home = join(folder, "home");
});

afterEach(() => rm(folder, { recursive: true, force: true }));

const cli = (...args: string[]) => runCliHere(args, { home, cwd: folder });

async function writeJob(url: string, more = "", paths: readonly string[] = ["./backups"]): Promise<string> {
  const file = join(folder, "shop.yaml");
  const destinations = paths.map((path) => `{ type: local, path: ${path} }`).join(", ");
  await writeFile(file, `version: 1\nname: shop\nsource: { url: "${url}" }\ndestinations: [${destinations}]\n${more}`);
  return file;
}

async function shop(): Promise<TestDatabase> {
  const database = await createDatabase(
    18,
    `create table t (id int primary key, v text); insert into t select i, repeat(md5(i::text), 9) from generate_series(1, 20000) i;
     create table still (i int); insert into still values (1)`,
  );
  await untilAlone(database);
  return database;
}

const change = (database: TestDatabase) =>
  database.query("update t set v = 'changed' where id % 500 = 0; delete from t where id = 7");

async function madeBy(run: Promise<{ exitCode: number | null; last: () => Record<string, unknown> }>) {
  const { exitCode, last } = await run;
  const [snapshot] = (last()["snapshots"] ?? []) as Record<string, unknown>[];
  return { exitCode, snapshot: snapshot ?? {}, warnings: last()["warnings"] };
}

const rowsOf = (database: TestDatabase) => database.query("select * from t order by id");

test("an incremental without a snapshot to build on becomes a full and says so; the next one stores what changed", async () => {
  await using database = await shop();
  const file = await writeJob(database.url, 'schedule: { full: "0 2 * * sun", incremental: "0 * * * *" }');

  const first = await madeBy(cli("run", file, "--incremental", "--json"));
  await change(database);
  const second = await madeBy(cli("run", file, "--incremental", "--json"));

  expect(first).toMatchObject({
    exitCode: 0,
    snapshot: { kind: "full", reason: expect.stringContaining("no earlier") },
  });
  expect(second).toMatchObject({ exitCode: 0, snapshot: { kind: "incremental", rows: 20_000 } });
  expect(Number(second.snapshot["storedBytes"]) * 10).toBeLessThan(Number(first.snapshot["storedBytes"]));
  const show = await cli("show", file, "latest", "--json");
  expect(show.last()["tables"]).toMatchObject([
    { name: "t", method: "delta" },
    { name: "still", method: "unchanged" },
  ]);
  expect(show.last()["snapshot"]).toMatchObject({ references: [first.snapshot["id"]] });
  expect((await cli("verify", file, "--json")).exitCode).toBe(0);
  const history = await cli("history", file, "--json");
  expect(history.last()["runs"]).toMatchObject([{ kind: "incremental" }, { kind: "full" }]);
});

test("an incremental restores in place and into an empty database", async () => {
  await using database = await shop();
  await using other = await createDatabase(18);
  const file = await writeJob(database.url);
  await cli("run", file, "--incremental");
  await change(database);
  const rows = await rowsOf(database);
  await cli("run", file, "--incremental");
  await database.query("delete from t where id < 9000; update t set v = 'lost'");

  const inPlace = await cli("restore", file, "--yes", "--json");
  const created = await cli("restore", file, "--to", other.url, "--create", "--yes", "--json");

  expect([inPlace.exitCode, created.exitCode]).toEqual([0, 0]);
  expect(await rowsOf(database)).toEqual(rows);
  expect(await rowsOf(other)).toEqual(rows);
});

test("verify finds damage in the snapshot that an incremental refers to", async () => {
  await using database = await shop();
  const file = await writeJob(database.url);
  const first = await madeBy(cli("run", file, "--incremental", "--json"));
  await change(database);
  await cli("run", file, "--incremental");
  const path = join(folder, "backups", "shop", database.name, String(first.snapshot["id"]), "volume-0001.tar");
  const bytes = await readFile(path);
  bytes[Math.floor(bytes.length / 2)] = (bytes[Math.floor(bytes.length / 2)] ?? 0) ^ 1;
  await writeFile(path, bytes);

  const { exitCode, last } = await cli("verify", file, "latest", "--json");

  expect(exitCode).toBe(7);
  expect(JSON.stringify(last()["snapshots"])).toContain(`${String(first.snapshot["id"])}/volume-0001.tar`);
});

test("a destination that lacks the base makes the next one a full, and a damaged base is none", async () => {
  await using database = await shop();
  await cli("run", await writeJob(database.url), "--incremental");
  const file = await writeJob(database.url, "", ["./backups", "./second"]);

  const full = await madeBy(cli("run", file, "--incremental", "--json"));
  const id = String(full.snapshot["id"]);
  await truncate(join(folder, "second", "shop", database.name, id, "volume-0001.tar"), 1024);
  const again = await madeBy(cli("run", file, "--incremental", "--json"));

  expect(full.snapshot).toMatchObject({ kind: "full", reason: expect.stringContaining("every destination") });
  expect(again.snapshot).toMatchObject({
    kind: "full",
    reason: expect.stringContaining("is damaged or lacks volumes"),
  });
});

test("a machine with the public key alone makes incrementals that the secret key restores", async () => {
  await using database = await shop();
  const { identity, recipient } = await generateKeyPair();
  await writeFile(join(folder, "identity.txt"), `${identity}\n`, { mode: 0o600 });
  const file = await writeJob(database.url, `encryption: { recipients: ["${recipient}"] }`);
  await cli("run", file, "--incremental");
  await change(database);
  const second = await madeBy(cli("run", file, "--incremental", "--json"));
  await database.query("update t set v = 'again' where id = 3");
  const rows = await rowsOf(database);

  const third = await madeBy(cli("run", file, "--incremental", "--json"));

  expect([second.snapshot["kind"], third.snapshot["kind"]]).toEqual(["incremental", "incremental"]);
  await database.query("delete from t");
  const restored = await cli("restore", file, "--yes", "--no-safety", "--identity", "identity.txt", "--json");
  expect(restored.exitCode).toBe(0);
  expect(await rowsOf(database)).toEqual(rows);
  expect((await cli("verify", file, "--identity", "identity.txt", "--json")).exitCode).toBe(0);
});

test.each(["", "encrypted"])("a retention keeps what kept incrementals refer to, and no longer (%s)", async (how) => {
  await using database = await shop();
  const { recipient } = await generateKeyPair();
  const encryption = how ? `encryption: { recipients: ["${recipient}"] }\n` : "";
  const file = await writeJob(database.url, `${encryption}retention: { keepLast: 1 }\n`);
  const runAs = async (kind: string) => String((await madeBy(cli("run", file, kind, "--json"))).snapshot["id"]);
  const stored = () => readdir(join(folder, "backups", "shop", database.name));
  const full = await runAs("--incremental");
  await change(database);
  const first = await runAs("--incremental");
  await database.query("update t set v = 'again' where id % 500 = 0");
  const second = await runAs("--incremental");

  const kept = await stored();
  const next = await runAs("--full");

  expect([first, second].map((id) => id.split("-")[1])).toEqual(["incremental", "incremental"]);
  expect(kept).toContain(full);
  expect(kept).toContain(second);
  expect(await stored()).toEqual([next]);
});

test("cat, diff, compare and a drill see an encrypted incremental without the rows that are gone", async () => {
  await using database = await shop();
  const { identity, recipient } = await generateKeyPair();
  await writeFile(join(folder, "identity.txt"), `${identity}\n`, { mode: 0o600 });
  const file = await writeJob(database.url, `encryption: { recipients: ["${recipient}"] }`);
  const first = await madeBy(cli("run", file, "--incremental", "--json"));
  await change(database);
  const second = await madeBy(cli("run", file, "--incremental", "--json"));
  const open = ["--identity", "identity.txt"];
  const [from, to] = [String(first.snapshot["id"]), String(second.snapshot["id"])];

  const cat = await cli("cat", file, to, "t", "--where", "id in (6, 7)", "--columns", "id", ...open);
  const compared = await cli("compare", file, "--with", to, "--json", ...open);
  const diff = await cli("diff", file, from, to, "--rows", "--json", ...open);
  const drill = await cli("verify", file, to, "--drill", "--json", ...open);

  expect(second.snapshot).toMatchObject({ kind: "incremental", rows: 20_000 });
  expect(cat.stdout.trim().split("\n")).toEqual(["6"]);
  expect([compared.exitCode, compared.last()]).toMatchObject([0, { equal: true }]);
  const [table] = (diff.last()["tables"] as { name: string; differences: unknown[] }[]).filter(
    ({ name }) => name === "t",
  );
  expect(table?.differences).toContainEqual(expect.objectContaining({ key: { id: "7" }, kind: "onlyLeft" }));
  expect([drill.exitCode, drill.last()]).toMatchObject([0, { snapshots: [{ ok: true, rows: 20_000, problems: [] }] }]);
});

test("a machine that can open nothing and remembers nothing makes a full, as does a job with other keys", async () => {
  await using database = await shop();
  const [one, other] = [await generateKeyPair(), await generateKeyPair()];
  const file = await writeJob(database.url, `encryption: { recipients: ["${one.recipient}"] }`);
  await cli("run", file, "--incremental");
  await writeJob(database.url, `encryption: { recipients: ["${other.recipient}"] }`);
  const rotated = await madeBy(cli("run", file, "--incremental", "--json"));
  await rm(join(home, "state", "bases"), { recursive: true });

  const forgotten = await madeBy(cli("run", file, "--incremental", "--json"));

  expect(rotated.snapshot).toMatchObject({ kind: "full", reason: expect.stringContaining("other keys") });
  expect(forgotten.snapshot).toMatchObject({ kind: "full", reason: expect.stringContaining("no key") });
  expect((await readdir(join(home, "state", "bases", "shop", database.name))).length).toBe(1);
});

test("an incremental is recovered by the commands of its RECOVER.md alone", async () => {
  await using database = await shop();
  await using other = await createDatabase(18);
  const file = await writeJob(database.url);
  await cli("run", file, "--incremental");
  await change(database);
  const { snapshot } = await madeBy(cli("run", file, "--incremental", "--json"));
  const cwd = join(folder, "backups", "shop", database.name, String(snapshot["id"]));
  execFileSync("tar", ["-xf", "volume-0001.tar", "RECOVER.md"], { cwd });
  // Without the step that looks at stored files: there are none.
  const [text = ""] = (await readFile(join(cwd, "RECOVER.md"), "utf8")).split("## 5.");
  const lines = text.split("\n").filter((line) => line.startsWith("    "));
  await writeFile(join(cwd, "commands.sh"), `set -eu\n${lines.map((line) => line.slice(4)).join("\n")}\n`);
  const url = new URL(other.url);

  execFileSync("sh", ["commands.sh"], {
    cwd,
    env: {
      PATH: process.env["PATH"],
      PGHOST: url.hostname,
      PGPORT: url.port,
      PGUSER: url.username,
      PGPASSWORD: url.password,
      PGDATABASE: other.name,
    },
  });

  expect(await rowsOf(other)).toEqual(await rowsOf(database));
});

test("where row headers prove nothing every table is read, and only what changed is stored", async () => {
  await using database = await shop();
  await database.query(
    `create role reader_${database.name} login password 'pw'; grant select on all tables in schema public to reader_${database.name};
     revoke execute on function pg_control_system() from public`,
  );
  const file = await writeJob(database.urlFor(`reader_${database.name}`, "pw"));
  const first = await madeBy(cli("run", file, "--incremental", "--json"));
  await database.query("update still set i = 2");

  const second = await madeBy(cli("run", file, "--incremental", "--json"));

  const show = await cli("show", file, "latest", "--json");
  expect(second.snapshot).toMatchObject({ kind: "incremental", rows: 20_001 });
  expect(Number(second.snapshot["storedBytes"]) * 10).toBeLessThan(Number(first.snapshot["storedBytes"]));
  const why = "this login may not read pg_control_system(); it was read again, and";
  expect(show.last()["tables"]).toMatchObject([
    { name: "t", method: "full", reason: expect.stringContaining(`${why} 0 of its`) as string },
    { name: "still", method: "full", reason: `${why} 1 of its 1 chunk changed` },
  ]);
  await using other = await createDatabase(18);
  await cli("restore", file, "--to", other.url, "--create", "--yes");
  expect(await rowsOf(other)).toEqual(await rowsOf(database));
});

test("--server-hash is for incrementals only", async () => {
  await using database = await shop();
  const file = await writeJob(database.url);
  await cli("run", file, "--incremental");
  await change(database);

  const made = await madeBy(cli("run", file, "--incremental", "--server-hash", "--json"));
  const refused = await cli("run", file, "--server-hash", "--json");

  expect(made).toMatchObject({ exitCode: 0, snapshot: { kind: "incremental" } });
  expect(refused.exitCode).toBe(2);
  expect(refused.last()).toMatchObject({ type: "error", code: "no-incremental" });
});

test("what is carried over of a full that is mostly dead is told by run and show, and the full goes", async () => {
  await using database = await shop();
  await database.query("create table alive as select i, md5(i::text) from generate_series(1, 2000) i");
  const file = await writeJob(database.url, "retention: { keepLast: 1 }\n");
  const first = await madeBy(cli("run", file, "--incremental", "--json"));
  await database.query("update t set v = ''");
  await cli("run", file, "--incremental", "--json");

  const told = await cli("run", file, "--incremental");
  const shown = await cli("show", file, "latest");
  const json = await cli("show", file, "latest", "--json");
  const listed = await cli("list", file, "--json");

  const id = String(first.snapshot["id"]);
  expect(told.stdout).toMatch(new RegExp(`carried over: .* of ${id}`));
  expect(shown.stdout).toMatch(new RegExp(`carried over +.* of ${id}`));
  expect(json.last()["snapshot"]).toMatchObject({
    carriedOver: { from: expect.arrayContaining([id]) },
  });
  expect(listed.last()["snapshots"]).toMatchObject([{ kind: "incremental" }]);
});
