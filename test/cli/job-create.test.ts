import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { CliContext } from "../../src/cli/context.ts";
import { DestinationTrial } from "../../src/cli/try-destination.ts";
import { readHostKey } from "../../src/destinations/sftp-host-key.ts";
import { runCliHere } from "../support/cli.ts";
import { createDatabase } from "../support/postgres.ts";
import { startSshServer, withPrograms } from "../support/services.ts";
import { openShownOutput } from "../support/shown-output.ts";

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
});

afterEach(() => rm(folder, { recursive: true, force: true }));

const cli = (...args: string[]) =>
  runCliHere(args, { home: join(folder, "home"), cwd: folder, env: { SHOP_PW: "postgres" } });

withPrograms(["sshd", "ssh-keygen"], () => {
  test("makes an encrypted job for an SFTP server, which runs and proves itself", async () => {
    await using database = await createDatabase(18, "create table t (id int); insert into t values (1)");
    await using server = await startSshServer();
    await writeFile(join(folder, "id"), server.privateKey, { mode: 0o600 });
    const hostKey = await readHostKey(
      { host: "127.0.0.1", port: server.port },
      { signal: AbortSignal.timeout(10_000) },
    );
    const key = await cli("key", "create", "--json");
    const recipient = String(key.last()["recipient"]);
    const to = `sftp://${server.user}@127.0.0.1:${server.port}${server.folder}/data?privateKey=file:id&hostKey=${hostKey}`;

    const created = await cli(
      "job",
      "create",
      "shop",
      "--url",
      database.url,
      "--to",
      to,
      "./here",
      "--encrypt-to",
      recipient,
      "--yes",
    );
    const run = await cli("run", "shop", "--json");
    const checked = await cli("doctor", "shop", "--json");
    const closed = await cli("verify", "shop", "--drill", "--json");
    const drilled = await cli("verify", "shop", "--drill", "--identity", "rowkeep.key", "--json");

    expect(created.exitCode, created.stderr).toBe(0);
    expect(hostKey).toBe(server.hostKey);
    const text = await readFile(join(folder, "home", "jobs", "shop.yaml"), "utf8");
    expect(text).toContain(`privateKey: file:${folder}/id`);
    expect(text).toContain(`path: ${folder}/here`);
    expect(text).toContain(recipient);
    expect(run.exitCode, run.stdout).toBe(0);
    const checks = checked.last()["checks"] as { name: string; status: string }[];
    expect(checks.filter(({ status }) => status === "failed")).toEqual([]);
    expect(checks.filter(({ name }) => name === "write")).toHaveLength(2);
    expect(closed.last()).toMatchObject({ type: "error", code: "key-needed", exitCode: 7 });
    expect(drilled.exitCode, drilled.stdout).toBe(0);
    expect(drilled.last()).toMatchObject({ ok: true, snapshots: [{ rows: 1, drilledAt: expect.any(String) }] });
  });
});

test("keeps schedule and dr site of the flags, passwords apart, and deletes what it stored", async () => {
  await using database = await createDatabase(18, "create table t (id int)");
  await using other = await createDatabase(18, "create table t (id int)");
  const [full, incremental] = ["0 2 * * sun", "0 * * * *"];
  const create = ["job", "create", "shop", "--url", database.url, "--to", "./here", "--yes", "--json"];
  const flags = ["--full", full, "--incremental", incremental, "--dr-url", other.url];

  const created = await cli(...create, ...flags);
  const run = await cli("run", "shop", "--json");
  const compared = await cli("compare", "shop", "--json");
  const text = await readFile(join(folder, "home", "jobs", "shop.yaml"), "utf8");
  const stored = await readdir(join(folder, "home", "secrets"));
  const deleted = await cli("job", "delete", "shop", "--yes", "--json");
  const left = [...(await readdir(join(folder, "home", "secrets"))), ...(await readdir(join(folder, "home", "jobs")))];
  const again = await cli(...create);

  expect([created.exitCode, run.exitCode, compared.exitCode], created.stdout).toEqual([0, 0, 0]);
  expect(text).toContain(`full: ${full}\n  incremental: ${incremental}`);
  const next = (created.last()["nextRuns"] as string[]).map((at) => Date.parse(at));
  expect(next).toHaveLength(3);
  expect(Math.max(...next) - Date.now()).toBeLessThanOrEqual(3 * 3_600_000);
  expect(stored.sort()).toEqual(["shop.dr-url", "shop.password"]);
  expect(text).not.toContain(":postgres@");
  expect([deleted.exitCode, left, again.exitCode]).toEqual([0, [], 0]);
});

test("deletes no secret that another job needs, and no key of the snapshots", async () => {
  const [jobs, secrets] = [join(folder, "home", "jobs"), join(folder, "home", "secrets")];
  const create = ["job", "create", "shop", "--url", "postgres://me:pw@127.0.0.1:1/shop", "--to", "./here"];
  await cli(...create, "--no-check", "--yes");
  await writeFile(join(secrets, "shop.key"), "");
  const text = await readFile(join(jobs, "shop.yaml"), "utf8");
  await writeFile(join(jobs, "copy.yaml"), text.replace("name: shop", "name: copy"));
  await writeFile(join(jobs, "shop.yaml"), `${text}encryption: { passphrase: "file:${secrets}/shop.key" }\n`);

  const deleted = await cli("job", "delete", "shop", "--yes", "--json");

  expect(deleted.last()).toMatchObject({ type: "result", secrets: [] });
  expect((await readdir(secrets)).sort()).toEqual(["shop.key", "shop.password"]);
});

