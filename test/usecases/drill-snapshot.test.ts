import { expect, test } from "vitest";
import type { Manifest, StoredTable } from "../../src/snapshot/manifest.ts";
import { readerWith, type SnapshotReader } from "../../src/snapshot/snapshot-reader.ts";
import { type DrillOptions, drillSnapshot } from "../../src/usecases/drill-snapshot.ts";
import { connectionOfUrl } from "../support/connection.ts";
import { startMappingProxy } from "../support/mapping-proxy.ts";
import { createDatabase, createDatabaseOn, postgresMajors, type TestDatabase } from "../support/postgres.ts";
import { startPostgres } from "../support/postgres-server.ts";
import { fixture, snapshotOf } from "../support/restoring.ts";

const never = new AbortController().signal;

function drill(url: string, reader: SnapshotReader, more: Partial<DrillOptions> = {}) {
  return drillSnapshot({
    reader,
    server: connectionOfUrl(url),
    parallel: 2,
    stallTimeoutMs: 60_000,
    now: () => new Date(),
    signal: never,
    report: () => undefined,
    ...more,
  });
}

/** The scratch databases of one login: other tests run on the same server. */
async function scratchesOf(database: TestDatabase, user: string): Promise<readonly (string | null)[]> {
  const rows = await database.query(
    "select datname from pg_database where datname like 'rowkeep_drill_%' and pg_get_userbyid(datdba) = $1",
    [user],
  );
  return rows.map(([name]) => name ?? null);
}

interface Operator extends AsyncDisposable {
  readonly user: string;
  readonly url: string;
}

async function createOperator(database: TestDatabase, rights = "createdb"): Promise<Operator> {
  const user = `driller_${database.name}`;
  await database.query(`create role ${user} login password 'pw' ${rights}`);
  return {
    user,
    url: database.urlFor(user, "pw"),
    async [Symbol.asyncDispose]() {
      for (const name of await scratchesOf(database, user)) await database.query(`drop database ${name} with (force)`);
      await database.query(`drop role ${user}`).catch(() => undefined);
    },
  };
}

/** The same snapshot with another manifest: what a drill must notice. */
function withManifest(reader: SnapshotReader, change: (manifest: Manifest) => Partial<Manifest>): SnapshotReader {
  return readerWith(reader, {
    manifest: { ...reader.manifest, ...change(reader.manifest) },
    [Symbol.asyncDispose]: async () => undefined,
  });
}

const SHOP = `
  create table public.orders (id bigint generated always as identity primary key, note text, twice int generated always as (length(note) * 2) stored);
  insert into public.orders (note) select case when i % 7 = 0 then null else 'note ' || i end from generate_series(1, 500) i;
  create table public.pages (id int, part int) partition by range (part);
  create table public.pages_1 partition of public.pages for values from (0) to (10);
  insert into public.pages select i, i % 10 from generate_series(1, 50) i;
  create table public.empty ();
  insert into public.empty default values;
  create sequence public.tickets start 100 increment -1 minvalue -10 maxvalue 100;
  select nextval('public.tickets'), nextval('public.tickets');
  select lo_from_bytea(0, 'a large object');`;

test.each(postgresMajors)("proves a snapshot of PostgreSQL %i and leaves no database behind", async (major) => {
  await using database = await createDatabase(major, SHOP);
  await using operator = await createOperator(database);
  await using snapshot = await snapshotOf(database.url);

  const result = await drill(operator.url, snapshot.reader);

  expect(result).toMatchObject({ ok: true, problems: [], warnings: [], rows: 551 });
  expect(result.database).toMatch(/^rowkeep_drill_\d{8}t\d{6}_[0-9a-f]{16}$/);
  expect(result.chunks).toBeGreaterThan(3);
  expect(await scratchesOf(database, operator.user)).toEqual([]);
});

test.each(["every-type", "awkward"])("proves a database with %s", async (name) => {
  await using database = await createDatabase(18, fixture(name));
  await using snapshot = await snapshotOf(database.url);

  const result = await drill(database.url, snapshot.reader);

  expect(result.problems).toEqual([]);
  expect(result.ok).toBe(true);
});

