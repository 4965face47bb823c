import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import pg from "pg";
import { describe, expect, test } from "vitest";
import type { ChosenTable, TableChoice } from "../../src/drivers/driver.ts";
import type { CatalogQuery } from "../../src/drivers/postgres/definitions/captured-object.ts";
import { lookAtLargeObjects } from "../../src/drivers/postgres/definitions/find-not-captured.ts";
import {
  type CapturedDefinitions,
  readDefinitions,
  readExcludedTables,
} from "../../src/drivers/postgres/definitions/read-definitions.ts";
import { openLeader } from "../support/leader.ts";
import { pgTool } from "../support/pg-tools.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";

const fixture = (name: string) => readFileSync(new URL(`../fixtures/sql/${name}.sql`, import.meta.url), "utf8");

async function capture(
  url: string,
  choose: (table: ChosenTable) => TableChoice = () => "rows",
): Promise<CapturedDefinitions> {
  await using client = await openLeader(url);
  const query: CatalogQuery = (sql, values) => client.query(sql, values);
  const excluded = await readExcludedTables(query, choose);
  return await readDefinitions(query, { serverVersion: client.serverVersion, excluded });
}

/** Executes definitions one by one, as a restore does. */
async function execute(url: string, { definitions }: CapturedDefinitions): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query("set search_path = ''; set check_function_bodies = off; set client_min_messages = error");
    for (const { sql, kind, name } of definitions) {
      await client.query(sql).catch((error: Error) => {
        throw new Error(`${kind} ${name}: ${error.message}\n${sql}`);
      });
    }
  } finally {
    await client.end();
  }
}

const withoutOwners = ({ definitions }: CapturedDefinitions) =>
  definitions.map((definition) => ({ ...definition, owner: undefined }));

function dump(major: 15 | 18, url: string): string {
  const tool = pgTool("pg_dump", major);
  if (!tool) throw new Error("pg_dump is missing");
  const text = execFileSync(tool, ["--schema-only", "--no-owner", "--no-privileges", url], {
    encoding: "utf8",
    maxBuffer: 64 << 20,
  });
  // Newer versions guard the script with a random key.
  return text.replace(/^\\(un)?restrict .*$/gm, "");
}