test.each([
  ["a schedule is none", ["--full", "61 * * * *"], "--full"],
  ["another schedule never fires", ["--incremental", "0 0 30 2 *"], "--incremental"],
  ["a time zone is none", ["--full", "0 2 * * *", "--timezone", "Europe/Pariss"], "--timezone"],
  ["the name is none", ["--codec", "zip"], "compression.codec"],
])("leaves nothing behind when %s", async (_what, more, words) => {
  const url = "postgres://me:pw@127.0.0.1:1/shop";

  const result = await cli("job", "create", "shop", "--url", url, "--to", "./a", "--no-check", "--yes", ...more);

  expect([result.exitCode, result.stderr]).toEqual([2, expect.stringContaining(words)]);
  expect(await readdir(folder)).toEqual([]);
});

test("leaves nothing behind when a later destination, the dr site or the job's file cannot be used", async () => {
  await using database = await createDatabase(18);
  await writeFile(join(folder, "taken"), "");
  const create = (...more: string[]) => cli("job", "create", "shop", "--url", database.url, "--yes", ...more);

  const destination = await create("--to", "./deep/here", "./taken");
  const dr = await create("--to", "./here", "--dr-url", "postgres://me:pw@127.0.0.1:1/shop");
  const early = await readdir(folder);
  await mkdir(join(folder, "home", "jobs", "shop.yaml"), { recursive: true });
  const file = await create("--to", "./here", "--force");

  expect([destination.exitCode, dr.exitCode, file.exitCode]).toEqual([6, 5, 2]);
  expect(early).toEqual(["taken"]);
  expect(await readdir(join(folder, "home", "secrets"))).toEqual([]);
  expect((await readdir(folder)).sort()).toEqual(["home", "taken"]);
});

test("removes the folders that trying destinations made, unless the job keeps them or something lies there", async () => {
  const { output } = await openShownOutput();
  const context = { cwd: folder, env: {}, signal: AbortSignal.timeout(30_000), output } as unknown as CliContext;
  await mkdir(join(folder, "mine"));
  const to = (path: string) => ({ type: "local", path }) as const;
  {
    await using trial = new DestinationTrial(context);
    for (const [index, path] of ["mine", "deep/first", "deep/second", "kept/here", "used/too"].entries()) {
      await trial.try(to(path), index);
    }
    await writeFile(join(folder, "used", "too", "file"), "");
    await trial.keep([to("kept/here")]);
  }

  const left = await readdir(folder, { recursive: true });

  expect(left.sort()).toEqual(["kept", "kept/here", "mine", "used", "used/too", "used/too/file"].sort());
});

test("writes nothing when a destination cannot be used, a secret is in clear, or a key is none", async () => {
  await using database = await createDatabase(18);
  const create = (...more: string[]) => cli("job", "create", "shop", "--url", database.url, "--yes", "--json", ...more);

  const closed = await create("--to", "ftp://me@127.0.0.1:1/x?password=${env:SHOP_PW}&tls=off");
  const clear = await create("--to", "s3://b?secretAccessKey=canary-in-argv");
  const noKey = await create("--to", "./here", "--encrypt-to", "age1wrong");

  expect(closed.last()).toMatchObject({ type: "error", exitCode: 6, code: "unreachable" });
  expect(clear.last()).toMatchObject({ type: "error", exitCode: 2, code: "secret-in-url" });
  expect(clear.stdout + clear.stderr).not.toContain("canary-in-argv");
  expect(noKey.last()).toMatchObject({ type: "error", exitCode: 2, code: "bad-recipient" });
  expect(await readdir(folder)).toEqual([]);
});

test("tells the next runs and their commands of a job with incrementals only", async () => {
  await using database = await createDatabase(18);

  const created = await cli(
    "job",
    "create",
    "shop",
    "--url",
    database.url,
    "--to",
    "./here",
    "--incremental",
    "0 * * * *",
    "--yes",
  );

  expect(created.exitCode).toBe(0);
  expect(created.stdout).toMatch(/^next runs: \S+ \S+ \(incremental\), /m);
  expect(created.stdout).toContain("rowkeep run shop --incremental");
});

test("refuses a name that no job can have before it tries anything", async () => {
  const refused = await cli(
    "job",
    "create",
    "my shop",
    "--url",
    "postgres://me@127.0.0.1:1/shop",
    "--to",
    "./here",
    "--yes",
    "--json",
  );

  expect(refused.last()).toMatchObject({ code: "invalid-name", exitCode: 2 });
  expect(refused.last()["message"]).toMatch(/^cannot create the job "my shop": its name must begin with/);
  expect(await readdir(folder)).toEqual([]);
});

test.each([
  ["shop.yml", "must not end in .yaml or .yml"],
  ["shop.", "must not end in a dot"],
  ["con", "a device of Windows"],
  ["Nul.shop", "a device of Windows"],
])("refuses the name %s that is a path, or no folder of its own on Windows", async (name, words) => {
  const flags = ["--url", "postgres://me@127.0.0.1:1/shop", "--to", "./here", "--yes", "--json"];
  const refused = await cli("job", "create", name, ...flags);

  expect(refused.last()).toMatchObject({ code: "invalid-name", exitCode: 2 });
  expect(refused.last()["message"]).toContain(words);
  expect(await readdir(folder)).toEqual([]);
});

test("refuses the name of another job before it tries or asks anything", async () => {
  await using database = await createDatabase(18);
  await cli("job", "create", "shop", "--url", database.url, "--to", "./here", "--yes");

  const nowhere = ["--url", "postgres://me@127.0.0.1:1/shop", "--to", "./there", "--yes", "--json"];
  const again = await cli("job", "create", "shop", ...nowhere);

  expect(again.last()).toMatchObject({ code: "exists", exitCode: 9, hint: expect.stringContaining("--force") });
  expect(await readdir(folder)).not.toContain("there");
});
