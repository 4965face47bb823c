import { afterEach, describe, expect, test } from "vitest";
import { restoreIntoEmpty } from "../../src/usecases/restore-create.ts";
import { pgTool } from "../support/pg-tools.ts";
import { createDatabase, queryServer, postgresMajors, type TestDatabase } from "../support/postgres.ts";
import { dump, emptyDatabase, fixture, optionsFor, snapshotOf } from "../support/restoring.ts";

/** Roles belong to the server, where other tests run too: each test has its own. */
async function withRoles(database: TestDatabase, names: readonly string[]) {
  const roles = names.map((name) => `${name}_${database.name}`);
  await database.query(roles.map((role) => `create role ${role}`).join("; "));
  return roles;
}

/** What owners took away from themselves, on objects of every kind, some with rows that a key is checked with. */
const lessened = (owner: string) => `
  create schema v authorization ${owner}; set role ${owner};
  create table v.audit (id int primary key); insert into v.audit select generate_series(1, 100);
  create table v.sealed (id serial primary key, audit int references v.audit, note text); insert into v.sealed (audit) select generate_series(1, 100);
  revoke update, delete, truncate on v.audit from ${owner}; revoke all on v.sealed from ${owner}; grant select (id, note) on v.sealed to ${owner}; revoke usage on sequence v.sealed_id_seq from ${owner};
  create table v.handed (i int); grant select on v.handed to ${owner} with grant option; grant insert (i) on v.handed to ${owner};
  create view v.seen as select 1 as one; revoke insert on v.seen from ${owner}; create materialized view v.kept as select id from v.audit; revoke select on v.kept from ${owner};
  create sequence v.counter; select nextval('v.counter'); revoke update on sequence v.counter from ${owner};
  create function v.f(int) returns int language sql as 'select 1'; revoke all on function v.f(int) from ${owner};
  create procedure v.p() language sql as 'select 1'; revoke execute on procedure v.p() from ${owner}, public;
  create type v.mood as enum ('a'); revoke usage on type v.mood from public, ${owner}; create domain v."Odd" as int; revoke usage on domain v."Odd" from ${owner};
  revoke create on schema v from ${owner}; reset role; revoke create on schema public from pg_database_owner`;

/** What owners may do with their own, and what they may hand on. */
const OWN_RIGHTS = `
  select o.what, a.privilege_type, a.is_grantable from (
    select 'schema ' || nspname, nspacl, nspowner from pg_namespace where nspname in ('v', 'public')
    union all select 'relation ' || relname, coalesce(relacl, acldefault(case relkind when 'S' then 's' else 'r' end::"char", relowner)), relowner
      from pg_class where relnamespace = 'v'::regnamespace and relkind in ('r', 'v', 'm', 'S')
    union all select 'column ' || attrelid::regclass || '.' || attname, attacl, relowner from pg_attribute join pg_class c on c.oid = attrelid where attacl is not null and relnamespace = 'v'::regnamespace
    union all select 'routine ' || proname, proacl, proowner from pg_proc where pronamespace = 'v'::regnamespace
    union all select 'type ' || typname, typacl, typowner from pg_type where typnamespace = 'v'::regnamespace) o(what, acl, owner)
  left join lateral (select * from aclexplode(acl) where grantee = owner) a on true order by 1, 2, 3`;

const OWNERS = `
  select relname, relowner::regrole from pg_class where relnamespace = 'v'::regnamespace union all select proname, proowner::regrole from pg_proc where pronamespace = 'v'::regnamespace
  union all select typname, typowner::regrole from pg_type where typnamespace = 'v'::regnamespace union all select nspname, nspowner::regrole from pg_namespace where nspname = 'v' order by 1, 2`;

