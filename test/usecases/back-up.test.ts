import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { Destination } from "../../src/destinations/destination.ts";
import { openDestination } from "../../src/destinations/open-destination.ts";
import type { Manifest, StoredTable } from "../../src/snapshot/manifest.ts";
import { openSnapshotReader } from "../../src/snapshot/open-snapshot-reader.ts";
import { type BackUpOptions, backUp } from "../../src/usecases/back-up.ts";
import type { ProgressEvent } from "../../src/usecases/progress.ts";
import { backUpOptions } from "../support/back-up-options.ts";
import { executeMeanwhile } from "../support/execute-meanwhile.ts";
import { beginOnce, isLocked, openSession, SOMEBODY_WAITS } from "../support/other-session.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";

const signal = new AbortController().signal;

interface Place extends AsyncDisposable {
  readonly folder: string;
  readonly destination: Destination;
}

async function place(): Promise<Place> {
  const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  const destination = await openDestination({ type: "local", path: join(folder, "backups") }, { signal });
  return { folder, destination, [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }) };
}

function optionsFor(url: string, { folder, destination }: Place, more: Partial<BackUpOptions> = {}): BackUpOptions {
  return backUpOptions(url, { folder, destinations: [destination] }, more);
}

async function textOf(destination: Destination, manifest: Manifest, table: StoredTable): Promise<string> {
  await using reader = openSnapshotReader({ destinations: [destination], prefix: "shop/shop", manifest, signal });
  const parts: Uint8Array[] = [];
  for (const { chunks } of table.segments) {
    for await (const bytes of reader.chunks(chunks, { signal })) parts.push(Buffer.from(bytes));
  }
  return Buffer.concat(parts).toString();
}

function tableOf(manifest: Manifest, name: string): StoredTable {
  const table = manifest.tables.find((candidate) => candidate.name === name);
  if (!table) throw new Error(`no table ${name}`);
  return table;
}

