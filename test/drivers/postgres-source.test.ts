import { describe, expect, test, vi } from "vitest";
import type { OpenSourceOptions, Source, SourceTable } from "../../src/drivers/driver.ts";
import { openSource } from "../../src/drivers/open-driver.ts";
import { connectionOfUrl } from "../support/connection.ts";
import { createDatabase, postgresMajors, type TestDatabase } from "../support/postgres.ts";
import { startStallingProxy } from "../support/stalling-proxy.ts";

const signal = new AbortController().signal;

function open(url: string, options: Partial<OpenSourceOptions> = {}): Promise<Source> {
  return openSource(connectionOfUrl(url), {
    parallel: 2,
    choose: () => "rows",
    stallTimeoutMs: 60_000,
    signal,
    ...options,
  });
}

async function tableOf(source: Source, name: string): Promise<SourceTable> {
  const { tables } = source;
  const table = tables.find((candidate) => candidate.name === name);
  if (!table) throw new Error(`no table ${name} among ${tables.map((candidate) => candidate.name).join(", ")}`);
  return table;
}

interface Read {
  readonly text: string;
  readonly rows: number;
}

async function read(source: Source, table: SourceTable, pieces = 1, batchBytes = 1 << 20): Promise<Read> {
  const parts: Buffer[] = [];
  let rows = 0;
  for (const segment of source.segments(table, pieces)) {
    for await (const batch of source.rows(table, segment, { batchBytes, signal })) {
      parts.push(Buffer.from(batch.bytes));
      rows += batch.rows;
    }
  }
  return { text: Buffer.concat(parts).toString(), rows };
}

async function createLogin(database: TestDatabase, name: string, settings = ""): Promise<string> {
  await database.query(`drop role if exists ${name}; create role ${name} login password 'pw'; ${settings}`);
  return database.urlFor(name, "pw");
}

