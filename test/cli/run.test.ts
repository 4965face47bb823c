import { execFileSync } from "node:child_process";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { never, writeSample } from "../snapshot/sample-snapshot.ts";
import { runCli, runCliHere } from "../support/cli.ts";
import { PASSWORD } from "../support/postgres-server.ts";
import { createDatabase, type TestDatabase } from "../support/postgres.ts";

let folder: string;
let home: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  home = join(folder, "home");
});

afterEach(() => rm(folder, { recursive: true, force: true }));

async function writeJob(url: string, more = "", path = "./backups"): Promise<string> {
  const file = join(folder, "shop.yaml");
  await writeFile(
    file,
    `version: 1\nname: shop\nsource: { url: "${url}" }\ndestinations: [{ type: local, path: ${path} }]\n${more}`,
  );
  return file;
}

const cli = (...args: string[]) => runCliHere(args, { home, cwd: folder });

async function manyRows(): Promise<TestDatabase> {
  return createDatabase(
    18,
    `create table t (i int, v text); insert into t select i, repeat(md5(i::text), 30) from generate_series(1, 200000) i;
     create table u (i int); insert into u select generate_series(1, 1000)`,
  );
}

async function snapshotsOf(file: string): Promise<unknown[]> {
  const { exitCode, last } = await cli("list", file, "--json");
  expect(exitCode).toBe(0);
  return last()["snapshots"] as unknown[];
}

