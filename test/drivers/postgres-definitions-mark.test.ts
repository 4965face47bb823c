import pg from "pg";
import { expect, test } from "vitest";
import type { TrustToken } from "../../src/drivers/change-tracker.ts";
import type { DatabaseDescription, EarlierDefinitions } from "../../src/drivers/driver.ts";
import { readDefinitions } from "../../src/drivers/postgres/definitions/read-definitions.ts";
import { readTrustToken } from "../../src/drivers/postgres/postgres-changes.ts";
import { openPostgresClient, type PostgresClient } from "../../src/drivers/postgres/postgres-client.ts";
import { CATALOGS_LEFT_OUT, readDefinitionsMark } from "../../src/drivers/postgres/postgres-definitions-mark.ts";
import { readDescription } from "../../src/drivers/postgres/postgres-description.ts";
import { connectionOfUrl } from "../support/connection.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { startPostgres } from "../support/postgres-server.ts";

const signal = new AbortController().signal;

const SCHEMA = `
  create role ann; create role ben;
  create schema app;
  create type app.mood as enum ('low', 'high');
  create domain app.short as text check (length(value) < 100);
  create table app.t (id int primary key, v text default 'x', n int constraint positive check (n > 0), m app.mood);
  create table app.u (id int, v text);
  create table app.parted (id int) partition by range (id);
  create table app.part partition of app.parted for values from (0) to (10);
  create sequence app.s;
  create index by_v on app.u (v);
  create function app.f() returns int language sql as 'select 1';
  create function app.touch() returns trigger language plpgsql as 'begin return new; end';
  create trigger touch before update on app.t for each row execute function app.touch();
  create view app.w as select id from app.t;
  create materialized view app.m as select id from app.t with no data;
  create policy p on app.t using (true);
  create rule r as on delete to app.u do instead nothing;
  create publication pub for table app.t, app.u;
  create statistics app.st on id, v from app.u;
  comment on table app.u is 'a comment';
  grant select on app.t to ann; alter table app.u owner to ben;
  alter default privileges in schema app grant select on tables to ann;
  alter database postgres set work_mem = '5MB';
  create function app.e() returns event_trigger language plpgsql as 'begin end';
  create event trigger ev on ddl_command_end when tag in ('CREATE CAST') execute function app.e()`;

/** Each changes what a description says; those behind `drop` only delete rows of catalogs. */
const CHANGES: readonly string[] = [
  "create table app.fresh (a int)",
  "drop table app.fresh",
  "alter table app.t add column c text",
  "alter table app.t drop column c",
  "alter table app.t alter column v set default 'y'",
  "alter table app.t alter column v drop default",
  "alter table app.t alter column n set statistics 50",
  "alter table app.t alter column v set storage external",
  "alter table app.t set (fillfactor = 50)",
  "alter table app.t replica identity full",
  "alter table app.t enable row level security",
  "alter table app.t drop constraint positive",
  "alter table app.u add constraint u_id check (id > 0) not valid",
  "alter table app.u validate constraint u_id",
  "alter table app.u rename column v to value",
  "alter table app.part set (autovacuum_enabled = off)",
  "alter table app.parted detach partition app.part",
  "comment on table app.t is 'another'",
  "comment on table app.u is null",
  "grant insert on app.t to ben",
  "revoke select on app.t from ann",
  "grant select (id) on app.u to ann",
  "alter table app.u owner to ann",
  "create or replace function app.f() returns int language sql as 'select 2'",
  "create or replace view app.w as select id, v from app.t",
  "refresh materialized view app.m",
  "alter table app.t disable trigger touch",
  "drop trigger touch on app.t",
  "alter policy p on app.t to ann",
  "drop policy p on app.t",
  "alter type app.mood add value 'none'",
  "alter type app.mood rename value 'low' to 'lower'",
  "alter domain app.short set default 'd'",
  "create index by_id on app.u (id)",
  "alter index app.by_id rename to by_number",
  "drop index app.by_number",
  "alter sequence app.s increment 5",
  "alter publication pub drop table app.u",
  "alter publication pub set (publish = 'insert')",
  "drop rule r on app.u",
  "alter statistics app.st set statistics 7",
  "drop statistics app.st",
  "create operator app.=== (leftarg = int, rightarg = int, function = int4eq)",
  "create text search dictionary app.d (template = simple)",
  "create cast (app.mood as int) with inout",
  "alter default privileges in schema app revoke select on tables from ann",
  "alter schema app rename to application",
  "alter schema application rename to app",
  "create schema another",
  "alter role ann rename to anna",
  "alter database postgres set work_mem = '6MB'; alter database postgres set jit = off",
  "alter database postgres reset all",
  "alter role ben in database postgres set work_mem = '7MB'",
  "select lo_create(4712); grant select on large object 4712 to ben",
  "comment on large object 4712 is 'of note'",
  "select lo_unlink(4712)",
  "drop event trigger ev",
  "create extension if not exists citext",
  "drop table app.u",
];

