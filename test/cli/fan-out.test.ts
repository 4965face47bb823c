import { generateKeyPairSync } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { findHome } from "../../src/job/home.ts";
import { readJob } from "../../src/job/read-job.ts";
import { runJob } from "../../src/usecases/run-job.ts";
import type { ProgressEvent } from "../../src/usecases/progress.ts";
import { listSnapshots } from "../../src/usecases/list-snapshots.ts";
import { startCountingProxy } from "../support/counting-proxy.ts";
import { runCli, runCliHere } from "../support/cli.ts";
import { createDatabase, type TestDatabase } from "../support/postgres.ts";
import {
  type DestinationType,
  PROGRAMS,
  type SixDestinations,
  startSixDestinations,
  TYPES,
} from "../support/six-destinations.ts";
import { withPrograms } from "../support/services.ts";

const ROWS = 60_000;
const DIGEST = "select count(*), md5(string_agg(o::text, ',' order by id)) from orders o";
const REMOTE = TYPES.filter((type) => type !== "local");
const signal = new AbortController().signal;
/** What is dead stays dead in these tests. */
const PATIENCE = {
  retry: { attempts: 3, failedAttempts: 2, firstDelayMs: 20, maxDelayMs: 50, patienceMs: 10_000 },
  openRetry: { attempts: 2, failedAttempts: 1, firstDelayMs: 20, maxDelayMs: 50, patienceMs: 10_000 },
};