test("an ordinary login proves the rows, and is told what it may not make", async () => {
  await using database = await createDatabase(
    18,
    "create table public.t (id int); insert into public.t values (1); create publication everything for all tables",
  );
  await using operator = await createOperator(database);
  await using snapshot = await snapshotOf(database.url);

  const result = await drill(operator.url, snapshot.reader);

  expect(result).toMatchObject({ ok: true, problems: [], rows: 1 });
  expect(result.warnings.join("\n")).toMatch(/everything/);
});

test("reads tables whose row security binds their owner too", async () => {
  await using database = await createDatabase(
    18,
    `create table public.secret (id int); insert into public.secret values (1), (2);
     alter table public.secret enable row level security; alter table public.secret force row level security;
     create policy nobody on public.secret using (false)`,
  );
  await using operator = await createOperator(database);
  await using snapshot = await snapshotOf(database.url);

  const result = await drill(operator.url, snapshot.reader);

  expect(result).toMatchObject({ ok: true, problems: [], rows: 2 });
});

test("names a table whose rows come back otherwise", async () => {
  await using database = await createDatabase(
    18,
    `create table public.a (id int); insert into public.a select generate_series(1, 9);
     create table public.b (id int); insert into public.b select generate_series(1, 9);`,
  );
  await using snapshot = await snapshotOf(database.url);
  // A trigger that is part of the restored definitions changes what the rows become.
  const sabotage = {
    section: "pre-data",
    kind: "function",
    schema: "public",
    name: "spoil",
    sql: `CREATE FUNCTION public.spoil() RETURNS trigger LANGUAGE plpgsql AS 'begin new.id := 7; return new; end';
          CREATE TRIGGER spoil BEFORE INSERT ON public.b FOR EACH ROW EXECUTE FUNCTION public.spoil();`,
  } as const;
  const reader = withManifest(snapshot.reader, ({ definitions }) => ({ definitions: [...definitions, sabotage] }));

  const result = await drill(database.url, reader);

  expect(result.ok).toBe(false);
  expect(result.problems[0]).toEqual({ object: "public.b", problem: "its rows came back with other values" });
});

test("names a sequence that stands behind, a definition that did not come back and one too many", async () => {
  await using database = await createDatabase(18, "create sequence public.s; create table public.t (id int)");
  await using snapshot = await snapshotOf(database.url);
  const extra = { section: "pre-data", kind: "table", schema: "public", name: "u", sql: "CREATE TABLE public.u ();" };
  const reader = withManifest(snapshot.reader, ({ definitions, sequences }) => ({
    definitions: [...definitions, { ...extra, section: "pre-data" as const }],
    sequences: [...sequences, { schema: "public", name: "gone", lastValue: "5", isCalled: true, increment: "1" }],
  }));

  const result = await drill(database.url, reader);

  const said = [...result.problems.map(({ object }) => object), ...result.warnings].join("\n");
  expect(result.ok).toBe(false);
  expect(said).toContain("sequence public.gone");
  expect(said).toContain("table public.u");
});

test("calls it a difference when fewer rows arrive than the manifest has", async () => {
  await using database = await createDatabase(18, "create table public.t (id int); insert into public.t values (1)");
  await using snapshot = await snapshotOf(database.url);
  const reader = withManifest(snapshot.reader, ({ tables }) => ({
    tables: tables.map((table): StoredTable => ({ ...table, rows: 2 })),
  }));

  const result = await drill(database.url, reader);

  expect(result).toMatchObject({ ok: false, problems: [{ problem: expect.stringContaining("1 row arrived") }] });
});

test("refuses a login that may not create databases and names the statement that helps", async () => {
  await using database = await createDatabase(18, SHOP);
  await using operator = await createOperator(database, "nocreatedb");
  await using snapshot = await snapshotOf(database.url);

  const refused = drill(operator.url, snapshot.reader);

  await expect(refused).rejects.toMatchObject({
    kind: "database",
    code: "denied",
    hint: expect.stringContaining(`ALTER ROLE "${operator.user}" CREATEDB`),
  });
});

test("drops the scratch database after a failure", async () => {
  await using database = await createDatabase(18, SHOP);
  await using operator = await createOperator(database);
  await using snapshot = await snapshotOf(database.url);
  const broken = {
    section: "post-data",
    kind: "index",
    schema: "public",
    name: "x",
    sql: "CREATE UNIQUE INDEX x ON nowhere (id)",
  };
  const reader = withManifest(snapshot.reader, ({ definitions }) => ({
    definitions: [...definitions, { ...broken, section: "post-data" as const }],
  }));

  await expect(drill(operator.url, reader)).rejects.toMatchObject({ kind: "database" });

  expect(await scratchesOf(database, operator.user)).toEqual([]);
});

