import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { readHostKey } from "../../src/destinations/sftp-host-key.ts";
import { runCliHere } from "../support/cli.ts";
import { createDatabase } from "../support/postgres.ts";
import { startSshServer, withPrograms } from "../support/services.ts";

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
