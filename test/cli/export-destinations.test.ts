import { spawnSync } from "node:child_process";
import { closeSync, openSync, readdirSync } from "node:fs";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { execute } from "../../src/cli/main.ts";
import { runCli, runCliHere } from "../support/cli.ts";
import { useCliPlace } from "../support/cli-place.ts";
import { createDatabase, type TestDatabase } from "../support/postgres.ts";
import { withPrograms } from "../support/services.ts";
import { PROGRAMS, type SixDestinations, startSixDestinations } from "../support/six-destinations.ts";

const signal = new AbortController().signal;
const TYPES = ["sftp", "ftp", "s3", "azure", "gcs"] as const;
type Type = (typeof TYPES)[number];

const place = useCliPlace();
let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase(
    18,
    `create table orders (id int primary key, note text);
     insert into orders select i, md5(i::text) || md5((i * 7)::text) from generate_series(1, 20000) i`,
  );
});
afterAll(() => database?.[Symbol.asyncDispose]());

const ENTRY = fileURLToPath(new URL("../../bin/rowkeep.js", import.meta.url));
const SUM = "select count(*), md5(string_agg(id || note, ',' order by id)) from orders";

withPrograms(PROGRAMS, () => {
  let six: SixDestinations;
  const env: Record<string, string> = {};
  beforeAll(async () => {
    six = await startSixDestinations();
    await writeFile(join(six.folder, "id"), six.sftp.privateKey);
    Object.assign(env, {
      S3_SECRET: six.s3.secretAccessKey,
      FTP_PASSWORD: six.ftp.password,
      AZURE: six.azure.connection,
    });
  });
  afterAll(() => six?.[Symbol.asyncDispose]());

  /** The URL of a file, or of a folder when the name is empty. */
  function urlOf(type: Type, folder: string, name: string): string {
    const { path, host, port, user, hostKey, endpoint } = six.written(type, folder) as Record<string, string>;
    switch (type) {
      case "sftp":
        return `sftp://${user}@${host}:${port}${path}/${name}?hostKey=${hostKey}&privateKey=file:${six.folder}/id`;
      case "ftp":
        return `ftp://${user}@${host}:${port}${path}/${name}?password=\${env:FTP_PASSWORD}&ca=${six.folder}/ca.pem`;
      case "s3":
        return `s3://backups/${folder}/${name}?endpoint=${endpoint}&pathStyle=true&accessKeyId=${six.s3.accessKeyId}&secretAccessKey=\${env:S3_SECRET}`;
      case "azure":
        return `azure://backups/${folder}/${name}?connection=\${env:AZURE}`;
      case "gcs":
        return `gs://backups/${folder}/${name}?endpoint=${endpoint}&keyFile=${six.gcs.keyFile}`;
    }
  }

  async function namesAt(type: Type, folder: string): Promise<readonly string[]> {
    await using there = await six.open(type, folder);
    const names = (await Array.fromAsync(there.list("", { signal }))).map(({ key }) => key);
    const raw = type === "ftp" || type === "sftp" ? await readdir(join(six[type].folder, "data", folder)) : names;
    return [...new Set([...names, ...raw])];
  }

  const cli = (...args: string[]) => runCliHere(args, { home: place.home, cwd: place.folder, env });

  describe.each(TYPES)("rowkeep export to %s", (type) => {
    test("stores one object, which import reads, and never replaces it", async () => {
      await using empty = await createDatabase(18);
      const url = urlOf(type, "exports", "shop.rowkeep");

      const exported = await cli("export", database.url, url, "--json");
      const again = await cli("export", database.url, url, "--json");
      const imported = await cli("import", url, empty.url, "--create", "--yes", "--json");

      const file = String(exported.last()["file"]);
      expect([exported.last()["message"], exported.exitCode]).toEqual([undefined, 0]);
      expect(file).toMatch(/^[a-z0-9]+:\/\/.*\/exports\/shop\.rowkeep$/);
      expect(file).not.toContain("@");
      expect([again.exitCode, again.last()["code"]]).toEqual([9, "exists"]);
      expect(again.last()["message"]).toBe(`cannot write ${file}: it exists already`);
      expect([imported.last()["message"], imported.exitCode]).toEqual([undefined, 0]);
      expect(await empty.query(SUM)).toEqual(await database.query(SUM));
      expect(await namesAt(type, "exports")).toEqual(["shop.rowkeep"]);
      expect(await readdir(place.folder)).not.toContain("shop.rowkeep");
    });

    test("makes up a name in a folder", async () => {
      const exported = await cli("export", database.url, urlOf(type, "named", ""), "--json");

      const [name = "", ...more] = await namesAt(type, "named");
      expect([exported.exitCode, more]).toEqual([0, []]);
      expect(name).toMatch(/^t_[0-9a-f]+-\d{8}T\d{6}Z\.rowkeep$/);
      expect(exported.last()["file"]).toMatch(new RegExp(`/named/${name}$`));
    });

    test("leaves nothing when it fails", async () => {
      const failed = await cli("export", database.url, urlOf(type, "failed", "x"), "--tables", "nothing", "--json");

      expect(failed.exitCode).toBe(2);
      expect(await namesAt(type, "failed")).toEqual([]);
    });

    test("leaves nothing when it is interrupted", async () => {
      const slow = `${urlOf(type, "stopped", "shop.rowkeep")}&bandwidth=20kB`;
      const isFolder = type === "sftp" || type === "ftp";
      let meanwhile: readonly string[] = [];

      const stopped = await runCli(["export", database.url, slow], {
        home: place.home,
        cwd: place.folder,
        env: { ...env, TMPDIR: place.folder },
        during: (child) =>
          setTimeout(() => {
            meanwhile = isFolder ? readdirSync(join(six[type].folder, "data", "stopped")) : [];
            child.kill("SIGINT");
          }, 3000),
      });

      expect([stopped.exitCode, stopped.signal]).toEqual([130, null]);
      expect(meanwhile).toEqual(isFolder ? [expect.stringMatching(/^shop\.rowkeep\..*\.in-progress$/)] : []);
      expect(await namesAt(type, "stopped")).toEqual([]);
      expect(await readdir(place.folder)).toEqual(expect.not.arrayContaining([expect.stringContaining("export")]));
    });
  });

  test("rowkeep import says that a remote file is missing, a folder, or no export", async () => {
    await using there = await six.open("s3", "others");
    const text = async function* () {
      yield Buffer.alloc(2000, "x");
    };
    await there.put("text", text, { size: 2000, signal });

    const missing = await cli("import", urlOf("s3", "others", "missing"), database.url, "--json");
    const folder = await cli("import", urlOf("s3", "others", ""), database.url, "--json");
    const wrong = await cli("import", urlOf("s3", "others", "text"), database.url, "--json");

    expect([missing.exitCode, missing.last()["code"]]).toEqual([6, "not-found"]);
    expect(missing.last()["message"]).toBe("cannot open s3://backups/others/missing: it does not exist");
    expect([folder.exitCode, folder.last()["code"]]).toEqual([2, "needs-file"]);
    expect(wrong.exitCode).toBe(7);
    expect(wrong.last()["message"]).toContain("cannot read s3://backups/others/text: it is no file");
  });

  test.each(["sftp", "ftp"] as const)("rowkeep import makes no folder at %s that is not there", async (type) => {
    const mistyped = await cli("import", urlOf(type, "mis/typed", "shop.rowkeep"), database.url, "--json");

    expect([mistyped.exitCode, mistyped.last()["code"]]).toEqual([6, "not-found"]);
    expect(mistyped.last()["message"]).toMatch(/^cannot open .*mis\/typed: its folder does not exist$/);
    expect(await readdir(join(six[type].folder, "data"))).not.toContain("mis");
  });

  test.each(["sftp", "ftp"] as const)("rowkeep job create leaves no folder at %s behind its trial", async (type) => {
    const create = () =>
      cli("job", "create", "tried", "--url", database.url, "--to", urlOf(type, "new/tried", ""), "--yes", "--json");

    const created = await create();
    const kept = await readdir(join(six[type].folder, "data"));
    await cli("run", "tried");

    expect(created.exitCode).toBe(0);
    expect(kept).not.toContain("new");
    expect(await readdir(join(six[type].folder, "data/new/tried"))).toEqual(["tried"]);
  });
});