describe.each(postgresMajors)("a backup of PostgreSQL %i", (major) => {
  test("stores every row of every table, and the manifest tells the truth about them", async () => {
    await using database = await createDatabase(
      major,
      `create table orders (id int primary key, note text); insert into orders select i, 'note ' || i from generate_series(1, 5000) i;
       create table empty (i int); create table odd ("a	b" text); insert into odd values (E'tab\\tnew\\nline\\\\'), (null)`,
    );
    await using at = await place();

    const { manifest, destinations } = await backUp(optionsFor(database.url, at));

    expect(destinations).toEqual([{ name: at.destination.name, status: "stored" }]);
    expect(Object.fromEntries(manifest.tables.map(({ name, rows }) => [name, rows]))).toEqual({
      empty: 0,
      odd: 2,
      orders: 5000,
    });
    const expected = Array.from({ length: 5000 }, (_, index) => `${index + 1}\tnote ${index + 1}\n`).join("");
    expect(await textOf(at.destination, manifest, tableOf(manifest, "orders"))).toBe(expected);
    expect(await textOf(at.destination, manifest, tableOf(manifest, "odd"))).toBe("tab\\tnew\\nline\\\\\n\\N\n");
    expect(manifest.consistency).toBe("snapshot");
    expect(await readdir(join(at.folder, "spool"))).toEqual([]);
  });

  test("begins again when something that it saw is gone before its definition or state is read", async () => {
    await using database = await createDatabase(
      major,
      "create table t (i int primary key); create view w as select i from t; create sequence s; create view v as select i from t",
    );
    await using at = await place();
    const changes = ["drop view w", "drop sequence s", "insert into t values (1)"];
    const ids: string[] = [];

    const { manifest } = await backUp(
      optionsFor(database.url, at, {
        onBegin: (id) => {
          ids.push(id);
          executeMeanwhile(database.url, changes.shift() ?? "");
        },
      }),
    );

    expect(ids).toHaveLength(3);
    expect(manifest.id).toBe(ids.at(-1));
    expect(manifest.definitions.map(({ kind, name }) => `${kind} ${name}`)).toEqual([
      "schema public",
      "table t",
      "view v",
      "constraint t_pkey",
    ]);
    expect(manifest.tables.map(({ rows }) => rows)).toEqual([0]);
    expect(await readdir(join(at.folder, "backups", "shop", "shop"))).toEqual([manifest.id]);
  });

  test("gives up where something goes each time, and leaves nothing", async () => {
    await using database = await createDatabase(
      major,
      "create view v1 as select 1; create view v2 as select 1; create view v3 as select 1; create view v4 as select 1",
    );
    await using at = await place();
    let count = 0;

    const running = backUp(
      optionsFor(database.url, at, { onBegin: () => executeMeanwhile(database.url, `drop view v${++count}`) }),
    );

    await expect(running).rejects.toMatchObject({ kind: "database", code: "schema-changed" });
    expect(count).toBe(4);
    expect(await readdir(join(at.folder, "spool"))).toEqual([]);
    await expect(readdir(join(at.folder, "backups"))).resolves.toEqual([]);
  });

  test("gives way to a migration that changes a view and then needs a table", async () => {
    await using database = await createDatabase(
      major,
      "create table t (i int primary key); create table kept (i int); create view v as select 1 as one",
    );
    await using at = await place();
    await using migration = await openSession(database.url);
    await migration.query("begin; drop view v");
    let dropped: Promise<unknown> | undefined;

    const { manifest } = await backUp(
      optionsFor(database.url, at, {
        onBegin: () => {
          dropped ??= migration.query("drop table t; commit");
        },
      }),
    );

    await expect(dropped).resolves.toBeDefined();
    expect(manifest.tables.map(({ name }) => name)).toEqual(["kept"]);
    expect(manifest.definitions.map(({ kind, name }) => `${kind} ${name}`)).toEqual(["schema public", "table kept"]);
  });

  test("lets go of all tables while it waits for a view that a transaction changes", async () => {
    await using database = await createDatabase(
      major,
      "create table t (i int primary key); create view v as select 1 as one",
    );
    await using at = await place();
    await using other = await openSession(database.url);
    await other.query("begin; create or replace view v as select 2 as one");
    const phases: string[] = [];

    const { manifest } = await backUp(
      optionsFor(database.url, at, {
        report: (event) => {
          if (event.type !== "phase" || !event.text.startsWith("beginning again: ")) return;
          phases.push(event.text);
          if (phases.length === 2) void other.query("truncate t; commit");
        },
      }),
    );

    expect(phases).toEqual(
      Array(2).fill("beginning again: cannot read the definitions: another session is changing what is to be read"),
    );
    expect(manifest.definitions.find(({ kind }) => kind === "view")?.sql).toContain("SELECT 2");
  });

  test("ends beside a change of a table that waits for it, when the table is compared with its base, too", async () => {
    await using database = await createDatabase(major, "create table t (i int primary key); create table u (i int)");
    await using at = await place();
    await using migration = await openSession(database.url);
    const altering = beginOnce(database.url, migration, "alter table t add column j int", SOMEBODY_WAITS);

    const { manifest } = await backUp(optionsFor(database.url, at, { track: true, onBegin: altering.begin }));

    await expect(altering.ended()).resolves.toBeDefined();
    expect(tableOf(manifest, "t").columns.map(({ name }) => name)).toEqual(["i", "j"]);
  });

  test("waits for a catalog that is locked for a moment", async () => {
    await using database = await createDatabase(
      major,
      "create table t (i int primary key); create type e as enum ('a')",
    );
    await using at = await place();
    await using other = await openSession(database.url);
    const sql =
      "begin; lock table pg_catalog.pg_enum, pg_catalog.pg_range in access exclusive mode; select pg_sleep(1); commit";
    const locking = beginOnce(database.url, other, sql, isLocked("pg_catalog.pg_enum"));

    const { manifest } = await backUp(optionsFor(database.url, at, { track: true, onBegin: locking.begin }));

    await expect(locking.ended()).resolves.toBeDefined();
    expect(manifest.tables).toHaveLength(1);
  });

  test("tells at once that a sequence may not be read, not when all rows were", async () => {
    await using database = await createDatabase(
      major,
      `create table t (v text); insert into t select repeat(md5(i::text), 30) from generate_series(1, 60000) i; create sequence s;
       drop role if exists half_${major}; create role half_${major} login password 'pw'; grant select on t to half_${major}`,
    );
    await using at = await place();
    const events: ProgressEvent[] = [];

    const running = backUp(
      optionsFor(database.urlFor(`half_${major}`, "pw"), at, { report: (event) => events.push(event) }),
    );

    await expect(running).rejects.toMatchObject({ kind: "database", code: "denied" });
    const rows = events.reduce((sum, event) => sum + (event.type === "rows" ? event.rows : 0), 0);
    expect(rows).toBeLessThan(60_000);
    await database.query(`drop owned by half_${major}`);
  });

  test("ends with the good destinations when one of them fails", async () => {
    await using database = await createDatabase(major, "create table t (i int); insert into t values (1)");
    await using good = await place();
    await using bad = await place();
    await rm(join(bad.folder, "backups"), { recursive: true });
    await writeFile(join(bad.folder, "backups"), "a file where the folder was");

    const { destinations } = await backUp(
      optionsFor(database.url, good, { destinations: [good.destination, bad.destination] }),
    );

    expect(destinations.map(({ status }) => status)).toEqual(["stored", "failed"]);
    expect(destinations[1]?.error).toMatchObject({ kind: "destination" });
  });

  test("leaves nothing at the destination when it is stopped half-way", async () => {
    await using database = await createDatabase(
      major,
      "create table t (v text); insert into t select md5(i::text) || repeat('x', 900) from generate_series(1, 60000) i",
    );
    await using at = await place();
    const controller = new AbortController();
    const stopAtRows = (event: ProgressEvent) => {
      if (event.type === "rows") controller.abort(new DOMException("stopped", "AbortError"));
    };

    const run = backUp(optionsFor(database.url, at, { signal: controller.signal, report: stopAtRows }));

    await expect(run).rejects.toThrow("stopped");
    expect(await filesBelow(at.folder)).toEqual([]);
  });

  test("keeps files and directories, links as links, and names what it could not read", async () => {
    await using database = await createDatabase(major, "create table t (i int)");
    await using at = await place();
    const folder = join(at.folder, "files");
    const { mkdir, symlink } = await import("node:fs/promises");
    const { execFileSync } = await import("node:child_process");
    await mkdir(join(folder, "sub"), { recursive: true });
    await writeFile(join(folder, "sub", "large.bin"), Buffer.alloc(9_000_000, "abc"));
    await writeFile(join(folder, "empty"), "");
    await symlink("/etc/passwd", join(folder, "link"));
    execFileSync("mkfifo", [join(folder, "pipe")]);
    await chmod(join(folder, "empty"), 0o640);

    const { manifest } = await backUp(optionsFor(database.url, at, { files: [folder] }));

    const files = manifest.files.map(({ path, type, size, linkTarget }) => [
      path.slice(folder.length),
      type,
      size,
      linkTarget,
    ]);
    expect(files).toEqual([
      ["", "directory", 0, undefined],
      ["/empty", "file", 0, undefined],
      ["/link", "symlink", 0, "/etc/passwd"],
      ["/sub", "directory", 0, undefined],
      ["/sub/large.bin", "file", 9_000_000, undefined],
    ]);
    expect(manifest.files.find(({ path }) => path.endsWith("empty"))?.mode).toBe(0o640);
    expect(manifest.warnings).toEqual([expect.stringContaining("/pipe is not in the backup")]);
    const large = manifest.files.find(({ path }) => path.endsWith("large.bin"));
    await using reader = openSnapshotReader({ destinations: [at.destination], prefix: "shop/shop", manifest, signal });
    const hash = createHash("sha256");
    for await (const bytes of reader.chunks(large?.chunks ?? [], { signal })) hash.update(bytes);
    expect(hash.digest("hex")).toBe(
      createHash("sha256")
        .update(await readFile(join(folder, "sub", "large.bin")))
        .digest("hex"),
    );
  });
});