describe("rowkeep run", () => {
  test("is a warning, no failure, where only its history cannot be written", async () => {
    await using database = await createDatabase(18, "create table t (i int); insert into t values (1), (2)");
    const file = await writeJob(database.url);
    await cli("run", file);
    using state = new DatabaseSync(join(home, "state/state.sqlite"));
    state.exec("create trigger t before insert on runs begin select raise(abort, 'the disk is full'); end");
    state.exec("create trigger u before delete on unfinished begin select raise(abort, 'the disk is full'); end");

    const run = await cli("run", file, "--json");
    state.exec("drop trigger t; drop trigger u");
    const next = await cli("run", file, "--json");

    const words = "the history does not show how this run ended: the disk is full";
    expect([run.exitCode, run.last()["warnings"]]).toEqual([3, [words]]);
    expect([next.exitCode, await snapshotsOf(file)]).toEqual([
      0,
      [expect.anything(), expect.anything(), expect.anything()],
    ]);
  });

  test("makes a snapshot that list shows, show explains and verify finds good", async () => {
    await using database = await createDatabase(18, "create table t (i int); insert into t values (1), (2)");
    const file = await writeJob(database.url);

    const run = await cli("run", file, "--json");
    const show = await cli("show", file, "latest", "--json");
    const verify = await cli("verify", file, "--json");

    expect([run.exitCode, show.exitCode, verify.exitCode]).toEqual([0, 0, 0]);
    const [snapshot] = run.last()["snapshots"] as Record<string, unknown>[];
    expect(snapshot).toMatchObject({ job: "shop", kind: "full", rows: 2, tables: 1, consistency: "snapshot" });
    expect(show.last()["tables"]).toMatchObject([{ schema: "public", name: "t", rows: 2, method: "full" }]);
    expect(verify.last()["snapshots"]).toMatchObject([{ id: snapshot?.["id"], ok: true, problems: [] }]);
    expect(await snapshotsOf(file)).toHaveLength(1);
  });

  test("never shows the password, in whatever way it fails", async () => {
    await using database = await createDatabase(18, "create table t (i int)");
    const wrongDatabase = new URL(database.url);
    wrongDatabase.pathname = "/nothing";
    const outputs: string[] = [];
    for (const url of [database.url, wrongDatabase.href, database.urlFor("postgres", "wrong-canary")]) {
      const { stdout, stderr } = await cli("run", await writeJob(url), "-v");
      outputs.push(stdout, stderr);
    }
    const { stdout } = await cli("history", join(folder, "shop.yaml"), "--json");

    const everything = [...outputs, stdout].join("\n");
    expect(everything).toContain("the password is wrong");
    expect(everything).not.toMatch(new RegExp(`${PASSWORD}|wrong-canary`));
  });

  test.each([
    ["a wrong password", (url: URL) => (url.password = "nope"), 5, "wrong-password"],
    ["an unreachable host", (url: URL) => (url.port = "1"), 5, "unreachable"],
    ["a missing database", (url: URL) => (url.pathname = "/no_such"), 5, "missing-database"],
  ])("tells %s by exit code and code", async (_what, spoil, exitCode, code) => {
    await using database = await createDatabase(18);
    const url = new URL(database.url);
    spoil(url);

    const run = await cli("run", await writeJob(url.href), "--json");

    expect(run.exitCode).toBe(exitCode);
    expect(run.last()).toMatchObject({ type: "error", code });
  });

  test("run, list and show tell the same bytes and rows of a snapshot: those of its volumes", async () => {
    await using database = await createDatabase(
      18,
      "create table t (i int); insert into t select generate_series(1, 999)",
    );
    const file = await writeJob(database.url);

    const run = await cli("run", file, "--json");
    const list = await cli("list", file, "--json");
    const show = await cli("show", file, "latest", "--json");

    const numbersOf = (snapshot: unknown) => {
      const { tables, rows, rawBytes, storedBytes } = snapshot as Record<string, number>;
      return { tables, rows, rawBytes, storedBytes };
    };
    const [made] = run.last()["snapshots"] as unknown[];
    const [listed] = list.last()["snapshots"] as unknown[];
    expect(numbersOf(made)).toEqual(numbersOf(listed));
    expect(numbersOf(show.last()["snapshot"])).toEqual(numbersOf(listed));
    const folders = await readdir(join(folder, "backups"), { recursive: true });
    const volumes = folders.filter((name) => name.endsWith(".tar"));
    const sizes = await Promise.all(volumes.map(async (name) => (await stat(join(folder, "backups", name))).size));
    expect(numbersOf(made).storedBytes).toBe(sizes.reduce((sum, size) => sum + size, 0));
  });

  test("fails with 5 and the table's name when one table may not be read, and makes no snapshot", async () => {
    await using database = await createDatabase(18, "create table open (i int); create table shut (i int)");
    await database.query(
      `drop role if exists half; create role half login password 'pw'; grant select on open to half`,
    );
    const file = await writeJob(database.urlFor("half", "pw"));

    const run = await cli("run", file);

    expect(run.exitCode).toBe(5);
    expect(run.stderr).toMatch(/public\.shut.*half lacks SELECT/);
    expect(await snapshotsOf(file)).toEqual([]);
  });

  test("fails with 6 when the destination cannot be written, and when its disk is full", async ({ skip }) => {
    if (process.getuid?.() !== 0 || process.platform !== "linux") skip("a full disk is made by root on Linux");
    await using database = await manyRows();
    const small = join(folder, "small");
    await mkdir(small);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", small]);
    try {
      const full = await cli("run", await writeJob(database.url, "", small), "--json");
      expect(full.exitCode).toBe(6);
      expect(full.last()).toMatchObject({ type: "error", code: "full" });
      expect(
        (await readdir(small, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile()),
      ).toEqual([]);
    } finally {
      execFileSync("umount", [small]);
    }
    await writeFile(join(folder, "taken"), "");
    const denied = await cli("run", await writeJob(database.url, "", join(folder, "taken")), "--json");
    expect(denied.exitCode).toBe(6);
  });

  test("ends with 3 when one of two destinations fails, and says which", async () => {
    await using database = await createDatabase(18, "create table t (i int)");
    await writeFile(join(folder, "taken"), "");
    const file = join(folder, "shop.yaml");
    await writeFile(
      file,
      `version: 1\nname: shop\nsource: { url: "${database.url}" }\ndestinations: [{ type: local, path: ok }, { type: local, path: taken, name: second }]\n`,
    );

    const run = await cli("run", file, "--json");

    expect(run.exitCode).toBe(3);
    const [snapshot] = run.last()["snapshots"] as { destinations: { name: string; status: string }[] }[];
    expect(snapshot?.destinations).toMatchObject([
      { name: "local:ok", status: "stored" },
      { name: "second", status: "failed" },
    ]);
  });

  test("verify ends with 3 when one of several destinations could not be read, and still tells about the other", async () => {
    await using database = await createDatabase(18, "create table t (i int)");
    const file = await writeJob(database.url);
    await cli("run", file);
    await writeFile(join(folder, "taken"), "");
    const text = await readFile(file, "utf8");
    await writeFile(file, text.replace("}]", "}, { type: local, path: taken, name: second }]"));

    const verify = await cli("verify", file, "--json");

    expect(verify.exitCode).toBe(3);
    expect(verify.last()).toMatchObject({
      ok: false,
      snapshots: [{ destination: "local:./backups", ok: true }],
      unread: [{ destination: "second", error: expect.stringMatching(/^cannot open /) }],
    });
  });

  test("stops in an orderly way at Ctrl-C: exit 130, nothing listed, nothing left", async () => {
    await using database = await manyRows();
    const file = await writeJob(database.url);

    const run = await runCli(["run", file], {
      home,
      cwd: folder,
      during: (child) => child.stderr?.once("data", () => child.kill("SIGINT")),
    });

    expect([run.exitCode, run.signal]).toEqual([130, null]);
    expect(await snapshotsOf(file)).toEqual([]);
  });

  test("killed at any moment leaves nothing that is listed, and the next run is whole and tidy", async () => {
    await using database = await manyRows();
    const file = await writeJob(database.url);
    for (const afterMs of [300, 500, 700, 900, 1100, 1300]) {
      await runCli(["run", file], {
        home,
        cwd: folder,
        during: (child) => setTimeout(() => child.kill("SIGKILL"), afterMs),
      });
      for (const { id } of (await snapshotsOf(file)) as { id: string }[]) {
        const verify = await cli("verify", file, id);
        expect(verify.exitCode).toBe(0);
      }
    }

    const run = await cli("run", file, "--json");
    const verify = await cli("verify", file, "--json");

    expect([run.exitCode, verify.exitCode]).toEqual([0, 0]);
    const left = await readdir(join(folder, "backups"), { recursive: true });
    expect(left.filter((name) => name.includes("rowkeep-spool-") || /in-progress.+/.test(name))).toEqual([]);
  });

  test("warns when its snapshot is dated before one that was there: latest is the other one", async () => {
    await using database = await createDatabase(18, "create table t (i int)");
    const file = await writeJob(database.url);
    await using destination = await openLocalDestination(
      { type: "local", path: join(folder, "backups") },
      { signal: never },
    );
    const [id, createdAt] = ["20990101T000000Z-full", "2099-01-01T00:00:00.000Z"];
    const written = { spoolFolder: join(folder, "spool"), prefix: `shop/${database.name}`, id };
    const manifest = { createdAt, database: database.name };
    await writeSample({ ...written, manifest, destinations: [destination] });

    const run = await cli("run", file, "--json");

    const [made] = run.last()["snapshots"] as [{ id: string }];
    expect(run.exitCode).toBe(3);
    expect(run.last()["warnings"]).toContain(
      `${made.id} is dated before ${id}, which was there already: a clock was set back; until it has passed that time, rowkeep restore shop means ${id}, so name the new one by its id`,
    );
  });

  test("stands in the history as a failure when it was killed, and with its size when it ended", async () => {
    await using database = await manyRows();
    const file = await writeJob(database.url, "failures: { disableAfter: 1 }\n");

    await runCli(["run", file], {
      home,
      cwd: folder,
      during: (child) => child.stderr?.once("data", () => child.kill("SIGKILL")),
    });
    const killed = await cli("history", file, "--json");
    const refused = await cli("run", file, "--json");
    await cli("job", "enable", file);
    const run = await cli("run", file, "--json");
    const after = await cli("history", file, "--json");

    const error = "stopped without a word (killed, or the machine went down)";
    const dead = { job: "shop", kind: "full", outcome: "failure", error };
    expect(killed.last()["runs"]).toMatchObject([dead]);
    expect([refused.last()["code"], run.exitCode]).toEqual(["disabled", 0]);
    const [{ id, storedBytes, rawBytes } = {}] = run.last()["snapshots"] as Record<string, unknown>[];
    expect(after.last()["runs"]).toMatchObject([{ outcome: "success", snapshot: id, storedBytes, rawBytes }, dead]);
  });

  test("stands in the history as aborted when a signal stopped it", async () => {
    await using database = await manyRows();
    const file = await writeJob(database.url);

    const stopped = await runCli(["run", file], {
      home,
      cwd: folder,
      during: (child) => child.stderr?.once("data", () => child.kill("SIGINT")),
    });
    const history = await cli("history", file, "--json");

    expect(stopped.exitCode).toBe(130);
    expect(history.last()["runs"]).toMatchObject([
      { outcome: "skipped", error: expect.stringMatching(/^aborted: stopped by a signal/) },
    ]);
  });

  test("says of a job that a person switched off how to switch it on, not what to mend", async () => {
    const file = await writeJob("postgres://me@127.0.0.1:1/shop", "enabled: false\n");

    const refused = await cli("run", file, "--json");

    expect(refused.last()).toMatchObject({ exitCode: 9, hint: "Switch it on again: rowkeep job enable shop." });
  });

  test("keeps the server's own words of a failure in the history", async () => {
    await using database = await createDatabase(18);
    const file = await writeJob(database.urlFor("nobody_here", "wrong"));

    await cli("run", file);
    const history = await cli("history", file, "--json");

    const error = expect.stringContaining('password authentication failed for user "nobody_here"');
    expect(history.last()["runs"]).toMatchObject([{ outcome: "failure", error }]);
  });

  test("switches a job off after too many failures in a row, until it is enabled again", async () => {
    await using database = await createDatabase(18);
    const file = await writeJob(database.urlFor("postgres", "wrong"), "failures: { disableAfter: 2 }\n");
    const codes = [];

    for (let i = 0; i < 3; i += 1) codes.push((await cli("run", file)).exitCode);
    await cli("job", "enable", file);
    codes.push((await cli("run", file)).exitCode);

    expect(codes).toEqual([5, 5, 9, 5]);
  });

  test("refuses to do half of what a job asks for", async () => {
    const file = await writeJob("postgres://u@127.0.0.1:1/d", "mode: native\n");

    const run = await cli("run", file, "--json");

    expect(run.exitCode).toBe(2);
    expect(run.last()).toMatchObject({ code: "not-available", message: expect.stringContaining("native") });
  });

  test("finds a flipped bit with verify and ends with 7", async () => {
    await using database = await createDatabase(
      18,
      "create table t (i int); insert into t select generate_series(1, 1000)",
    );
    const file = await writeJob(database.url);
    await cli("run", file);
    const [volume] = (await readdir(join(folder, "backups"), { recursive: true })).filter((name) =>
      name.endsWith(".tar"),
    );
    const path = join(folder, "backups", String(volume));
    const bytes = await readFile(path);
    bytes[Math.floor(bytes.length / 2)] = (bytes[Math.floor(bytes.length / 2)] ?? 0) ^ 4;
    await chmod(path, 0o600);
    await writeFile(path, bytes);

    const verify = await cli("verify", file, "--json");

    expect(verify.exitCode).toBe(7);
    expect(verify.last()["snapshots"]).toMatchObject([{ ok: false }]);
  });
});

test("rowkeep export writes one file that appears when it is complete", async () => {
  await using database = await createDatabase(18, "create table t (i int); insert into t values (1)");
  const file = join(folder, "shop.rowkeep");

  const first = await cli("export", database.url, file, "--json");
  const second = await cli("export", database.url, file, "--json");

  expect([first.exitCode, second.exitCode]).toEqual([0, 9]);
  expect(second.last()).toMatchObject({ code: "exists", hint: "Choose another name, or remove that file." });
  const names = execFileSync("tar", ["-tf", file], { encoding: "utf8" }).trim().split("\n");
  expect(names[0]).toBe("RECOVER.md");
  expect(names.at(-1)).toMatch(/-full\/manifest\.json$/);
  expect(await readdir(folder)).toEqual(["shop.rowkeep"]);
});

test("rowkeep export makes up a name in a folder, and import takes the file", async () => {
  await using database = await createDatabase(18, "create table t (i int); insert into t values (1)");
  await using empty = await createDatabase(18);
  await mkdir(join(folder, "exports"));

  const first = await cli("export", database.url, "exports", "--json");
  const file = String(first.last()["file"]);
  const imported = await cli("import", `file://${file}`, empty.url, "--create", "--yes");
  const missing = await cli("export", database.url, "missing/", "--json");
  const told = await cli("export", database.url, join("exports", "named.rowkeep"));

  expect(missing.last()["message"]).toMatch(/the folder \S+missing does not exist$/);
  expect(told.stdout).toContain(`at ${join(folder, "exports", "named.rowkeep")}\n`);
  expect([first.exitCode, imported.exitCode, missing.exitCode]).toEqual([0, 0, 6]);
  expect((await readdir(join(folder, "exports"))).sort()).toEqual([
    "named.rowkeep",
    expect.stringMatching(/^t_[0-9a-f]+-\d{8}T\d{6}Z\.rowkeep$/),
  ]);
  expect(await empty.query("select i from t")).toEqual([["1"]]);
});
