import { execFileSync } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { generateKeyPair, keyIdOf, type KeyPair } from "../../src/archive/age-keys.ts";
import { runCliHere } from "../support/cli.ts";
import { createDatabase, type TestDatabase } from "../support/postgres.ts";

const PASSPHRASE = "canary horse battery staple";

let folder: string;
let home: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  home = join(folder, "home");
});

afterEach(() => rm(folder, { recursive: true, force: true }));

const cli = (...args: string[]) => runCliHere(args, { home, cwd: folder, env: { PHRASE: PASSPHRASE } });

async function writeJob(database: Pick<TestDatabase, "url">, encryption: string): Promise<string> {
  const file = join(folder, "shop.yaml");
  await writeFile(
    file,
    `version: 1\nname: shop\nsource: { url: "${database.url}" }\n` +
      `destinations: [{ type: local, path: ./backups }]\nencryption: ${encryption}\n`,
  );
  return file;
}

const SHOP =
  "create table orders (id int primary key, v text); insert into orders select i, md5(i::text) from generate_series(1, 5000) i";

async function createPair(name = "mine.key"): Promise<KeyPair> {
  const pair = await generateKeyPair();
  await writeFile(join(folder, name), `${pair.identity}\n`, { mode: 0o600 });
  return pair;
}

describe("rowkeep key create", () => {
  test("writes the secret key and a kit for nobody else to read, and shows only the public one", async () => {
    const text = await cli("key", "create", "a.key");
    const json = await cli("key", "create", "b.key", "--kit", "b.txt", "--json");

    expect([text.exitCode, json.exitCode]).toEqual([0, 0]);
    const [key, kit] = [
      await readFile(join(folder, "a.key"), "utf8"),
      await readFile(join(folder, "a.key.kit.txt"), "utf8"),
    ];
    const secret = /^AGE-SECRET-KEY-1[0-9A-Z]{58}$/m.exec(key)?.[0] ?? "none";
    const recipient = /^# public key: (age1\S+)$/m.exec(key)?.[1] ?? "none";
    expect(text.stdout).toContain(recipient);
    expect(kit).toContain(secret);
    expect(kit.replaceAll(/\s/g, "")).toContain(`(leaveoutthespaces):${secret}`);
    expect(kit).toContain(recipient);
    expect(text.stdout + text.stderr + json.stdout + json.stderr).not.toContain("AGE-SECRET-KEY-1");
    expect(json.last()).toMatchObject({ type: "result", file: join(folder, "b.key"), kit: join(folder, "b.txt") });
    for (const name of ["a.key", "a.key.kit.txt", "b.key", "b.txt"]) {
      expect((await stat(join(folder, name))).mode & 0o777).toBe(0o600);
    }
  });

  test("writes no secret to stdout, nor to a file called -", async () => {
    const key = await cli("key", "create", "-", "--json");
    const kit = await cli("key", "create", "a.key", "--kit", "-", "--json");

    for (const result of [key, kit]) expect([result.exitCode, result.last()["code"]]).toEqual([2, "needs-file"]);
    expect(await readdir(folder)).toEqual([]);
  });

  test("never replaces a file, and leaves no half of a pair", async () => {
    await writeFile(join(folder, "a.key"), "precious");
    await writeFile(join(folder, "kit.txt"), "precious");

    const key = await cli("key", "create", "a.key", "--no-kit", "--json");
    const kit = await cli("key", "create", "b.key", "--kit", "kit.txt", "--json");

    for (const result of [key, kit]) {
      expect(result).toMatchObject({ exitCode: 9 });
      expect(result.last()).toMatchObject({ code: "exists" });
    }
    expect((await readdir(folder)).toSorted()).toEqual(["a.key", "kit.txt"]);
    expect(await readFile(join(folder, "a.key"), "utf8")).toBe("precious");
  });
});