describe.each(postgresMajors)("restoring owners into an empty PostgreSQL %i database", (major) => {
  const cleanups: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0)) await cleanup();
  });

  /** Drops roles when the databases that know them are gone. */
  function dropLater(roles: readonly string[]): void {
    cleanups.push(() => queryServer(major, `drop role if exists ${roles.join(", ")}`));
  }

  test("gives everything its owner, rights and default rights, to the letter of pg_dump", async ({ skip }) => {
    if (!pgTool("pg_dump", major) && !process.env["CI"]) skip("pg_dump is not installed: npm run services");
    await using source = await createDatabase(major, fixture("awkward"));
    const [app = "", reader = ""] = await withRoles(source, ["app", "reader"]);
    dropLater([app, reader]);
    await source.query(`
      create table app.plain (i int, "Odd Name" text); create schema other authorization ${reader}; create table other.t (i int);
      revoke usage on type app.mood from public; grant usage on domain app.email to ${reader}; grant create on schema public to ${reader}; revoke all on schema public from public;
      alter schema app owner to ${app}; alter table app.plain owner to ${app}; alter view app.people owner to ${reader}; alter materialized view app.summary owner to ${app};
      alter sequence app.counter owner to ${app}; alter type app.mood owner to ${app}; alter domain app.email owner to ${app}; alter type app.address owner to ${app};
      alter function app.is_good(int) owner to ${app}; alter procedure app.nothing(int) owner to ${app}; alter aggregate app.total(int) owner to ${app};
      alter statistics app.person_stats owner to ${app}; alter table app.person owner to ${app}; alter table app.sale owner to ${reader};
      grant select on app.person to ${reader}; grant select ("Odd Name"), update (i, "Odd Name") on app.plain to ${reader}; grant insert (i) on app.plain to public;
      alter default privileges for role ${app} in schema app grant select on tables to ${reader}; alter default privileges for role ${app} revoke execute on functions from public;
      alter default privileges for role ${app} grant usage on types to ${reader} with grant option`);
    await using snapshot = await snapshotOf(source.url);
    await using target = await createDatabase(major);

    const result = await restoreIntoEmpty(optionsFor(target.url, snapshot.reader, { owners: true, grants: true }));

    expect(result.warnings).toEqual([]);
    expect(result.notes).toEqual([]);
    expect(dump(major, target.url, [])).toBe(dump(major, source.url, []));
    expect(dump(major, target.url, []).match(/OWNER TO/g)?.length).toBeGreaterThan(30);
  });

  test("warns of roles that are missing or not its own, and names the number of objects", async () => {
    await using source = await createDatabase(major);
    const [gone = "", foreign = "", mine = ""] = await withRoles(source, ["gone", "foreign", "mine"]);
    dropLater([gone, foreign, mine]);
    await source.query(`
      create schema s; create table s.a (i int primary key); create table s.b (i serial); create table s.c (i int); create table s.d (i int);
      alter table s.a owner to ${gone}; alter table s.b owner to ${gone}; alter table s.c owner to ${foreign}; alter table s.d owner to ${mine}`);
    await using snapshot = await snapshotOf(source.url);
    await source.query(`reassign owned by ${gone} to postgres; drop role ${gone}`);
    await using target = await emptyDatabase(major);
    const maker = `maker_${target.name}`;
    await source.query(`grant ${mine} to ${maker}`);

    const result = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader, { owners: true }));

    expect(result.warnings).toEqual([
      `1 object of ${foreign} belongs to ${maker} now: ${maker} may not give objects to that role`,
      `2 objects of ${gone} belong to ${maker} now: the target has no such role`,
      `1 object of postgres belongs to ${maker} now: ${maker} may not give objects to that role`,
      `1 object of ${mine} belongs to ${maker} now: permission denied for schema s`,
    ]);
    const owners =
      "select relname, pg_get_userbyid(relowner) from pg_class where relnamespace = 's'::regnamespace and relkind = 'r' order by 1";
    expect(await target.query(owners)).toEqual(["a", "b", "c", "d"].map((name) => [name, maker]));
  });

  test("as an ordinary role gives objects to a role of which it is a member", async () => {
    await using source = await createDatabase(major);
    const [mine = ""] = await withRoles(source, ["mine"]);
    dropLater([mine]);
    await source.query(
      `create schema s authorization ${mine}; create table s.t (i serial); alter table s.t owner to ${mine}; insert into s.t default values`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);
    await target.query(`grant ${mine} to maker_${target.name}`);

    const result = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader, { owners: true }));

    expect(result.warnings).toEqual([]);
    expect(
      await target.query(
        "select pg_get_userbyid(relowner), relkind from pg_class where relnamespace = 's'::regnamespace order by relkind",
      ),
    ).toEqual([
      [mine, "S"],
      [mine, "r"],
    ]);
    expect(await target.query("select count(*) from pg_namespace where nspname = 'rowkeep_restore'")).toEqual([["0"]]);
  });

  test("says in one line whose objects change hands when nobody asked for owners", async () => {
    await using source = await createDatabase(major);
    const [app = ""] = await withRoles(source, ["app"]);
    dropLater([app]);
    await source.query(
      `create table a (i int); create table b (i int); alter table a owner to ${app}; alter table b owner to ${app}; create view v as select 1`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const result = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader, { planOnly: true }));

    expect(result.warnings).toEqual([]);
    expect(result.notes).toEqual([
      `owners are not restored, all will belong to maker_${target.name}: ${app} (2 objects), postgres (1 object)`,
    ]);
  });

  test("restores the rows although a right names a role that is missing", async () => {
    await using source = await createDatabase(major, "create table t (i int); insert into t values (1)");
    const [gone = ""] = await withRoles(source, ["gone"]);
    dropLater([gone]);
    await source.query(`grant select on t to ${gone}`);
    await using snapshot = await snapshotOf(source.url);
    await source.query(`drop owned by ${gone}; drop role ${gone}`);
    await using target = await emptyDatabase(major);

    const result = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader, { grants: true }));

    expect(result.warnings).toEqual([`rights on TABLE public.t are not restored: role "${gone}" does not exist`]);
    expect(await target.query("select i from t")).toEqual([["1"]]);
  });

  test.each(["a superuser", "an ordinary member"])(
    "gives owners no right back that was taken from them, as %s",
    async (who) => {
      await using source = await createDatabase(major);
      const [owner = ""] = await withRoles(source, ["owner"]);
      dropLater([owner]);
      await source.query(lessened(owner));
      await using snapshot = await snapshotOf(source.url);
      await using target = await emptyDatabase(major);
      if (who === "an ordinary member") await target.query(`grant ${owner} to maker_${target.name}`);
      const url = who === "an ordinary member" ? target.ownerUrl : target.url;

      const result = await restoreIntoEmpty(optionsFor(url, snapshot.reader, { owners: true, grants: true }));

      expect(result.warnings).toEqual([]);
      expect(await target.query(OWNERS)).toEqual(await source.query(OWNERS));
      expect(await target.query(OWN_RIGHTS)).toEqual(await source.query(OWN_RIGHTS));
      const rights = `select has_table_privilege('${owner}', 'v.audit', 'select'), has_table_privilege('${owner}', 'v.audit', 'delete')`;
      expect(await target.query(rights)).toEqual([["t", "f"]]);
      await using again = await snapshotOf(target.url);
      expect(again.reader.manifest.definitions).toEqual(snapshot.reader.manifest.definitions);
    },
  );

  test("takes rights from owners as a member that may become them and has none of their rights", async () => {
    await using source = await createDatabase(major);
    const [owner = ""] = await withRoles(source, ["owner"]);
    dropLater([owner]);
    await source.query(
      `grant create on schema public to ${owner}; create table t (i int); alter table t owner to ${owner}; revoke delete on t from ${owner}; grant select on t to public;
       create table u (i int, j int); grant select (i) on u to public; grant select (j) on u to ${owner}; grant insert on u to ${owner}`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);
    const maker = `maker_${target.name}`;
    await target.query(
      `alter role ${maker} noinherit; grant ${owner} to ${maker}; grant create on schema public to public`,
    );

    const result = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader, { owners: true, grants: true }));

    expect(result.warnings.filter((warning) => !/ of postgres | on SCHEMA public /.test(warning))).toEqual([]);
    const rights = `select has_table_privilege('${owner}', 't', 'delete'), has_table_privilege('${owner}', 't', 'insert'), has_column_privilege('${owner}', 'u', 'j', 'select'),
                           pg_get_userbyid(relowner), (select attacl::text ~ '{=r/' from pg_attribute where attrelid = 'u'::regclass and attname = 'i') from pg_class where oid = 't'::regclass`;
    expect(await source.query(rights)).toEqual([["f", "t", "t", owner, "t"]]);
    expect(await target.query(rights)).toEqual([["f", "t", "t", owner, "t"]]);
  });

  test("takes nothing from a new owner that an old one took from itself", async () => {
    await using source = await createDatabase(major);
    const [owner = ""] = await withRoles(source, ["owner"]);
    dropLater([owner]);
    await source.query(lessened(owner));
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);
    const maker = `maker_${target.name}`;

    const result = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader, { grants: true }));

    expect(result.warnings).toEqual([]);
    expect(
      await target.query(
        `select bool_and(has_table_privilege('${maker}', c.oid, 'select, insert, update, delete')), bool_or(has_table_privilege('${owner}', c.oid, 'select, insert')),
                bool_and(has_schema_privilege('${maker}', 'v', 'create')), bool_or(has_any_column_privilege('${owner}', c.oid, 'select, insert'))
           from pg_class c where relnamespace = 'v'::regnamespace and relkind in ('r', 'v', 'm')`,
      ),
    ).toEqual([["t", "f", "t", "f"]]);
  });
});