describe.each(postgresMajors)("PostgreSQL %i source", (major) => {
  test("reads all tables as they were at one instant, whatever is committed meanwhile", async () => {
    await using database = await createDatabase(
      major,
      "create table a (i int); create table b (i int); insert into a values (1); insert into b values (1)",
    );
    await using source = await open(database.url);
    await database.query("insert into a values (2); delete from b");

    const a = await read(source, await tableOf(source, "a"));
    const b = await read(source, await tableOf(source, "b"));

    expect([a.text, b.text]).toEqual(["1\n", "1\n"]);
  });

  test("keeps TRUNCATE out until the last row is read, because it would empty the snapshot too", async () => {
    await using database = await createDatabase(major, "create table a (i int); insert into a values (1)");
    await using source = await open(database.url);

    await expect(database.query("set lock_timeout = '100ms'; truncate a")).rejects.toThrow(/lock timeout/);

    expect(await read(source, await tableOf(source, "a"))).toEqual({ text: "1\n", rows: 1 });
  });

  test("is not led astray by the session settings of a role", async () => {
    await using database = await createDatabase(
      major,
      `create table t (d date, i interval, f float4, at timestamptz, b bytea);
       insert into t values ('2024-02-01', '-1 day -02:03:04', 1e-45, '2024-02-01 12:00+00', '\\xdeadbeef')`,
    );
    const url = await createLogin(
      database,
      `settings_${major}`,
      `grant select on t to settings_${major};
       alter role settings_${major} set datestyle = 'SQL, DMY'; alter role settings_${major} set intervalstyle = 'sql_standard';
       alter role settings_${major} set extra_float_digits = 0; alter role settings_${major} set timezone = 'Asia/Kolkata';
       alter role settings_${major} set bytea_output = 'escape'; alter role settings_${major} set client_encoding = 'LATIN1'`,
    );
    await using source = await open(url);

    const { text } = await read(source, await tableOf(source, "t"));

    expect(text).toBe("2024-02-01\t-1 days -02:03:04\t1e-45\t2024-02-01 12:00:00+00\t\\\\xdeadbeef\n");
  });

  test("names the table that the login may not read, before anything is read", async () => {
    await using database = await createDatabase(major, "create table open (i int); create table shut (i int)");
    const url = await createLogin(database, `denied_${major}`, `grant select on open to denied_${major}`);

    const opening = open(url);

    await expect(opening).rejects.toMatchObject({ kind: "database", code: "denied" });
    await expect(opening).rejects.toThrow(/public\.shut.*lacks SELECT/);
  });

  test("refuses a table whose row security would hide rows, even from its owner", async () => {
    await using database = await createDatabase(major);
    const url = await createLogin(database, `rls_${major}`, `grant all on schema public to rls_${major}`);
    await database.query(
      `set role rls_${major}; create table t (i int); insert into t select generate_series(1, 10);
       alter table t enable row level security; alter table t force row level security; create policy p on t using (i > 7)`,
    );

    await expect(open(url)).rejects.toMatchObject({ kind: "database", code: "row-security" });
    await database.query("drop table t");
    await database.query(`reset role; drop owned by rls_${major}`);
  });

  test("reads partitions one by one, parents without their children, and no generated values", async () => {
    await using database = await createDatabase(
      major,
      `create table p (i int) partition by range (i);
       create table p1 partition of p for values from (0) to (10); create table p2 partition of p for values from (10) to (20);
       insert into p values (1), (11);
       create table parent (i int); create table child () inherits (parent); insert into parent values (1); insert into child values (2);
       create table g (a int, b int generated always as (a * 2) stored); insert into g values (4);
       create table nothing (); insert into nothing default values; insert into nothing default values;
       create table computed (b int generated always as (1) stored); insert into computed default values`,
    );
    await using source = await open(database.url);
    const { tables } = source;

    const texts: Record<string, string> = {};
    for (const table of tables) texts[table.name] = (await read(source, table)).text;

    expect(texts).toEqual({
      p1: "1\n",
      p2: "11\n",
      parent: "1\n",
      child: "2\n",
      g: "4\n",
      nothing: "\n\n",
      computed: "\n",
    });
    expect((await tableOf(source, "p1")).partitionRoot).toEqual({ schema: "public", name: "p" });
  });

  test("divides a table into segments that hold every row once", async () => {
    await using database = await createDatabase(
      major,
      "create table t (i int primary key, pad text); insert into t select i, repeat('x', 400) from generate_series(1, 120000) i; analyze t",
    );
    await using source = await open(database.url);
    const table = await tableOf(source, "t");

    const whole = await read(source, table);
    const divided = await read(source, table, 3);

    expect(source.segments(table, 3).length).toBe(3);
    expect(divided).toEqual(whole);
    expect(whole.rows).toBe(120_000);
  });

  test("opens as many connections as it may, whatever is asked of it at once", async () => {
    await using database = await createDatabase(
      major,
      "create table a (i int); insert into a select generate_series(1, 1000)",
    );
    await using source = await open(database.url, { parallel: 2 });
    const table = await tableOf(source, "a");

    const counts = Array.from({ length: 6 }, () => source.fingerprints.count(table, { signal }));
    const reads = Array.from({ length: 3 }, async () => (await read(source, table)).rows);
    const results = await Promise.all([...counts, ...reads]);

    expect(results).toEqual(Array.from({ length: 9 }, () => 1000));
    // The leader holds the snapshot.
    const sessions = `from pg_stat_activity where application_name = 'rowkeep backup' and datname = current_database()`;
    expect(await database.query(`select count(*) ${sessions}`)).toEqual([["3"]]);
  });

  test("opens other connections in place of those that broke", async () => {
    await using database = await createDatabase(major, "create table a (i int); insert into a values (1)");
    await using source = await open(database.url, { parallel: 2 });
    const table = await tableOf(source, "a");
    const ask = () => Promise.allSettled([1, 2].map(() => source.fingerprints.count(table, { signal })));
    await Promise.all([read(source, table), read(source, table)]);
    const sessions = `from pg_stat_activity where application_name = 'rowkeep backup' and datname = current_database()`;
    await database.query(
      `select pg_terminate_backend(pid) ${sessions} and backend_start > (select min(backend_start) ${sessions})`,
    );

    const broken = await ask();
    const { rows } = await read(source, table);

    expect(broken.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    expect(rows).toBe(1);
  });

  test("cuts batches at the ends of rows, and a row that is larger than a batch into several", async () => {
    await using database = await createDatabase(
      major,
      "create table t (i int, v text); insert into t select i, repeat('a', 700) from generate_series(1, 100) i; insert into t values (101, repeat('b', 100000))",
    );
    await using source = await open(database.url);
    const table = await tableOf(source, "t");
    const batches: { text: string; rows: number }[] = [];

    for await (const batch of source.rows(table, { estimatedBytes: 0 }, { batchBytes: 4096, signal })) {
      batches.push({ text: Buffer.from(batch.bytes).toString(), rows: batch.rows });
    }

    const [small, large] = [
      batches.filter((batch) => !batch.text.includes("b")),
      batches.filter((batch) => batch.text.includes("b")),
    ];
    expect(small.every((batch) => batch.text.endsWith("\n") && batch.text.split("\n").length - 1 === batch.rows)).toBe(
      true,
    );
    expect(large.length).toBeGreaterThan(20);
    expect(batches.every((batch) => batch.text.length <= 4096)).toBe(true);
    expect(batches.reduce((sum, batch) => sum + batch.rows, 0)).toBe(101);
    expect(batches.map((batch) => batch.text).join("")).toBe((await read(source, table)).text);
  });

  test("reads table after table into the same two buffers", async () => {
    const tables = Array.from({ length: 20 }, (_, index) => `create table t${index} as select ${index} as i`);
    await using database = await createDatabase(major, tables.join(";"));
    await using source = await open(database.url);
    const buffers = new Set<ArrayBufferLike>();
    const values: string[] = [];

    for (const table of source.tables) {
      for await (const { bytes } of source.rows(table, { estimatedBytes: 0 }, { batchBytes: 4096, signal })) {
        buffers.add(bytes.buffer);
        values.push(Buffer.from(bytes).toString());
      }
    }

    expect(values).toEqual(tables.map((_, index) => `${index}\n`));
    expect(buffers.size).toBeLessThanOrEqual(2);
  });

  test("reads a table in binary when asked, and counts its rows", async () => {
    await using database = await createDatabase(
      major,
      "create table t (b bytea); insert into t select '\\x00ff' from generate_series(1, 1000)",
    );
    await using source = await open(database.url);
    const table = await tableOf(source, "t");
    const parts: Buffer[] = [];
    let rows = 0;

    for await (const batch of source.rows(
      table,
      { estimatedBytes: 0 },
      { format: "binary", batchBytes: 1024, signal },
    )) {
      parts.push(Buffer.from(batch.bytes));
      rows += batch.rows;
    }

    const bytes = Buffer.concat(parts);
    expect(bytes.subarray(0, 11).toString("latin1")).toBe("PGCOPY\n\xff\r\n\0");
    expect(bytes.length).toBe(19 + 1000 * (2 + 4 + 2) + 2);
    expect(rows).toBe(1000);
  });

  test("ends with the abort's reason in the middle of a COPY, and leaves no statement running on the server", async () => {
    await using database = await createDatabase(
      major,
      "create table t (v text); insert into t select repeat('x', 1000) from generate_series(1, 100000)",
    );
    const controller = new AbortController();
    const source = await open(database.url, { signal: controller.signal });
    const table = await tableOf(source, "t");

    const reading = (async () => {
      for await (const _batch of source.rows(
        table,
        { estimatedBytes: 0 },
        { batchBytes: 65536, signal: controller.signal },
      )) {
        controller.abort(new DOMException("stopped by the test", "AbortError"));
      }
    })();

    await expect(reading).rejects.toThrow("stopped by the test");
    await source[Symbol.asyncDispose]();
    await expect.poll(() => backendsOf(database), { timeout: 5000 }).toBe(0);
  });

  test("fails when the server ends the connection in the middle of a COPY", async () => {
    await using database = await createDatabase(
      major,
      "create table t (v text); insert into t select repeat('x', 1000) from generate_series(1, 200000)",
    );
    await using source = await open(database.url);
    const table = await tableOf(source, "t");
    let killed = false;

    const reading = (async () => {
      for await (const _batch of source.rows(table, { estimatedBytes: 0 }, { batchBytes: 65536, signal })) {
        if (killed) continue;
        killed = true;
        await database.query(
          "select pg_terminate_backend(pid) from pg_stat_activity where query like 'copy%' and datname = current_database()",
        );
      }
    })();

    await expect(reading).rejects.toMatchObject({ kind: "database" });
  });

  test("gives up on a connection that stalls", async () => {
    await using database = await createDatabase(
      major,
      "create table t (v text); insert into t select repeat('x', 1000) from generate_series(1, 200000)",
    );
    const url = new URL(database.url);
    await using proxy = await startStallingProxy(Number(url.port));
    url.port = String(proxy.port);
    const source = await open(url.href, { stallTimeoutMs: 500 });
    const table = await tableOf(source, "t");

    const reading = (async () => {
      for await (const _batch of source.rows(table, { estimatedBytes: 0 }, { batchBytes: 65536, signal }))
        proxy.stall();
    })();

    await expect(reading).rejects.toThrow(/no data arrived|took no data|stalled/);
    proxy.cut();
    await source[Symbol.asyncDispose]();
  });

  test("says so at once when somebody's queued ALTER TABLE would make the streams wait for each other", async () => {
    await using database = await createDatabase(major, "create table t (i int); insert into t values (1)");
    await using source = await open(database.url);
    const table = await tableOf(source, "t");
    const altering = database.query("alter table t add column j int").catch(() => undefined);
    await expect
      .poll(async () => (await database.query("select count(*) from pg_locks where not granted"))[0]?.[0])
      .not.toBe("0");

    await expect(read(source, table)).rejects.toMatchObject({ kind: "database" });

    await source[Symbol.asyncDispose]();
    await altering;
  });

  test("reads large objects in pieces, empty ones too, as an ordinary login that owns them", async () => {
    await using database = await createDatabase(major);
    const url = await createLogin(database, `lo_${major}`);
    await database.query(
      `set role lo_${major}; select lo_from_bytea(4242, decode(repeat('ab', 300000), 'hex')); select lo_create(4243)`,
    );
    await using source = await open(url);
    const parts: Buffer[] = [];

    for await (const batch of source.largeObjects({ batchBytes: 1 << 20, signal }))
      parts.push(Buffer.from(batch.bytes));

    const rows = Buffer.concat(parts)
      .toString()
      .trimEnd()
      .split("\n")
      .map((row) => row.split("\t"));
    expect(rows.map(([oid, at]) => `${oid}@${at}`).sort()).toEqual(["4242@0", "4242@262144", "4243@0"]);
    expect(rows.map((row) => (row[2] ?? "").replace(/^\\\\x/, "").length / 2).sort((a, b) => a - b)).toEqual([
      0, 37856, 262144,
    ]);
    await database.query(`drop owned by lo_${major}`);
  });

  test("holds sequences that it has read, and tells which one was dropped before", async () => {
    await using database = await createDatabase(major, "create sequence s; create sequence other");
    await using source = await open(database.url);
    expect((await source.sequences({ signal })).map(({ name }) => name)).toEqual(["other", "s"]);

    await expect(database.query("set lock_timeout = '100ms'; drop sequence s")).rejects.toMatchObject({
      code: "55P03",
    });

    await using late = await open(database.url);
    await source[Symbol.asyncDispose]();
    await database.query("drop sequence s");
    await expect(late.sequences({ signal })).rejects.toMatchObject({ code: "schema-changed" });
  });

  test("reads sequences after the rows, so that none is behind an id that was read", async () => {
    await using database = await createDatabase(
      major,
      `create table t (i int generated always as identity); insert into t default values;
       create sequence alone start 7; create sequence down increment -2; select nextval('down'); select setval('alone', 9, false)`,
    );
    await using source = await open(database.url);
    await database.query("insert into t default values");

    const sequences = await source.sequences({ signal });

    expect(sequences.map((s) => [s.name, s.lastValue, s.isCalled, s.increment])).toEqual([
      ["alone", "9", false, "1"],
      ["down", "-1", true, "-2"],
      ["t_i_seq", "2", true, "1"],
    ]);
    expect(sequences[2]?.ownedBy).toEqual({ schema: "public", table: "t", column: "i" });
  });

  test("takes no password that it was not given, and says that one is missing", async () => {
    await using database = await createDatabase(major);
    const { password, ...connection } = connectionOfUrl(database.url);
    vi.stubEnv("PGPASSWORD", password);

    const opened = openSource(connection, { parallel: 1, choose: () => "rows", stallTimeoutMs: 60_000, signal });

    await expect(opened).rejects.toThrow(/asks for the password of postgres, and none was given/);
    const empty = openSource(
      { ...connection, password: "" },
      { parallel: 1, choose: () => "rows", stallTimeoutMs: 60_000, signal },
    );
    await expect(empty).rejects.toThrow(/asks for the password of postgres, and none was given, or an empty one$/);
    vi.unstubAllEnvs();
  });

  test("tells a wrong password from a missing database and an unreachable server", async () => {
    await using database = await createDatabase(major);
    const missing = new URL(database.url);
    missing.pathname = "/no_such_database";
    const unreachable = new URL(database.url);
    unreachable.port = "1";

    await expect(open(database.urlFor("postgres", "wrong"))).rejects.toMatchObject({
      kind: "database",
      code: "wrong-password",
    });
    await expect(open(missing.href)).rejects.toMatchObject({ kind: "database", code: "missing-database" });
    await expect(open(unreachable.href)).rejects.toMatchObject({ kind: "database", code: "unreachable" });
  });
});

async function backendsOf(database: TestDatabase): Promise<number> {
  const [row] = await database.query(
    "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'rowkeep backup'",
  );
  return Number(row?.[0]);
}