interface Look {
  /** Definitions were not those of before. */
  readonly isRead: boolean;
  readonly described: DatabaseDescription;
  /** The same, read in any case, of the same instant. */
  readonly read: DatabaseDescription;
  readonly next: EarlierDefinitions;
}

/** Begins a transaction as a backup does; gives what the server says of itself in it. */
async function begin(leader: PostgresClient, settings: Readonly<Record<string, string>> = {}): Promise<TrustToken> {
  await leader.begin("isolation level repeatable read read only", { search_path: "", ...settings });
  const token = await readTrustToken(leader);
  if (typeof token === "string") throw new Error(token);
  return token;
}

/** Describes the database as a backup does, in a transaction of its own. */
async function look(leader: PostgresClient, earlier?: EarlierDefinitions): Promise<Look> {
  const token = await begin(leader);
  const parts = { leader, choose: () => "rows" as const, unreadable: [], token };
  const described = await readDescription(parts, earlier);
  const { definitions, notCaptured, mark } = described;
  if (!mark) throw new Error("there is no mark");
  const isRead = definitions !== earlier?.definitions;
  const read = isRead ? described : await readDescription(parts, undefined);
  await leader.query("commit");
  return { isRead, described, read, next: { token, mark, definitions, notCaptured } };
}

const openLeader = (url: string) =>
  openPostgresClient(connectionOfUrl(url), { applicationName: "test", stallTimeoutMs: 60_000, signal });

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => undefined);
  await client.connect();
  return client;
}