test.each(["making a scratch database", "analysing", "reading it back"])(
  "drops the scratch database after an abort while %s",
  async (phase) => {
    await using database = await createDatabase(18, SHOP);
    await using operator = await createOperator(database);
    await using snapshot = await snapshotOf(database.url);
    const controller = new AbortController();
    const reason = new DOMException("stop", "AbortError");

    const stopped = drill(operator.url, snapshot.reader, {
      signal: controller.signal,
      report: (event) => {
        if (event.type === "phase" && event.text.startsWith(phase)) controller.abort(reason);
      },
    });

    await expect(stopped).rejects.toBe(reason);
    expect(await scratchesOf(database, operator.user)).toEqual([]);
  },
);

test("drops the leftovers of killed drills and nothing that only looks like one", async () => {
  // Drills of other tests would drop them.
  await using server = await startPostgres(18);
  await using database = await createDatabaseOn(server.url, "create table public.t (id int)");
  await using operator = await createOperator(database);
  await using snapshot = await snapshotOf(database.url);
  const tail = database.name.slice(2);
  const name = (start: string) => `rowkeep_drill_20260101t00000${start}_0000${tail}`;
  const [leftover, uncommented, foreign, inUse] = ["1", "2", "3", "4"].map(name) as [string, string, string, string];
  const comment = "scratch database of a rowkeep drill, may be dropped: x, 2026-01-01T00:00:00.000Z";
  for (const one of [leftover, uncommented, inUse])
    await database.query(`create database ${one} owner ${operator.user}`);
  await database.query(`create database ${foreign}`);
  for (const one of [leftover, foreign, inUse]) await database.query(`comment on database ${one} is '${comment}'`);
  const { default: pg } = await import("pg");
  const session = new pg.Client({ connectionString: database.url.replace(database.name, inUse) });
  session.on("error", () => undefined);
  await session.connect();

  const result = await drill(operator.url, snapshot.reader);

  await session.end();
  const left = await database.query("select datname from pg_database where datname like $1 order by datname", [
    `%${tail}`,
  ]);
  for (const one of [uncommented, foreign, inUse]) await database.query(`drop database ${one} with (force)`);
  expect(left.map(([one]) => one).filter((one) => one !== database.name)).toEqual([uncommented, foreign, inUse]);
  expect(result.ok).toBe(true);
  expect(result.warnings).toEqual([
    expect.stringContaining(`${leftover}, left behind`),
    expect.stringContaining(`${uncommented} looks like the leftover of a drill`),
  ]);
});

test("refuses a pooler that leads every name to the source, and does not touch its tables", async () => {
  await using database = await createDatabase(18, "create table public.t (id int); insert into public.t values (1)");
  await using operator = await createOperator(database);
  await using snapshot = await snapshotOf(database.url);
  await database.query(`alter table public.t owner to ${operator.user}`);
  await using proxy = await startMappingProxy({ port: Number(new URL(database.url).port), database: database.name });
  const url = new URL(operator.url);
  url.port = String(proxy.port);

  await expect(drill(url.href, snapshot.reader)).rejects.toMatchObject({ kind: "database", code: "wrong-database" });

  expect(await database.query("select id from public.t")).toEqual([["1"]]);
  expect(await scratchesOf(database, operator.user)).toEqual([]);
});

test("proves a snapshot on a server of another major version", async () => {
  await using database = await createDatabase(15, SHOP);
  await using other = await createDatabase(18);
  await using snapshot = await snapshotOf(database.url);

  const result = await drill(other.url, snapshot.reader);

  expect(result).toMatchObject({
    ok: true,
    problems: [],
    rows: 551,
    server: { version: expect.stringMatching(/^18/) },
  });
});

test("works when the database of the snapshot is gone", async () => {
  const database = await createDatabase(18, SHOP);
  await using snapshot = await snapshotOf(database.url);
  await database[Symbol.asyncDispose]();

  const result = await drill(database.url, snapshot.reader);

  expect(result.ok).toBe(true);
});