describe.each(postgresMajors)("definitions of PostgreSQL %i", (major) => {
  test.each(["awkward", "awkward-superuser", "rental-store", "music-store"])(
    "%s: a database made from them has the same ones, to the letter of pg_dump",
    async (name) => {
      await using source = await createDatabase(major, fixture(name));
      await using copy = await createDatabase(major);
      await copy.query(
        `drop role if exists definer_${copy.name}; create role definer_${copy.name} ${name.includes("superuser") ? "superuser" : ""} login password 'pw'; alter database ${copy.name} owner to definer_${copy.name}`,
      );

      const captured = await capture(source.url);
      await execute(copy.urlFor(`definer_${copy.name}`, "pw"), captured);
      const again = await capture(copy.url);

      expect(withoutOwners(again)).toEqual(withoutOwners(captured));
      if (pgTool("pg_dump", major) || process.env["CI"]) expect(dump(major, copy.url)).toBe(dump(major, source.url));
      await copy.query(`reassign owned by definer_${copy.name} to postgres; drop owned by definer_${copy.name}`);
    },
  );

  test("name everything that is there and not captured", async () => {
    await using source = await createDatabase(
      major,
      `create foreign data wrapper fdw; create server far foreign data wrapper fdw; create foreign table far_table (i int) server far;
       create view of_far as select * from far_table; create view of_that as select * from of_far; create table near (i int); comment on view of_far is 'x';
       create function c_code() returns int language c as '$libdir/plpgsql', 'plpgsql_call_handler';
       comment on function c_code() is 'goes with it'; revoke all on function c_code() from public;
       create view of_code as select c_code(); alter table near alter i set default c_code()`,
    );

    const { notCaptured, definitions } = await capture(source.url);

    expect(definitions.filter(({ sql }) => /c_code|far|of_that/.test(sql))).toEqual([]);
    expect(definitions.map(({ sql }) => sql)).toEqual(
      expect.arrayContaining([expect.stringContaining('CREATE TABLE "public"."near"')]),
    );
    for (const what of [
      "foreign table public.far_table (its rows are elsewhere) is not captured",
      "foreign server far is not captured",
      "view public.of_far is not captured: it needs what is not captured either",
      "view public.of_that is not captured: it needs",
      "view public.of_code is not captured: it needs what is not captured either",
      "default public.near.i is not captured: it needs what is not captured either",
      "function public.c_code()",
    ]) {
      expect(notCaptured).toEqual(expect.arrayContaining([expect.stringContaining(what)]));
    }
  });

  test("name settings of the database and of roles in it, without values that may be secret", async () => {
    await using source = await createDatabase(major);
    const role = `Odd ${source.name}`;
    await source.query(`create role "${role}"; alter role "${role}" in database ${source.name} set work_mem = '5MB'; alter role "${role}" set jit = off;
      alter database ${source.name} set search_path = 'a', 'b'; alter database ${source.name} set app.token = 'secret'; alter role all in database ${source.name} set app.key = 'secret'`);

    const { notCaptured } = await capture(source.url);
    await source.query(`drop owned by "${role}"; drop role "${role}"`);

    expect(notCaptured).toEqual([
      `setting of role "${role}" in the database work_mem=5MB is not captured`,
      "setting of the database app.key is not captured",
      "setting of the database app.token is not captured",
      "setting of the database search_path=a, b is not captured",
    ]);
  });

  test("name tablespaces, not those of excluded tables", async () => {
    await using source = await createDatabase(major);
    const [fast, slow] = [`fast_${source.name}`, `Slow ${source.name}`];
    // In a folder of the server's own: no other can be known here.
    const url = `${source.url}?options=${encodeURIComponent("-c allow_in_place_tablespaces=on")}`;
    const run = async (sql: string) => {
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      await client.query(sql);
      await client.end();
    };
    for (const name of [fast, slow]) await run(`create tablespace "${name}" location ''`);
    await source.query(`create table t (id int primary key using index tablespace ${fast}) tablespace ${fast}; create index by_id on t (id) tablespace "${slow}";
      create materialized view m tablespace ${fast} as select 1; create table parted (a int) partition by list (a) tablespace ${fast};
      create table plain (a int); create temp table mine (a int) tablespace ${fast}; create table gone (a int unique) tablespace ${fast}`);

    const { notCaptured } = await capture(source.url, ({ name }) => (name === "gone" ? "excluded" : "rows"));
    await source.query("drop table t, parted, gone; drop materialized view m");
    for (const name of [fast, slow]) await run(`drop tablespace "${name}"`);

    expect(notCaptured).toEqual([
      `tablespace "${slow}" of index public.by_id is not captured`,
      `tablespace ${fast} of materialized view public.m and 3 more is not captured`,
    ]);
  });

  test("count large objects that lose rights or a comment, not what the reading role was granted", async () => {
    await using source = await createDatabase(major, "select lo_create(1), lo_create(2), lo_create(3)");
    const [odd, other] = [`"Odd ${source.name}"`, `other_${source.name}`];
    await source.query(`create role ${odd} login password 'pw'; create role ${other}`);
    const sentences = async () => {
      await using client = await openLeader(source.urlFor(`Odd ${source.name}`, "pw"));
      const { notCaptured } = await lookAtLargeObjects((sql, values) => client.query(sql, values));
      return notCaptured;
    };
    await source.query(`grant select on large object 1, 2, 3 to ${odd}`);
    const before = await sentences();
    await source.query(
      `grant select on large object 2 to ${other}; revoke update on large object 3 from postgres; comment on large object 2 is 'x'`,
    );

    const after = await sentences();
    await source.query(`drop owned by ${odd}, ${other}; drop role ${odd}, ${other}`);

    expect(before).toEqual([]);
    expect(after).toEqual([
      "access list of 2 large objects is not captured",
      "comment on 1 large object is not captured",
    ]);
  });

  test("name the extension of which something has other rights than it came with", async () => {
    await using source = await createDatabase(major, "create extension dblink; create extension pgcrypto");
    const before = await capture(source.url);
    await source.query(`revoke all on function dblink_connect(text) from public; grant usage on foreign data wrapper dblink_fdw to public;
      revoke all on function digest(text, text) from public; grant execute on function digest(text, text) to public`);

    const { notCaptured } = await capture(source.url);

    expect(before.notCaptured).toEqual([]);
    expect(notCaptured).toEqual([
      "access list of foreign-data wrapper dblink_fdw and 1 more of extension dblink is not captured",
    ]);
    await source.query("revoke usage on foreign data wrapper dblink_fdw from public");
    expect((await capture(source.url)).notCaptured).toEqual([
      "access list of function public.dblink_connect(text) of extension dblink is not captured",
    ]);
  });

  test.each([
    "drop view v",
    "drop materialized view mv",
    "drop function f(int)",
    "drop index i",
    "drop statistics st",
    "drop aggregate ag(int)",
    "drop operator <<|>> (int, int)",
    "drop type c cascade",
    "alter index i rename to i_ccold",
    "alter view v set schema other",
  ])("are refused when something changes behind the snapshot that they are of: %s", async (change) => {
    await using source = await createDatabase(
      major,
      `create schema other; create table t (id int primary key, v text); create index i on t (v); create statistics st on id, v from t;
       create view v as select id from t; create materialized view mv as select id from t; create type c as (a int);
       create function f(int) returns int language sql as 'select 1'; create cast (c as text) with inout;
       create aggregate ag(int) (sfunc = int4pl, stype = int); create operator <<|>> (function = int4pl, leftarg = int, rightarg = int)`,
    );
    await using client = await openLeader(source.url);
    await client.query("select 1");
    await source.query(change);

    const query: CatalogQuery = (sql, values) => client.query(sql, values);
    const reading = readDefinitions(query, { serverVersion: client.serverVersion, excluded: new Set() });

    await expect(reading).rejects.toMatchObject({
      code: "schema-changed",
      message: expect.stringMatching(/was dropped or renamed meanwhile$/),
    });
    expect((await capture(source.url)).definitions.length).toBeGreaterThan(3);
  });

  test("name labels, and do not make who drops a subscription wait", async () => {
    await using source = await createDatabase(
      major,
      `create table labelled (i int); set allow_system_table_mods = on;
       insert into pg_seclabel values ('labelled'::regclass, 'pg_class'::regclass, 1, 'nobody', 'secret')`,
    );
    await using client = await openLeader(source.url);
    const query: CatalogQuery = (sql, values) => client.query(sql, values);

    const { notCaptured } = await readDefinitions(query, { serverVersion: client.serverVersion, excluded: new Set() });

    expect(notCaptured).toContain("security label on column i of table public.labelled is not captured");
    const locked = await client.query(
      "select relation::regclass::text from pg_locks where pid = pg_backend_pid() and relation is not null",
    );
    expect(locked.flat()).toContain("pg_seclabel");
    expect(locked.flat().filter((name) => name?.includes("pg_subscription"))).toEqual([]);
  });

  test("are written the same where a role quotes every name", async () => {
    await using source = await createDatabase(major, "create table t (id int); create view v as select id from t");
    const plain = await capture(source.url);
    await source.query(`alter database ${source.name} set quote_all_identifiers = on`);

    expect(await capture(source.url)).toMatchObject({ definitions: plain.definitions });
  });

  test("leave out what belongs to an excluded table, and name what needs it", async () => {
    await using source = await createDatabase(
      major,
      `create table keep (id int primary key); create table out (id serial primary key, k int references keep); create index on out (k);
       create view needs as select * from out; alter table keep add o int references out`,
    );

    const { definitions, notCaptured } = await capture(source.url, ({ name }) =>
      name === "out" ? "excluded" : "rows",
    );

    expect(definitions.filter(({ sql }) => /\bout\b/.test(sql))).toEqual([]);
    expect(notCaptured.filter((sentence) => sentence.includes("left out"))).toHaveLength(2);
  });
});