withPrograms(PROGRAMS, () => {
  let six: SixDestinations;
  let database: TestDatabase;
  let folder: string;
  let home: string;
  let place = 0;
  beforeAll(async () => {
    six = await startSixDestinations();
    database = await createDatabase(
      18,
      `create table orders (id int primary key, note text);
       insert into orders select i, md5(i::text) || md5((i * 7)::text) || md5((i * 13)::text) from generate_series(1, ${ROWS}) i`,
    );
  });
  afterAll(async () => {
    await database?.[Symbol.asyncDispose]();
    await six?.[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
    home = join(folder, "home");
    place += 1;
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const cli = (...args: string[]) => runCliHere(args, { home, cwd: folder });
  const where = () => `fan-out-${place}`;

  async function writeJob(destinations: readonly object[]): Promise<string> {
    const file = join(folder, "shop.yaml");
    const content = { version: 1, name: "shop", source: { url: database.url }, destinations, volumeSize: "1MB" };
    await writeFile(file, JSON.stringify(content));
    return file;
  }

  const everywhere = () => TYPES.map((type) => six.written(type, where()));

  test("reading makes no folder where there is none", async () => {
    const folders = (["local", "ftp", "sftp"] as const).map((type) => six.written(type, `${where()}/deep`));
    const file = await writeJob(folders);

    const before = await cli("list", file, "--json");
    const shown = await cli("list", file);
    const show = await cli("show", file, "latest", "--json");
    const made = folders.map(({ path }) => existsSync(String(path)));
    const run = await cli("run", file, "--json");
    await rm(String(folders[0]?.["path"]), { recursive: true });
    const after = await cli("list", file, "--json");

    expect([before.exitCode, before.last()["snapshots"]]).toEqual([0, []]);
    expect(shown.stderr).toContain("cannot open local: its folder does not exist. The first run of a job makes it.");
    expect([show.exitCode, show.last()["code"]]).toEqual([2, "not-found"]);
    expect(made).toEqual([false, false, false]);
    expect(run.exitCode).toBe(0);
    expect([after.exitCode, after.last()["snapshots"]]).toEqual([
      3,
      [expect.objectContaining({ destinations: ["ftp", "sftp"] })],
    ]);
    expect(existsSync(String(folders[0]?.["path"]))).toBe(false);
  });

  async function run(file: string, report: (event: ProgressEvent) => void = () => {}) {
    const at = findHome({ homeFlag: home, env: {} });
    return runJob({
      job: await readJob(file, at, { cwd: folder }),
      home: at,
      env: {},
      node: "test",
      now: () => new Date(),
      stallTimeoutMs: 60_000,
      patience: PATIENCE,
      signal,
      report,
    });
  }

  /** Ids of the listed snapshots at one destination. */
  async function idsAt(type: DestinationType): Promise<string[]> {
    await using destination = await six.open(type, where());
    const prefix = `shop/${database.name}`;
    const options = { destinations: [destination], prefix, signal, report: () => {} };
    return (await listSnapshots(options)).snapshots.map(({ id }) => id);
  }

  test("one run with one read of the database gives six copies that each verify and restore", {
    timeout: 120_000,
  }, async () => {
    const file = await writeJob(everywhere());
    const rowsRead = async () => Number((await database.query("select seq_tup_read from pg_stat_user_tables"))[0]?.[0]);
    const before = await rowsRead();
    const volumes = new Set<string>();
    let most = 0;
    const watch = setInterval(() => {
      const tars = namesBelow(join(home, "state/spool/shop")).filter((name) => name.endsWith(".tar"));
      for (const name of tars) volumes.add(name);
      most = Math.max(most, tars.length);
    }, 5);

    const made = await cli("run", file, "--json");
    clearInterval(watch);
    const read = (await rowsRead()) - before;
    const digest = await database.query(DIGEST);
    const verified = await cli("verify", file, "--json");

    expect(made.exitCode, made.stdout).toBe(0);
    const [snapshot] = made.last()["snapshots"] as { destinations: { name: string; status: string }[] }[];
    expect(snapshot?.destinations).toEqual(TYPES.map((name) => ({ name, status: "stored" })));
    expect(read).toBe(ROWS);
    expect(volumes.size).toBeGreaterThan(1);
    expect(most).toBeLessThanOrEqual(4);
    expect(verified.exitCode, verified.stdout).toBe(0);
    expect(verified.last()["snapshots"]).toMatchObject(TYPES.map((destination) => ({ destination, ok: true })));
    for (const type of TYPES) {
      await database.query("delete from orders where id % 3 = 0; update orders set note = 'harmed' where id % 5 = 0");
      const restored = await cli("restore", file, "--from", type, "--no-safety", "--yes", "--json");
      expect(restored.exitCode, `${type}: ${restored.stdout}`).toBe(0);
      expect(await database.query(DIGEST), type).toEqual(digest);
    }
  });

  test("a server that is killed in mid-upload costs its own copy alone, and sync repairs that", {
    timeout: 120_000,
  }, async () => {
    const destinations = everywhere().map((one) => (one.name === "ftp" ? { ...one, bandwidth: "2MB" } : one));
    const file = await writeJob(destinations);
    let isKilled = false;
    const data = join(six.ftp.folder, "data", where());
    const watch = setInterval(() => {
      if (isKilled || !namesBelow(data).some((name) => name.endsWith("volume-0002.tar"))) return;
      isKilled = true;
      void six.ftp.kill();
    }, 10);

    const { snapshots, warnings } = await run(file).finally(() => clearInterval(watch));
    const history = await cli("history", file, "--json");
    await six.ftp.restart();
    const before = await Promise.all(TYPES.map(idsAt));
    const reads = await database.query("select seq_tup_read from pg_stat_user_tables");
    const synced = await cli("sync", file, "--json");
    const verified = await cli("verify", file, "--json");

    expect(isKilled).toBe(true);
    const id = snapshots[0]?.id;
    const fates = snapshots[0]?.destinations.map(({ name, status }) => [name, status]);
    expect(fates).toEqual(TYPES.map((name) => [name, name === "ftp" ? "failed" : "stored"]));
    expect(warnings).toEqual([expect.stringMatching(/^ftp does not have /)]);
    expect(history.last()["runs"]).toMatchObject([
      { outcome: "warning", snapshot: id, error: expect.stringMatching(/^ftp /) },
    ]);
    expect(before).toEqual(TYPES.map((type) => (type === "ftp" ? [] : [id])));
    expect(synced.exitCode, synced.stdout).toBe(0);
    expect(synced.last()["snapshots"]).toMatchObject([{ id, destination: "ftp", status: "copied" }]);
    expect(await database.query("select seq_tup_read from pg_stat_user_tables")).toEqual(reads);
    expect(verified.last()["snapshots"]).toMatchObject(TYPES.map((destination) => ({ destination, ok: true })));
  });

  test("when every destination dies in mid-run the run fails with 6, and nothing is listed", {
    timeout: 60_000,
  }, async () => {
    await using proxies = new AsyncDisposableStack();
    const ways = await Promise.all(
      REMOTE.filter((type) => type !== "ftp").map(async (type) => {
        const proxy = proxies.use(await startCountingProxy(six.portOf(type)));
        return { type, proxy };
      }),
    );
    const file = await writeJob(
      ways.map(({ type, proxy }) => ({ ...six.written(type, where(), proxy.port), bandwidth: "2MB" })),
    );

    const failure = await run(file, ({ type }) => {
      if (type === "rows") for (const { proxy } of ways) void proxy[Symbol.asyncDispose]();
    }).catch((error: unknown) => error);
    const history = await cli("history", file, "--json");

    expect(failure).toMatchObject({ kind: "destination", exitCode: 6 });
    expect(history.last()["runs"]).toMatchObject([{ outcome: "failure" }]);
    for (const { type } of ways) expect(await idsAt(type), type).toEqual([]);
  });

  describe("a restore", () => {
    test("falls to the next destination when the first is damaged or down; --from chooses", {
      timeout: 120_000,
    }, async () => {
      const file = await writeJob(everywhere());
      await cli("run", file);
      const digest = await database.query(DIGEST);
      const local = join(six.folder, where());
      const volumes = (await readdir(local, { recursive: true })).filter((name) => name.endsWith(".tar"));
      for (const name of volumes) {
        const bytes = await readFile(join(local, name));
        bytes.fill(0, 600);
        await writeFile(join(local, name), bytes);
      }
      await database.query("delete from orders where id % 3 = 0");

      const damaged = await cli("restore", file, "--from", "local", "--no-safety", "--yes", "--json");
      const fromNext = await cli("restore", file, "--no-safety", "--yes", "--json");
      const afterDamage = await database.query(DIGEST);
      await database.query("delete from orders where id % 3 = 0");
      await writeJob(
        everywhere().map((one) => (one.name === "local" ? { ...six.written("sftp", where(), 1), name: "dead" } : one)),
      );
      const whileDown = await cli("restore", file, "--no-safety", "--yes", "--json");

      expect(damaged).toMatchObject({ exitCode: 7 });
      expect(fromNext.exitCode, fromNext.stdout).toBe(3);
      expect(afterDamage).toEqual(digest);
      expect(whileDown.exitCode, whileDown.stdout).toBeLessThanOrEqual(3);
      expect(await database.query(DIGEST)).toEqual(digest);
    });
  });

  test("restoring one small table of a large snapshot reads less than 2 % of its bytes", {
    timeout: 120_000,
  }, async () => {
    await using many = await createDatabase(
      18,
      `create table small (id int primary key, note text); insert into small select i, md5(i::text) from generate_series(1, 50) i;
       do $$ begin for n in 1..300 loop
         execute format('create table large_%s (id int, a text, b text)', n);
         execute format('insert into large_%s select i, repeat(md5(i::text), 10), md5((i * 7)::text) from generate_series(1, 600) i', n);
       end loop; end $$`,
    );
    await using s3 = await startCountingProxy(six.s3.port);
    await using sftp = await startCountingProxy(six.sftp.port);
    const destinations = [six.written("s3", where(), s3.port), six.written("sftp", where(), sftp.port)];
    const file = join(folder, "shop.yaml");
    const job = { version: 1, name: "shop", source: { url: many.url }, destinations, compression: { codec: "none" } };
    await writeFile(file, JSON.stringify(job));
    const made = await cli("run", file, "--json");
    const [snapshot] = made.last()["snapshots"] as { storedBytes: number; tables: number }[];
    const digest = await many.query("select md5(string_agg(s::text, ',' order by id)) from small s");

    for (const [name, proxy] of [
      ["s3", s3],
      ["sftp", sftp],
    ] as const) {
      await many.query("delete from small where id % 2 = 0");
      proxy.reset();
      const args = ["--from", name, "--tables", "public.small", "--no-safety", "--yes", "--json"];
      const restored = await cli("restore", file, ...args);
      const share = proxy.received / (snapshot?.storedBytes ?? 0);

      expect(restored.exitCode, restored.stdout).toBe(0);
      expect(await many.query("select md5(string_agg(s::text, ',' order by id)) from small s")).toEqual(digest);
      expect(proxy.received).toBeGreaterThan(1000);
      expect(share, `${name}: ${proxy.received} bytes`).toBeLessThan(0.02);
    }
    expect(snapshot?.tables).toBe(301);
  });

  describe("secrets of destinations", () => {
    /** Every secret lies in an environment variable; `of` gives its value. */
    const hidden = (of: (type: string, field: string, right: string) => string) => {
      const env: Record<string, string> = {};
      const destinations = everywhere().map((written) =>
        Object.fromEntries(
          Object.entries(written).map(([field, value]) => {
            if (!SECRET.test(field)) return [field, value];
            const name = `${written.name}_${field}`.toUpperCase();
            env[name] = of(written.name, field, String(value));
            return [field, `\${env:${name}}`];
          }),
        ),
      );
      return { env, destinations };
    };

    /** The parts of secrets that must be nowhere. */
    async function canariesOf(env: Readonly<Record<string, string>>, keyFile: string): Promise<string[]> {
      const key = (JSON.parse(await readFile(keyFile, "utf8")) as { private_key: string }).private_key;
      const values = Object.entries(env).map(([name, value]) =>
        name === "AZURE_CONNECTION" ? (/(?:AccountKey=|sig=)([^;]+)/.exec(value)?.[1] ?? "") : value,
      );
      // Of a private key each line of its middle: a whole one may be wrapped in another way.
      const canaries = [...values, key].flatMap((value) =>
        value.includes("\n") ? value.split("\n").slice(1, 4) : [value],
      );
      expect(canaries.every((canary) => canary.length > 6)).toBe(true);
      return canaries;
    }

    /** Runs every command that touches destinations; gives all that they said and wrote, and all command lines meanwhile. */
    async function everythingSaid(file: string, env: Readonly<Record<string, string>>): Promise<string[]> {
      const said: string[] = [];
      const lines = new Set<string>();
      const watch = setInterval(() => {
        // Another test may start a server of its own, which is told the same key.
        for (const line of commandLines()) if (!line.includes("radosgw-admin")) lines.add(line);
      }, 200);
      for (const [command, ...args] of [
        ["run", file, "-v"],
        ["run", file, "--json"],
        ["list", file, "-v"],
        ["verify", file, "--json"],
        ["sync", file, "-v"],
        ["sync", file, "--dry-run", "--json"],
        ["doctor", file, "--json"],
        ["restore", file, "--plan", "-v"],
        ["history", file, "--json"],
        ["job", "show", file, "-v"],
      ]) {
        const { stdout, stderr, exitCode } = await runCli([String(command), ...args], { home, cwd: folder, env });
        expect([0, 3, 6], `${command}: ${stderr}`).toContain(exitCode);
        said.push(stdout, stderr);
      }
      clearInterval(watch);
      expect([...lines].some((line) => line.includes("rowkeep.js"))).toBe(true);
      said.push(...lines);
      for (const below of [home, join(six.folder, where())]) {
        for (const entry of await readdir(below, { recursive: true, withFileTypes: true })) {
          if (entry.isFile()) said.push(await readFile(join(entry.parentPath, entry.name), "latin1"));
        }
      }
      return said;
    }

    test("are in no output, file or process list", { timeout: 240_000 }, async () => {
      const { env, destinations } = hidden((_type, _field, right) => right);
      const file = await writeJob(destinations);

      const said = await everythingSaid(file, env);

      expect(await idsAt("gcs")).toHaveLength(2);
      const canaries = await canariesOf(env, six.gcs.keyFile);
      expect(canaries.filter((canary) => said.some((text) => text.includes(canary)))).toEqual([]);
      expect(said.filter((text) => TOKEN.test(text))).toEqual([]);
    });

    test("are nowhere when they are wrong either, and the destination that takes them is served", {
      timeout: 240_000,
    }, async () => {
      const pair = generateKeyPairSync("rsa", { modulusLength: 2048 });
      const keyFile = join(folder, "wrong.json");
      await six.gcs.writeKeyFile(keyFile, pair.privateKey);
      const { env, destinations } = hidden((type, field, right) => {
        if (field === "user" || field === "accessKeyId") return right;
        if (type === "sftp") return String(pair.privateKey.export({ type: "pkcs1", format: "pem" }));
        const wrong = Buffer.from(`canary-wrong-${type}-${field}`).toString("base64");
        return type === "azure" ? right.replace(/AccountKey=[^;]+/, `AccountKey=${wrong}`) : wrong;
      });
      const file = await writeJob(destinations.map((one) => (one["type"] === "gcs" ? { ...one, keyFile } : one)));

      const said = await everythingSaid(file, env);
      const made = await runCli(["run", file, "--json"], { home, cwd: folder, env });

      expect(made.exitCode, made.stdout).toBe(3);
      const [snapshot] = made.last()["snapshots"] as { destinations: { name: string; status: string }[] }[];
      const fates = new Map(snapshot?.destinations.map(({ name, status }) => [name, status]));
      expect(fates).toEqual(new Map(TYPES.map((type) => [type, type === "local" ? "stored" : "failed"])));
      const canaries = await canariesOf(env, keyFile);
      expect(canaries.filter((canary) => said.some((text) => text.includes(canary)))).toEqual([]);
      expect(said.filter((text) => TOKEN.test(text))).toEqual([]);
    });
  });
});

const SECRET = /^(?:password|privateKey|secretAccessKey|connection)$/;
/** A bearer token of Google: a signed JSON text. */
const TOKEN = /eyJ[\w-]{10,}\.eyJ[\w-]{10,}/;

/** Names of all files below a folder that may not be there yet, or may change meanwhile. */
function namesBelow(folder: string): readonly string[] {
  try {
    return readdirSync(folder, { recursive: true, encoding: "utf8" });
  } catch {
    return [];
  }
}

/** The command lines of all processes of this machine, as anybody can read them. */
function commandLines(): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "latin1");
      } catch {
        return [];
      }
    });
}
