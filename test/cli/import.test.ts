import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { useCliPlace } from "../support/cli-place.ts";
import { createDatabase } from "../support/postgres.ts";

const place = useCliPlace();
const { cli } = place;

const openDatabase = () =>
  createDatabase(18, "create table t (i int primary key, v text); insert into t values (1, 'a'), (2, 'b')");

describe("rowkeep import", () => {
  test("names the command that puts back what it replaced, and that does", async () => {
    await using database = await openDatabase();
    await cli("export", database.url, "shop.rowkeep");
    await database.query("update t set v = 'mine' where i = 1; delete from t where i = 2");

    const replaced = await cli("import", "shop.rowkeep", database.url, "--yes");
    const rows = await database.query("select * from t order by i");
    const file = /rowkeep import (\S+) <url> puts it back/.exec(replaced.stdout)?.[1] ?? "";
    const back = await cli("import", file, database.url, "--yes", "--json");

    expect([replaced.exitCode, back.exitCode]).toEqual([0, 0]);
    expect(rows).toEqual([
      ["1", "a"],
      ["2", "b"],
    ]);
    expect(await database.query("select * from t")).toEqual([["1", "mine"]]);
    expect(back.last()).toMatchObject({ safetyFile: expect.stringContaining(join(place.home)) });
  });

  test("removes what imports before the last five replaced, a week later", async () => {
    await using database = await openDatabase();
    await cli("export", database.url, "shop.rowkeep");
    const folder = join(place.home, "state", "safety");
    await mkdir(folder, { recursive: true });
    const days = ["01", "02", "03", "04", "05", "06"].map((day) => `202001${day}T000000000Z.rowkeep`);
    const unfinished = "20200107T000000000Z.rowkeep.0a1b2c3d4e5f.in-progress";
    for (const name of [...days, unfinished, "theirs.rowkeep"]) await writeFile(join(folder, name), "");

    const failed = await cli("import", "missing", database.url, "--yes");
    const plan = await cli("import", "shop.rowkeep", database.url, "--plan");
    const before = await readdir(folder);
    const first = await cli("import", "shop.rowkeep", database.url, "--yes");
    const after = await readdir(folder);

    expect([failed.exitCode, plan.exitCode, first.exitCode]).toEqual([6, 0, 0]);
    expect(before).toHaveLength(8);
    const mine = after.filter((name) => !name.startsWith("2020") && name !== "theirs.rowkeep");
    expect(mine).toHaveLength(1);
    expect(after.toSorted()).toEqual([...days.slice(2), ...mine, "theirs.rowkeep"]);
  });

  test("that was rolled back leaves no file of what it would have replaced", async () => {
    await using database = await openDatabase();
    await cli("export", database.url, "shop.rowkeep");
    await database.query("update t set v = 'other'; alter table t add constraint c check (v = 'other')");

    const failed = await cli("import", "shop.rowkeep", database.url, "--yes", "--json");

    expect(failed.exitCode).toBe(5);
    expect(await readdir(join(String(place.home), "state", "safety"))).toEqual([]);
  });

  test("says what is wrong with a file, where, and what to do", async () => {
    await using database = await openDatabase();
    await cli("export", database.url, "shop.rowkeep");
    const bytes = await readFile(join(place.folder, "shop.rowkeep"));
    const damaged = Buffer.from(bytes);
    const chunk = damaged.indexOf(Buffer.from([0x28, 0xb5, 0x2f, 0xfd])) + 9;
    damaged.writeUInt8(damaged.readUInt8(chunk) ^ 1, chunk);
    await writeFile(join(place.folder, "short"), bytes.subarray(0, bytes.length - 700));
    await writeFile(join(place.folder, "text"), "no archive ".repeat(1000));
    await writeFile(join(place.folder, "damaged"), damaged);
    await mkdir(join(place.folder, "folder"));

    const errors = new Map<string, Readonly<Record<string, unknown>>>();
    for (const name of ["missing", "short", "text", "damaged", "folder"]) {
      errors.set(name, (await cli("import", name, database.url, "--yes", "--json")).last());
    }

    const path = (name: string) => join(place.folder, name);
    const volume = String.raw`cannot read ${path("damaged")}: \S+-full/volume-0001\.tar: the chunk at byte \d+ is damaged`;
    expect(errors.get("missing")).toMatchObject({ exitCode: 6, hint: expect.stringContaining("Check the path") });
    expect(errors.get("short")).toMatchObject({ exitCode: 7, hint: expect.stringContaining("Copy it again") });
    expect(errors.get("text")).toMatchObject({
      exitCode: 7,
      message: expect.stringContaining(`cannot read ${path("text")}: it is no file that rowkeep export wrote`),
      hint: expect.stringContaining("rowkeep export"),
    });
    expect(errors.get("damaged")).toMatchObject({
      exitCode: 7,
      message: expect.stringMatching(volume),
      hint: expect.stringContaining("Copy the file again"),
    });
    expect(errors.get("folder")).toMatchObject({ exitCode: 6, message: expect.stringContaining("a folder") });
  });
});