test("stores a table with a value that text cannot carry in binary", { timeout: 120_000 }, async () => {
  await using database = await createDatabase(
    18,
    `create table t (i int, b bytea); insert into t select i, '\\x01' from generate_series(1, 10) i;
     alter table t alter b set storage external; insert into t select 11, decode(repeat('ab', 1000000), 'hex') from generate_series(1, 1);
     update t set b = (select string_agg(b, '') from (select t2.b from t t2, generate_series(1, 550) where t2.i = 11) q) where i = 11;
     create table other (i int); insert into other values (1)`,
  );
  await using at = await place();
  let peak = 0;

  const { manifest } = await backUp(
    optionsFor(database.url, at, {
      report: () => {
        peak = Math.max(peak, process.memoryUsage.rss());
      },
    }),
  );

  expect(tableOf(manifest, "t")).toMatchObject({ format: "binary", rows: 11 });
  expect(tableOf(manifest, "t").rawBytes).toBeGreaterThan(550_000_000);
  expect(tableOf(manifest, "other")).toMatchObject({ format: "text", rows: 1 });
});

async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => entry.name);
}

test("begins again with another id when another machine takes the same one at a destination", async () => {
  await using database = await createDatabase(18, "create table t (i int); insert into t values (1)");
  await using near = await place();
  await using far = await place();
  const foreign = (id: string) => join(near.folder, "backups", "shop", "shop", id);
  const ids: string[] = [];
  const taken: string[] = [];
  const phases: string[] = [];

  const { manifest, destinations } = await backUp(
    optionsFor(database.url, near, {
      destinations: [near.destination, far.destination],
      onBegin: (id) => {
        if (ids.push(id) > 1) return;
        mkdirSync(foreign(id), { recursive: true });
        writeFileSync(join(foreign(id), "volume-0001.tar"), "of the other one");
      },
      onTaken: (id) => taken.push(id),
      report: (event) => event.type === "phase" && phases.push(event.text),
    }),
  );

  const [first = "", second = ""] = ids;
  expect(ids).toEqual([first, manifest.id]);
  expect(taken).toEqual([first]);
  expect(phases[0]).toBe(`connecting to ${database.name} and locking its tables`);
  expect(destinations.map(({ status }) => status)).toEqual(["stored", "stored"]);
  expect(await readdir(foreign(first))).toEqual(["volume-0001.tar"]);
  expect(await readFile(join(foreign(first), "volume-0001.tar"), "utf8")).toBe("of the other one");
  expect(await readdir(join(far.folder, "backups", "shop", "shop"))).toEqual([second]);
});