describe("rowkeep export to stdout", () => {
  async function exportHere(
    { isTTY, failAt = Number.POSITIVE_INFINITY }: { readonly isTTY?: boolean; readonly failAt?: number },
    ...more: string[]
  ) {
    const pieces: Buffer[] = [];
    let bytes = 0;
    let stderr = "";
    const stdout = {
      isTTY,
      write(data: string | Uint8Array, done?: (error?: unknown) => void) {
        bytes += data.length;
        if (bytes > failAt) done?.(Object.assign(new Error("write EPIPE"), { code: "EPIPE" }));
        else {
          pieces.push(Buffer.from(data as Uint8Array));
          done?.();
        }
        return true;
      },
    };
    const exitCode = await execute(
      ["export", database.url, "-", ...more],
      {
        stdout,
        stderr: {
          write(data) {
            stderr += data;
            return true;
          },
        },
        stdin: Readable.from([]),
        env: { ROWKEEP_HOME: place.home },
        cwd: place.folder,
        signal,
        now: () => new Date(),
      },
      { signal, by: undefined },
    );
    return { exitCode, stderr, written: Buffer.concat(pieces) };
  }

  test("writes the file there and everything else to stderr", async () => {
    await using empty = await createDatabase(18);

    const { exitCode, written, stderr } = await exportHere({});
    await writeFile(join(place.folder, "kept.rowkeep"), written);
    const imported = await place.cli("import", "kept.rowkeep", empty.url, "--create", "--yes", "--json");

    expect([exitCode, imported.exitCode]).toEqual([0, 0]);
    expect(stderr).toMatch(/done: [\s\S]* at stdout\n/);
    expect(await empty.query(SUM)).toEqual(await database.query(SUM));
  });

  test("refuses a terminal and --json, and writes nothing of the export", async () => {
    const terminal = await exportHere({ isTTY: true });
    const json = await exportHere({}, "--json");

    expect([terminal.exitCode, json.exitCode]).toEqual([2, 2]);
    expect(terminal.written).toHaveLength(0);
    expect(terminal.stderr).toContain("cannot export to stdout: it is a terminal");
    expect(JSON.parse(json.written.toString())).toMatchObject({ type: "error", code: "stdout-taken" });
  });

  test("fails when its reader goes", async () => {
    const { exitCode, stderr } = await exportHere({ failAt: 100_000 });

    expect(exitCode).toBe(6);
    expect(stderr).toContain("cannot write the export to stdout: its reader has closed it");
  });

  test("tells once that the disk behind it is full", async ({ skip }) => {
    if (process.platform !== "linux") skip("needs /dev/full");
    const full = openSync("/dev/full", "w");
    const env = { PATH: process.env.PATH, ROWKEEP_HOME: place.home };
    const stdio = ["ignore" as const, full, "pipe" as const];
    const ended = spawnSync(process.execPath, [ENTRY, "export", database.url, "-"], { env, stdio, encoding: "utf8" });
    closeSync(full);

    expect(ended.status).toBe(6);
    expect(ended.stderr.match(/^(error|hint): .*$/gm)).toEqual([
      "error: cannot write the export to stdout: no space left on the device",
      "hint:  Free space there, or send the output elsewhere.",
    ]);
  });

  test("is not what import reads", async () => {
    const imported = await place.cli("import", "-", database.url, "--json");

    expect([imported.exitCode, imported.last()["code"]]).toEqual([2, "needs-file"]);
  });
});