/** A server of its own: databases of other tests come and go on those that all share. */
async function openApp(major: 15 | 18, flags: readonly string[] = []) {
  await using stack = new AsyncDisposableStack();
  const server = stack.use(await startPostgres(major, flags));
  const client = await connect(server.url);
  stack.defer(() => client.end());
  await client.query(SCHEMA);
  const leader = stack.use(await openLeader(server.url));
  const owned = stack.move();
  return { server, client, leader, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

const extensions = (client: pg.Client) =>
  client.query("select from pg_available_extensions where name = 'citext'").then(({ rowCount }) => rowCount === 1);

test.concurrent.each(postgresMajors)(
  "every change of a definition is noticed (PostgreSQL %i)",
  { timeout: 120_000 },
  async (major) => {
    await using app = await openApp(major);
    const { client, leader } = app;
    let { next } = await look(leader);
    const hasExtensions = await extensions(client);

    for (const change of CHANGES) {
      if (change.includes("extension") && !hasExtensions) continue;
      await client.query(change);
      const changed = await look(leader, next);

      expect(changed.isRead, change).toBe(true);
      expect([changed.described.definitions, changed.described.notCaptured], change).not.toEqual([
        next.definitions,
        next.notCaptured,
      ]);
      next = changed.next;
    }
    const same = await look(leader, next);

    expect(same.isRead).toBe(false);
    expect(same.described).toEqual(same.read);
  },
);

test.concurrent.each(postgresMajors)(
  "what changes no definition spares reading them, and what might is read (PostgreSQL %i)",
  { timeout: 120_000 },
  async (major) => {
    await using app = await openApp(major, ["-c", "max_prepared_transactions=5"]);
    const { server, client, leader } = app;
    const other = await connect(server.url);
    let { next } = await look(leader);
    const seen: string[] = [];
    const after = async (what: string, act: () => Promise<unknown>) => {
      await act();
      const one = await look(leader, next);
      expect(one.described, what).toEqual(one.read);
      next = one.next;
      seen.push(`${what}: ${one.isRead ? "read" : "taken over"}`);
    };
    const run = (sql: string) => () => client.query(sql);

    await after("nothing", async () => undefined);
    await after("rows", run("insert into app.u select i, 'v' from generate_series(1, 5000) i"));
    await after("analyze", run("analyze"));
    await client.query("delete from app.u where id % 2 = 0");
    await after("vacuum", run("vacuum"));
    await after("vacuum freeze", run("vacuum freeze"));
    await after("an index that goes", async () => {
      await client.query("create index gone on app.u (id)");
      await client.query("drop index app.gone");
      await client.query("vacuum app.u");
    });
    await after("rolled back", async () => {
      await client.query("begin; create table app.never (i int); alter table app.u add column z int; rollback");
    });
    await after("values of a sequence", run("select nextval('app.s')"));
    await after("large objects", run("select lo_create(0) from generate_series(1, 3)"));
    expect((await look(leader, next)).described.largeObjects).toBe(3);
    await after("a login of another database", run("create role cem login"));
    await after("a password", run("alter role cem password 'x'"));
    await after("a temporary table", () => other.query("create temp table mine (i int)"));
    await after("the same temporary table", async () => undefined);
    await after("no temporary table", () => other.query("drop table mine"));
    await after("a change and back", async () => {
      await client.query("alter table app.u rename column v to v2");
      await client.query("alter table app.u rename column v2 to v");
    });
    await after("one rewritten catalog", run("vacuum full pg_description"));
    await after("all catalogs rewritten", run("vacuum full"));
    await after("nothing again", async () => undefined);
    await after("an open transaction", () => other.query("begin; create table app.late (i int)"));
    await after("its end", () => other.query("commit"));
    await after("nothing behind it", async () => undefined);
    await after("a prepared one", () =>
      other.query("begin; savepoint a; comment on view app.w is 'late'; release a; prepare transaction 'p'"),
    );
    await after("its end, too", () => client.query("commit prepared 'p'"));
    await after("another setting", async () => {
      await client.query("alter system set transform_null_equals = on");
      await client.query("select pg_reload_conf()");
      const isOn = async () =>
        (await client.query("show transform_null_equals")).rows[0].transform_null_equals === "on";
      for (let attempt = 0; attempt < 100 && !(await isOn()); attempt++) await client.query("select pg_sleep(0.05)");
    });
    await other.end();

    expect(seen).toEqual([
      "nothing: taken over",
      "rows: taken over",
      "analyze: taken over",
      "vacuum: taken over",
      "vacuum freeze: taken over",
      "an index that goes: taken over",
      "rolled back: taken over",
      "values of a sequence: taken over",
      "large objects: taken over",
      "a login of another database: read",
      "a password: taken over",
      "a temporary table: read",
      "the same temporary table: taken over",
      "no temporary table: read",
      "a change and back: read",
      "one rewritten catalog: read",
      "all catalogs rewritten: read",
      "nothing again: taken over",
      "an open transaction: taken over",
      "its end: read",
      "nothing behind it: taken over",
      "a prepared one: taken over",
      "its end, too: read",
      "another setting: read",
    ]);
  },
);

test.concurrent.each(postgresMajors)(
  "nobody waits for who works on a subscription (PostgreSQL %i)",
  { timeout: 60_000 },
  async (major) => {
    await using app = await openApp(major);
    const { client, leader } = app;
    const token = await begin(leader, { lock_timeout: "2s" });
    // As DROP SUBSCRIPTION and ALTER SUBSCRIPTION … REFRESH PUBLICATION do, while they talk with another server.
    await client.query("begin; lock table pg_subscription, pg_subscription_rel in access exclusive mode");

    const answer = await readDefinitionsMark(leader, { token, besides: [] });

    expect(answer?.mark.rows).toBeGreaterThan(1000);
  },
);

test.concurrent.each(postgresMajors)(
  "a role that is called otherwise for a moment leaves no trace (PostgreSQL %i)",
  { timeout: 60_000 },
  async (major) => {
    await using app = await openApp(major);
    const { client, leader } = app;
    await client.query("grant select (id) on app.u to ann");
    const { next: before } = await look(leader);

    const token = await begin(leader);
    await client.query("alter role ann rename to anna");
    const meanwhile = await readDescription({ leader, choose: () => "rows", unreadable: [], token }, undefined);
    await leader.query("commit");
    await client.query("alter role anna rename to ann");
    if (!meanwhile.mark) throw new Error("there is no mark");
    const after = await look(leader, { ...meanwhile, token, mark: meanwhile.mark });

    expect(meanwhile.definitions).toEqual(before.definitions);
    expect(after.isRead).toBe(false);
    expect(after.described).toEqual(after.read);
  },
);

test.each(postgresMajors)("every relation that definitions are read from is marked (PostgreSQL %i)", async (major) => {
  await using database = await createDatabase(major);
  await using client = await openLeader(database.url);
  const statements: string[] = [];
  const query = (sql: string, values?: readonly unknown[]) => {
    statements.push(sql);
    return client.query(sql, values);
  };

  await readDefinitions(query, { serverVersion: client.serverVersion, excluded: new Set() });

  const kinds = new Map(
    (await client.query("select relname, relkind from pg_class where relnamespace = 'pg_catalog'::regnamespace")).map(
      ([name, kind]) => [name ?? "", kind],
    ),
  );
  const named = new Set(
    statements
      .join(" ")
      .match(/\bpg_[a-z_]+\b/g)
      ?.filter((name) => kinds.has(name)),
  );
  expect(named.size).toBeGreaterThan(30);
  // Names and numbers of roles are hashed.
  expect([...named].filter((name) => kinds.get(name) !== "r").sort()).toEqual(["pg_roles"]);
  expect([...named].filter((name) => CATALOGS_LEFT_OUT.includes(name))).toEqual([]);
  expect(CATALOGS_LEFT_OUT.filter((name) => kinds.get(name) !== "r")).toEqual([]);
});
