import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runCli, runCliHere } from "../support/cli.ts";
import { createDatabase, type TestDatabase } from "../support/postgres.ts";

let folder: string;
let file: string;
let database: TestDatabase;

const cli = (...args: string[]) => runCliHere(args, { home: join(folder, "home"), cwd: folder });

describe("rows of snapshots at the command line", () => {
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
    file = join(folder, "shop.yaml");
    database = await createDatabase(
      18,
      `create table orders (id int primary key, v text); insert into orders select i, 'v' || i from generate_series(1, 50000) i;
       create table same (id int); insert into same values (1)`,
    );
    await writeFile(
      file,
      `version: 1\nname: shop\nsource: { url: "${database.url}" }\ndestinations: [{ type: local, path: ./backups }]\n`,
    );
    expect((await cli("run", file)).exitCode).toBe(0);
  });

  afterAll(async () => {
    await database[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  test("cat writes rows to stdout and nothing else", async () => {
    const rows = await cli("cat", file, "latest", "public.orders", "--where", "id in (7, 49999)");
    const csv = await cli("cat", file, "latest", "orders", "--where", "id = 7", "--columns", "v,id", "--format", "csv");
    const json = await cli("cat", file, "latest", "orders", "--where", "v = 'v7'", "--json");

    expect([rows.exitCode, csv.exitCode, json.exitCode]).toEqual([0, 0, 0]);
    expect(rows.stdout).toBe("7\tv7\n49999\tv49999\n");
    expect(csv.stdout).toBe("v,id\nv7,7\n");
    expect(json.json()).toEqual([
      { type: "row", values: { id: "7", v: "v7" } },
      { type: "result", snapshot: expect.stringMatching(/full$/), schema: "public", name: "orders", rows: 1 },
    ]);
  });

  test("cat ends without an error when nobody reads any more", async () => {
    const cut = await runCli(["cat", file, "latest", "orders"], {
      home: join(folder, "home"),
      cwd: folder,
      during: (child) => child.stdout?.once("data", () => child.stdout?.destroy()),
    });

    expect(cut).toMatchObject({ exitCode: 0, stderr: "" });
  });

  test.each([
    [["--where", "id ="], "at character 5"],
    [["--where", "nope = 1"], "no column is called nope at character 1"],
    [["--format", "xml"], "it is none of tsv, csv, json"],
    [["--columns", "nope"], "it has no stored column nope"],
  ])("cat refuses %j", async (options, reason) => {
    const refused = await cli("cat", file, "latest", "orders", ...options);

    expect(refused).toMatchObject({ exitCode: 2, stdout: "", stderr: expect.stringContaining(reason) });
  });

  test("diff ends with 4 and the keys when two snapshots differ, with 0 when they do not", async () => {
    await database.query("update orders set v = 'new' where id = 7");
    expect((await cli("run", file)).exitCode).toBe(0);
    const [first, second] = ((await cli("list", file, "--json")).last()["snapshots"] as { id: string }[]).map(
      ({ id }) => id,
    ) as [string, string];

    const different = await cli("diff", file, first, second, "--rows", "--json");
    const shown = await cli("diff", file, first, "latest", "--table", "orders", "--rows");
    const equal = await cli("diff", file, second, "latest");

    expect([different.exitCode, shown.exitCode, equal.exitCode]).toEqual([4, 4, 0]);
    expect(different.last()["tables"]).toMatchObject([
      { name: "orders", equal: false, differences: [{ key: { id: "7" }, kind: "changed", columns: ["v"] }] },
      { name: "same", equal: true, left: { rows: 1 } },
    ]);
    expect(shown.stdout).toContain("changed     id=7 in v");
    expect(shown.stdout).not.toContain("public.same");
  });

  test("restore puts chosen rows back behind a plan and a confirmation, and undo takes it back", async () => {
    await using shop = await createDatabase(
      15,
      "create table t (id int primary key, v text); insert into t values (1, 'a'), (2, 'b'), (3, 'c')",
    );
    const job = join(folder, "rows.yaml");
    await writeFile(
      job,
      `version: 1\nname: rows\nsource: { url: "${shop.url}" }\ndestinations: [{ type: local, path: ./rows }]\n`,
    );
    expect((await cli("run", job)).exitCode).toBe(0);
    await shop.query("delete from t where id = 1; update t set v = 'x' where id in (2, 3)");
    const chosen = ["restore", job, "latest", "--tables", "t", "--where", "id < 3", "--mode", "upsert"];
    const all = async () => (await shop.query("select * from t order by id")).map((row) => row.join("|"));

    const planned = await cli(...chosen, "--plan");
    const unasked = await cli(...chosen, "--json");
    const before = await all();
    const done = await cli(...chosen, "--yes", "--json");
    const after = await all();
    const undone = await cli("undo", job, "--yes");

    expect([planned.exitCode, unasked.exitCode, done.exitCode, undone.exitCode]).toEqual([0, 9, 0, 0]);
    expect(planned.stdout).toMatch(/rows to delete +rows to update +rows to insert\npublic\.t +0 +1 +1\n/);
    expect(unasked.last()).toMatchObject({ code: "needs-confirmation" });
    expect(before).toEqual(["2|x", "3|x"]);
    expect(done.last()).toMatchObject({
      mode: "upsert",
      tables: [{ schema: "public", name: "t", deleted: 0, updated: 1, inserted: 1 }],
      safetySnapshot: expect.any(String),
    });
    expect(after).toEqual(["1|a", "2|b", "3|x"]);
    expect(await all()).toEqual(before);
  });

  test.each([
    [["--where", "id = 1"], "chosen rows need a table"],
    [["--mode", "merge", "--tables", "orders"], "--mode merge is none of replace, insert-missing, upsert"],
    [["--where", "id = 1", "--tables", "orders", "--create"], "chosen rows and --create exclude each other"],
    [["--where", "id = 1", "--tables", "*"], "means public.orders, public.same"],
  ])("restore refuses %j", async (options, reason) => {
    const refused = await cli("restore", file, "latest", "--yes", ...options);

    expect(refused).toMatchObject({ exitCode: 2, stdout: "", stderr: expect.stringContaining(reason) });
  });
});
