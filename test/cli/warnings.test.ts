import { open, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { useCliPlace } from "../support/cli-place.ts";
import { createDatabase, type TestDatabase } from "../support/postgres.ts";

const place = useCliPlace();
const { cli } = place;
const timesIn = (text: string, part: string) => text.split(part).length - 1;

test("a warning of restore is printed once, though the plan and the result both have it", async () => {
  await using database = await createDatabase(18, "create table t (i int); insert into t values (1)");
  await writeFile(
    place.file,
    `version: 1\nname: shop\nsource: { url: "${database.url}" }\ndestinations: [{ type: local, path: ./backups }]\n`,
  );
  expect((await cli("run", place.file)).exitCode).toBe(0);
  await database.query("alter table t add column extra int");

  const restore = await cli("restore", place.file, "--yes");
  const json = await cli("restore", place.file, "--yes", "--json");

  expect(restore.exitCode).toBe(3);
  expect(timesIn(restore.stderr, "public.t.extra is not in the snapshot")).toBe(1);
  expect(json.last()["warnings"]).toEqual(["public.t.extra is not in the snapshot: it gets its default"]);
});

test("a pattern of tables.include that matches no table is named by every run", async () => {
  await using database = await createDatabase(18, "create table t (i int); insert into t values (1)");
  const text = (tables: string) =>
    `version: 1\nname: shop\nsource: { url: "${database.url}" }\ndestinations: [{ type: local, path: ./backups }]\ntables: ${tables}\n`;
  await writeFile(
    place.file,
    text('{ include: ["public.t", "typo", "other.*"], schemaOnly: ["t"], exclude: ["*.audit_*"] }'),
  );

  const full = await cli("run", place.file, "--json");
  const incremental = await cli("run", place.file, "--incremental", "--json");
  await writeFile(place.file, text('{ include: ["t"] }'));
  const right = await cli("run", place.file, "--json");

  const warnings = ["typo", "other.*"].map((name) => `no table matches ${name} in tables.include: it keeps nothing`);
  expect([full.exitCode, incremental.exitCode, right.exitCode]).toEqual([3, 3, 0]);
  expect([full, incremental, right].map(({ last }) => last()["warnings"])).toEqual([warnings, warnings, []]);
});

test("a destination that failed is named once by run, with the reason", async () => {
  await using database = await createDatabase(18, "create table t (i int); insert into t values (1)");
  await writeFile(join(place.folder, "not-a-folder"), "");
  await writeFile(
    place.file,
    `version: 1\nname: shop\nsource: { url: "${database.url}" }\ndestinations: [{ name: first, type: local, path: ./backups }, { name: second, type: local, path: ./not-a-folder/backups }]\n`,
  );

  const run = await cli("run", place.file);

  expect(run.exitCode).toBe(3);
  expect(run.stdout).toContain("at first\n");
  expect(run.stderr).toMatch(/warning: second does not have \S+-full: cannot open second: /);
  expect(timesIn(run.stdout + run.stderr, "second does not have")).toBe(1);
});

test("what is damaged at one of two destinations on one disk is read at the other, and told by all that read it", async () => {
  await using database = await createDatabase(18, "create table t (i int primary key); insert into t values (1), (2)");
  await writeFile(
    place.file,
    `version: 1\nname: shop\nsource: { url: "${database.url}" }\ndestinations: [{ name: first, type: local, path: ./one }, { name: second, type: local, path: ./two }]\n`,
  );
  expect((await cli("run", place.file)).exitCode).toBe(0);
  await flipByteOf(await volumeBelow("one"));
  await database.query("delete from t");

  const restore = await cli("restore", place.file, "--yes", "--json");
  const again = await cli("restore", place.file, "--yes");
  const cat = await cli("cat", place.file, "latest", "t");
  const diff = await cli("diff", place.file, "latest", "latest");
  const compare = await cli("compare", place.file, "--with", "latest");

  const told =
    /^cannot read first\/\S+volume-0001\.tar: the chunk at byte \d+ is damaged .*; it was read at second instead$/;
  expect(restore.exitCode).toBe(3);
  expect(restore.last()["warnings"]).toEqual([expect.stringMatching(told)]);
  expect(await database.query("select i from t order by i")).toEqual([["1"], ["2"]]);
  expect(cat.stdout).toBe("1\n2\n");
  for (const { exitCode, stderr } of [again, cat, compare]) {
    expect(exitCode).toBe(3);
    expect(timesIn(stderr, "it was read at second instead")).toBe(1);
  }
  // Stored in the same bytes, so none of them is read.
  expect(diff.exitCode).toBe(0);
});

test("a snapshot whose manifest is damaged at one destination is read at the other, and the damage told", async () => {
  await using database = await createDatabase(18, "create table t (i int primary key); insert into t values (1), (2)");
  await writeFile(
    place.file,
    `version: 1\nname: shop\nsource: { url: "${database.url}" }\ndestinations: [{ name: first, type: local, path: ./one }, { name: second, type: local, path: ./two }]\n`,
  );
  expect((await cli("run", place.file)).exitCode).toBe(0);
  await writeFile((await volumeBelow("one")).replace("volume-0001.tar", "manifest.json"), "{");

  const restore = await cli("restore", place.file, "--yes");
  const cat = await cli("cat", place.file, "latest", "t");
  const show = await cli("show", place.file, "latest");

  for (const { exitCode, stderr } of [restore, cat, show]) {
    expect(stderr).toMatch(
      /^warning: \S+-full was not read at first: cannot read first\/\S+manifest\.json: it is not valid JSON/m,
    );
    expect(exitCode).toBe(3);
  }
  expect(cat.stdout).toBe("1\n2\n");
});

async function volumeBelow(folder: string): Promise<string> {
  const names = await readdir(join(place.folder, folder), { recursive: true });
  return join(place.folder, folder, names.find((name) => name.endsWith("volume-0001.tar")) ?? "");
}

/** One byte of the table's first chunk, in its place, as a disk that goes bad does it. */
async function flipByteOf(path: string): Promise<void> {
  await using file = await open(path, "r+");
  const bytes = await file.readFile();
  const header = Math.floor(bytes.indexOf("public.t/") / 512) * 512;
  await file.write(Buffer.from([(bytes[header + 512] ?? 0) ^ 4]), 0, 1, header + 512);
}

/** A job with one snapshot, which gets a second destination that cannot be opened. */
async function shopWithSecondThatCannotBeOpened(): Promise<TestDatabase> {
  const database = await createDatabase(18, "create table t (i int); insert into t values (1)");
  const text = (more: string) =>
    `version: 1\nname: shop\nsource: { url: "${database.url}" }\ndestinations: [{ type: local, path: ./backups }${more}]\n`;
  await writeFile(place.file, text(""));
  expect((await cli("run", place.file)).exitCode).toBe(0);
  await writeFile(join(place.folder, "not-a-folder"), "");
  await writeFile(place.file, text(", { name: second, type: local, path: ./not-a-folder/backups }"));
  return database;
}

test("a destination that cannot be opened is in the warnings of the result with --json", async () => {
  await using _database = await shopWithSecondThatCannotBeOpened();

  const list = await cli("list", place.file, "--json");
  const shown = await cli("list", place.file);
  const restore = await cli("restore", place.file, "--yes", "--json");

  const warning = expect.stringMatching(/^cannot open second: /);
  expect(list.last()).toMatchObject({ type: "result", snapshots: [expect.anything()], warnings: [warning] });
  expect([list.exitCode, shown.exitCode]).toEqual([3, 3]);
  expect(timesIn(shown.stderr, "cannot open second")).toBe(1);
  expect(restore.last()).toMatchObject({ type: "result", warnings: [warning] });
});

test("what writes to a database ends with 3, too, where a destination could not be opened", async () => {
  await using _database = await shopWithSecondThatCannotBeOpened();

  const plan = await cli("restore", place.file, "--plan");
  const restore = await cli("restore", place.file, "--yes");
  const undo = await cli("undo", place.file, "--plan");
  const compare = await cli("compare", place.file, "--with", "latest");
  const drill = await cli("verify", place.file, "--drill");

  for (const [name, { exitCode, stderr }] of Object.entries({ plan, restore, undo, compare, drill })) {
    expect(exitCode, name).toBe(3);
    expect(timesIn(stderr, "cannot open second"), name).toBe(1);
  }
});

test("job show hides secrets that are written out, as text and with --json", async () => {
  await writeFile(
    place.file,
    `version: 1\nname: shop\nsource: { engine: postgres, host: db, user: me, password: canary-1 }\nencryption: { passphrase: canary two }\ndestinations:\n  - { type: ftp, host: h, path: /b, user: u, password: "file:ftp.secret" }\n  - { type: sftp, host: h, path: /b, user: u, password: canary-3, hostKey: "SHA256:x" }\n`,
  );

  const text = await cli("job", "show", place.file);
  const json = await cli("job", "show", place.file, "--json");

  expect([text.exitCode, json.exitCode]).toEqual([0, 0]);
  for (const { stdout, stderr } of [text, json]) {
    expect(stdout + stderr).not.toContain("canary");
    expect(stdout).toContain("***");
    expect(stdout).toContain("file:ftp.secret");
  }
});