describe("a job with encryption", () => {
  test("backs up with the public key alone, and restores and undoes with the secret one", async () => {
    await using database = await createDatabase(18, SHOP);
    const { recipient } = await createPair();
    const job = await writeJob(database, `{ recipients: [${recipient}] }`);

    const run = await cli("run", job, "--json");
    const closed = await cli("list", job, "--json");
    const verified = await cli("verify", job, "--json");
    await database.query("delete from orders where id > 10");
    const refused = await cli("restore", job, "--yes", "--json");
    const restored = await cli("restore", job, "--identity", "mine.key", "--yes", "--json");
    const listed = await cli("list", job, "--identity", "mine.key", "--json");
    const table = await cli("list", job);
    const rows = await database.query("select count(*), count(distinct v) from orders");
    const undone = await cli("undo", job, "--identity", "mine.key", "--yes", "--json");

    expect(run).toMatchObject({ exitCode: 0 });
    expect(closed.exitCode).toBe(0);
    const [snapshot] = closed.last()["snapshots"] as Record<string, unknown>[];
    expect(snapshot).toMatchObject({ job: "shop", kind: "full", encrypted: true, locked: "key-needed", pinned: false });
    expect(snapshot).not.toHaveProperty("rows");
    expect(verified.last()).toMatchObject({ ok: false, snapshots: [{ ok: true, locked: true, chunks: 0 }] });
    expect(refused.exitCode).toBe(7);
    expect(refused.last()).toMatchObject({
      code: "key-needed",
      hint: expect.stringContaining(keyIdOf(recipient)) as unknown,
    });
    expect(restored).toMatchObject({ exitCode: 0 });
    expect(rows).toEqual([["5000", "5000"]]);
    expect(undone).toMatchObject({ exitCode: 0 });
    expect(await database.query("select count(*) from orders")).toEqual([["10"]]);
    // The safety snapshot that the restore took is encrypted too.
    expect(listed.last()["snapshots"]).toMatchObject([
      { encrypted: true, rows: 5000, tables: 1 },
      { encrypted: true, rows: 10, tables: 1 },
    ]);
    expect(table.stdout).toMatch(/-full\s.*locked\s+locked\s/);
  });

  test("backs up where the file of its identity is missing, with a warning, and restores nothing there", async () => {
    await using database = await createDatabase(18, SHOP);
    const { recipient } = await createPair();
    const job = await writeJob(database, `{ recipients: [${recipient}], identity: "file:elsewhere.key" }`);

    const full = await cli("run", job, "--incremental", "--json");
    await database.query("update orders set v = 'new' where id = 1");
    const incremental = await cli("run", job, "--incremental", "--json");
    const restore = await cli("restore", job, "--yes", "--json");
    const verify = await cli("verify", job, "--json");
    const restored = await cli("restore", job, "--identity", "mine.key", "--yes", "--no-safety", "-v");

    const missing = expect.stringContaining("elsewhere.key does not exist");
    expect([full, incremental]).toMatchObject([{ exitCode: 3 }, { exitCode: 3 }]);
    expect(full.last()["warnings"]).toEqual([missing]);
    expect(incremental.last()["snapshots"]).toMatchObject([{ kind: "incremental" }]);
    expect(incremental.last()["warnings"]).toEqual([missing]);
    expect(restore).toMatchObject({ exitCode: 7 });
    expect(restore.last()).toMatchObject({ code: "key-needed", message: missing });
    expect(verify.last()).toMatchObject({ snapshots: [{ locked: true }], warnings: [missing, missing] });
    expect(restored.exitCode).toBe(0);
    expect(restored.stderr).toContain("elsewhere.key does not exist");
  });

  test("works with a passphrase and shows it nowhere", async () => {
    await using database = await createDatabase(18, SHOP);
    const job = await writeJob(database, '{ passphrase: "${env:PHRASE}" }');

    const run = await cli("run", job, "-v");
    const verify = await cli("verify", job, "--json");
    await database.query("drop table orders");
    const missing = await runCliHere(["restore", job, "--json"], { home, cwd: folder });
    const restored = await cli("restore", job, "--create", "--yes", "--json");
    const history = await cli("history", job, "--json");

    expect([run.exitCode, verify.exitCode, restored.exitCode]).toEqual([0, 0, 0]);
    expect(verify.last()).toMatchObject({ ok: true, snapshots: [{ ok: true, problems: [] }] });
    expect(missing).toMatchObject({ exitCode: 7 });
    expect(missing.last()).toMatchObject({
      code: "key-needed",
      message: expect.stringContaining("the environment has no PHRASE") as unknown,
    });
    expect(await database.query("select count(*) from orders")).toEqual([["5000"]]);
    for (const { stdout, stderr } of [run, verify, missing, restored, history]) {
      expect(stdout + stderr).not.toContain("canary");
    }
  });

  test("tells a damaged key file from a wrong key", async () => {
    await using database = await createDatabase(18, SHOP);
    const { recipient } = await createPair();
    const { identity } = await createPair("wrong.key");
    const job = await writeJob(database, `{ recipients: [${recipient}] }`);
    await cli("run", job);
    const path = execFileSync("find", [join(folder, "backups"), "-name", "key.age"], { encoding: "utf8" }).trim();
    const flipped = await readFile(path);
    flipped[60] = (flipped[60] ?? 0) ^ 1;

    const wrong = await cli("restore", job, "--identity", "wrong.key", "--yes", "--json");
    await writeFile(path, flipped);
    const damaged = await cli("restore", job, "--identity", "mine.key", "--yes", "--json");
    // As its hint says: there is a copy in the first volume.
    execFileSync("tar", ["-xf", "volume-0001.tar", "key.age"], { cwd: join(path, "..") });
    const mended = await cli("restore", job, "--identity", "mine.key", "--plan", "--json");

    expect(wrong).toMatchObject({ exitCode: 7 });
    expect(wrong.last()).toMatchObject({
      code: "wrong-key",
      hint: expect.stringContaining(keyIdOf(recipient)) as unknown,
    });
    expect(wrong.stdout + wrong.stderr).not.toContain(identity.slice(20));
    expect(damaged).toMatchObject({ exitCode: 7 });
    expect(damaged.last()).toMatchObject({
      code: "damaged",
      hint: expect.stringContaining("volume-0001.tar") as unknown,
    });
    expect(mended).toMatchObject({ exitCode: 0 });
  });

  test("is refused before the database is asked when its keys do not belong together", async () => {
    const { recipient } = await createPair();
    await createPair("other.key");
    const job = await writeJob(
      { url: "postgres://me@127.0.0.1:1/shop" },
      `{ recipients: [${recipient}], identity: "file:other.key" }`,
    );

    const result = await cli("run", job, "--json");

    expect(result).toMatchObject({ exitCode: 2 });
    expect(result.last()).toMatchObject({ code: "key-mismatch" });
    expect(await readdir(join(folder, "backups")).catch(() => [])).toEqual([]);
  });

  test("shows the secret key nowhere, even where the job file holds it in clear", async () => {
    await using database = await createDatabase(18, SHOP);
    const { recipient, identity: secret } = await createPair();
    const job = await writeJob(database, `{ recipients: [${recipient}], identity: ${secret} }`);
    const results = [await cli("run", job, "-v")];
    results.push(
      ...(await Promise.all([
        cli("run", job, "--json"),
        cli("show", job, "latest", "--json"),
        cli("restore", job, "--plan", "-v"),
        cli("job", "show", job),
        cli("job", "show", job, "--json"),
      ])),
    );
    results.push(await cli("history", job, "--json"));
    const swapped = await writeJob(database, `{ recipients: [${secret}] }`);
    results.push(
      ...(await Promise.all([cli("run", swapped), cli("run", swapped, "--json"), cli("job", "show", swapped)])),
    );

    expect(results.map(({ stdout, stderr }) => stdout + stderr).join("\n")).not.toContain(secret.slice(20));
    const found = execFileSync("grep", ["-rlaF", secret, folder], { encoding: "utf8" }).trim().split("\n").toSorted();
    expect(found).toEqual([join(folder, "mine.key"), job].toSorted());
  });

  test("warns when its keys do not open the newest snapshot", async () => {
    await using database = await createDatabase(18, SHOP);
    const [old, fresh] = [await createPair("old.key"), await createPair("fresh.key")];
    const first = await cli(
      "run",
      await writeJob(database, `{ recipients: [${old.recipient}], identity: "file:old.key" }`),
    );
    const job = await writeJob(database, `{ recipients: [${fresh.recipient}], identity: "file:fresh.key" }`);

    const second = await cli("run", job, "--json");
    const third = await cli("run", job, "--json");

    expect([first.exitCode, second.exitCode, third.exitCode]).toEqual([0, 3, 0]);
    expect(second.last()["warnings"]).toEqual([expect.stringContaining(keyIdOf(old.recipient))]);
  });

  test("warns before it restores a snapshot that is not encrypted", async () => {
    await using database = await createDatabase(18, SHOP);
    const { recipient } = await createPair();
    const job = await writeJob(database, `{ recipients: [${recipient}] }`);
    const text = await readFile(job, "utf8");
    await writeFile(job, text.replace(/^encryption.*\n/m, ""));
    await cli("run", job);
    await writeFile(job, text);

    const result = await cli("restore", job, "--plan");

    expect(result).toMatchObject({ exitCode: 0 });
    expect(result.stderr).toContain("is not encrypted, although the job encrypts");
  });
});
