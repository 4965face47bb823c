import { describe, expect, test } from "vitest";
import { restoreIntoEmpty } from "../../src/usecases/restore-create.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { emptyDatabase, optionsFor, snapshotOf } from "../support/restoring.ts";

const signalOff = "set session_replication_role = replica";

// Since PostgreSQL 17 the server itself builds and refreshes with a search_path of its own.
const lookingAround = (more: string) => `
  create function inner_f(int) returns int language sql immutable as 'select $1 + 1';
  create function f(int) returns int language plpgsql immutable set search_path = public as $$ begin return inner_f($1); end $$;
  create table t (a int, s varchar, g int generated always as (f(a)) stored, check (f(a) > 0)); insert into t values (1, 'B');
  create table parted (a int) partition by list (a); create table part partition of parted default; insert into parted values (1);
  create materialized view m as select f(a) as x from t;
  ${more}; create index plain on t (f(a), upper(s)); cluster t using plain; alter index plain alter column 1 set statistics 9;
  create index whole on parted (f(a)); comment on index plain is 'plain'; alter function f(int) reset all`;

describe.each(postgresMajors)("restoring rows that a PostgreSQL %i server would not take today", (major) => {
  test("names what it cannot analyse, and analyses the rest", async () => {
    await using source = await createDatabase(
      major,
      `create schema app; create table app.t (a int, b int);
       create table parted (a int, b int) partition by list (a); create table part partition of parted default;
       insert into app.t values (0, 1); insert into parted values (0, 1);
       create materialized view bad as select * from app.t; create materialized view good as select * from app.t;
       create function app.one_by(int) returns int language sql immutable as 'select 1 / $1';
       create statistics of_bad on (app.one_by(a)), b from bad; create statistics of_parted on (app.one_by(a)), b from parted`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    expect(warnings).toContain("public.bad could not be analysed: division by zero");
    expect(await target.query("select count(*) from parted union all select count(*) from bad")).toEqual([
      ["1"],
      ["1"],
    ]);
    expect(await target.query("select reltuples from pg_class where relname in ('t', 'good')")).toEqual([["1"], ["1"]]);
  });

  test("keeps them, and makes checks NOT VALID that got stricter since, with their comments", async () => {
    await using source = await createDatabase(
      major,
      `create function good(int) returns bool language sql immutable as 'select true';
       create function odd(int) returns bool language sql immutable as 'select true';
       create domain d as int constraint d_good check (good(value)); comment on constraint d_good on domain d is 'of d';
       create table t (a int constraint good check (good(a)), b int constraint odd check (odd(b)), c int check (c > 0));
       insert into t values (1, 1, 1), (-1, 2, 2); comment on constraint good on t is 'of t';
       create table of_d (d d); insert into of_d values (-1);
       create table parted (a int, constraint of_all check (good(a))) partition by list (a);
       create table part partition of parted default; insert into parted values (-5);
       create table base (a int constraint of_base check (good(a))); create table child () inherits (base); insert into child values (-1);
       create or replace function good(int) returns bool language sql immutable as 'select $1 > 0';
       create or replace function odd(int) returns bool language sql immutable as 'select $1 % 2 = 1'`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    const some = (table: string, check: string, holder = table) =>
      `check ${check} of public.${holder} is restored as NOT VALID: check constraint "${check}" of relation "${table}" is violated by some row`;
    expect(warnings.toSorted()).toEqual([
      some("t", "good"),
      some("t", "odd"),
      some("part", "of_all", "parted"),
      some("child", "of_base", "base"),
      'check public.d.d_good is restored as NOT VALID: column "d" of table "of_d" contains values that violate the new constraint',
    ]);
    const checks = `select conname, convalidated, obj_description(oid, 'pg_constraint') from pg_constraint where contype = 'c' and coninhcount = 0 and connamespace = 'public'::regnamespace order by 1`;
    expect(await target.query(checks)).toEqual([
      ["d_good", "f", "of d"],
      ["good", "f", "of t"],
      ["odd", "f", null],
      ["of_all", "f", null],
      ["of_base", "f", null],
      ["t_c_check", "t", null],
    ]);
    const rows =
      "select 't', sum(a) from t union all select 'd', sum(d) from of_d union all select 'p', sum(a) from part";
    expect(await target.query(`${rows} union all select 'c', sum(a) from child order by 1`)).toEqual([
      ["c", "-1"],
      ["d", "-1"],
      ["p", "-5"],
      ["t", "0"],
    ]);
  });

  test("takes a check off wherever a child has it from, and puts each on again with the comments of all", async () => {
    await using source = await createDatabase(
      major,
      `create function good(int) returns bool language sql immutable as 'select true';
       create table one (a int constraint k check (good(a))); create table two (a int constraint k check (good(a)));
       create table child (a int constraint k check (good(a))) inherits (one, two); create table below () inherits (child);
       insert into one values (-1); insert into two values (-1); insert into child values (-1); insert into below values (-1);
       comment on constraint k on one is 'of one'; comment on constraint k on child is 'of child'; comment on constraint k on below is 'of below';
       create or replace function good(int) returns bool language sql immutable as 'select $1 > 0'`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader, { parallel: 4 }));

    const named = warnings.map((warning) => /^check k of public\.(\w+) is restored as NOT VALID: /.exec(warning)?.[1]);
    expect(named).toHaveLength(3);
    expect(new Set(named)).toEqual(new Set(["child", "one", "two"]));
    const checks = `select conrelid::regclass, coninhcount, conislocal, obj_description(oid) from pg_constraint where contype = 'c' order by 1`;
    expect(await target.query(checks)).toEqual(await source.query(checks));
    expect(await target.query("select sum(a) from one union all select sum(a) from two")).toEqual([["-3"], ["-3"]]);
  });

  test("asks a check that reads another table when that table has its rows", async () => {
    await using source = await createDatabase(
      major,
      `create table a_known (k text); insert into a_known select 'k' || i from generate_series(1, 9) i;
       create function is_known(text) returns bool stable language sql as 'select exists (select from public.a_known where k = $1)';
       create table large (k text check (is_known(k)), pad text default repeat('x', 900)); insert into large select 'k' || 1 + i % 9 from generate_series(1, 500) i`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader, { parallel: 1 }));

    expect(warnings).toEqual([]);
    expect(await target.query("select convalidated from pg_constraint where conname = 'large_k_check'")).toEqual([
      ["t"],
    ]);
    expect(await target.query("select count(*) from large")).toEqual([["500"]]);
  });

  test("asks a check that raises an error, of a domain too, when all tables have their rows", async () => {
    await using source = await createDatabase(
      major,
      `create table z_known (id int); insert into z_known values (1);
       create function known(int) returns bool language plpgsql as $$ begin
         if not exists (select from public.z_known where id = $1) then raise exception 'unknown'; end if; return true; end $$;
       create domain d as int check (known(value)); create type pair as (a int, ds d[]);
       create table base (id int, constraint known check (known(id)), constraint plain check (id > 0)); create table child () inherits (base); create table a (p pair);
       insert into base values (1); insert into child values (1); insert into a values (row(2, '{1}')); insert into z_known select i from generate_series(2, 3) i;
       insert into base values (3); comment on constraint known on child is 'of child'; create table gone (id int check (known(id))); insert into gone values (2); delete from z_known where id = 2`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader, { parallel: 1 }));

    expect(warnings).toEqual(["check gone_id_check of public.gone is restored as NOT VALID: unknown"]);
    const checks =
      "select conname, conrelid::regclass, convalidated, obj_description(oid) from pg_constraint where contype = 'c' and conrelid <> 'gone'::regclass order by 1, 2";
    expect(await target.query(checks)).toEqual(await source.query(checks));
    for (const table of ["base", "a", "gone"]) {
      expect(await target.query(`select * from ${table} order by 1`)).toEqual(
        await source.query(`select * from ${table} order by 1`),
      );
    }
  });

  test("keeps them, and makes NOT NULL of domains a check that is NOT VALID, where they are null after all", async () => {
    await using source = await createDatabase(
      major,
      `create domain there as int not null; create domain above as there check (value <> 7); create domain fine as int not null;
       create function good(int) returns bool language sql immutable as 'select true';
       create domain low as int constraint low_good check (good(value)); create domain low2 as low;
       create type pair as (a there, b int); create table none (x there, y above, z pair);
       create table t (x there, y above, p pair, f fine, l low2, ls low2[]); create table z_other (f fine);
       insert into z_other values (1); insert into t values ((select x from none), (select y from none), (select z from none), 1, -1, '{-2}');
       create or replace function good(int) returns bool language sql immutable as 'select $1 > 0'`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    const name = major < 17 ? "there" : "there.there_not_null";
    expect(warnings.toSorted()).toEqual([
      expect.stringMatching(/^check public\.low\.low_good is restored as NOT VALID: /),
      expect.stringContaining(`not-null public.${name} is restored as a check that is NOT VALID: `),
    ]);
    expect(await target.query("select * from t")).toEqual(await source.query("select * from t"));
    expect(
      await target.query(
        "select typname, typnotnull from pg_type where typtype = 'd' and typname in ('fine', 'there')",
      ),
    ).toEqual([
      ["fine", "t"],
      ["there", "f"],
    ]);
    await expect(target.query("insert into t (y) values (null)")).rejects.toThrow(
      /^value for domain \w+ violates check constraint "there_/,
    );
  });

  test("finds the partitions of rows anew that belong elsewhere today", async () => {
    await using source = await createDatabase(
      major,
      // The hash of an enum is that of its number, which no two databases have in common.
      `create type mood as enum ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r', 's', 't');
       create table hashed (m mood primary key, at regclass) partition by hash (m);
       create table h0 partition of hashed for values with (modulus 3, remainder 0); create table h1 partition of hashed for values with (modulus 3, remainder 1);
       create table h2 (at regclass, m mood not null); alter table hashed attach partition h2 for values with (modulus 3, remainder 2);
       insert into hashed select m, 'h0_pkey' from unnest(enum_range(null::mood)) m; create table line (m mood references hashed); insert into line select m from hashed`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader, { parallel: 4 }));

    expect(warnings).toEqual([]);
    const rows = "select * from hashed order by m";
    expect(await target.query(rows)).toEqual(await source.query(rows));
    expect(await target.query("select count(*) from hashed join line using (m)")).toEqual([["20"]]);
  });

  test("says which rows belong to partitions that are not chosen", async () => {
    await using source = await createDatabase(
      major,
      `create function third(int) returns int language plpgsql immutable as $$ begin return $1 % 3; end $$; create table parted (a int) partition by list (third(a));
       create table none partition of parted for values in (0); create table others partition of parted default; insert into parted values (3), (4);
       create or replace function third(int) returns int language plpgsql immutable as $$ begin return ($1 + 1) % 3; end $$`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const restoring = restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader, { tables: ["public.none"] }));

    await expect(restoring).rejects.toMatchObject({
      message: 'cannot restore the rows of public.none: no partition of relation "parted" found for row',
      hint: "Restore all partitions of its table, or choose other tables with --tables.",
    });
  });

  test("makes a foreign key NOT VALID that they violate, and goes without one where that cannot be", async () => {
    await using source = await createDatabase(
      major,
      `create table parent (id int primary key); create table line (p int references parent, constraint k2 foreign key (p) references parent);
       create table parted (p int references parent) partition by list (p); create table part partition of parted default;
       comment on constraint k2 on line is 'second'; comment on constraint parted_p_fkey on parted is 'of parted';
       insert into parent values (1); ${signalOff}; insert into line values (1), (2); insert into parted values (3)`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    const violates = (table: string, key: string) =>
      expect.stringMatching(`: insert or update on table "${table}" violates foreign key constraint "${key}"$`);
    expect(warnings).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^foreign-key line_p_fkey of public\.line is restored as NOT VALID: /),
        expect.stringMatching(/^foreign-key k2 of public\.line is restored as NOT VALID: /),
        violates("line", "k2"),
        violates("part", "parted_p_fkey"),
      ]),
    ); // prettier-ignore
    const keys =
      "select conname, convalidated, obj_description(oid) from pg_constraint where contype = 'f' and conparentid = 0 order by 1";
    const ofParted = major < 18 ? [] : [["parted_p_fkey", "f", "of parted"]];
    expect(await target.query(keys)).toEqual([["k2", "f", "second"], ["line_p_fkey", "f", null], ...ofParted]);
    expect(await target.query("select sum(p) from line union all select sum(p) from parted")).toEqual([["3"], ["3"]]);
  });

  test("names table and key whose rows collide, and leaves the target empty", async () => {
    await using source = await createDatabase(
      major,
      `create function f(int) returns int language sql immutable as 'select $1'; create table t (a int); create unique index one on t (f(a));
       insert into t values (1), (2); create or replace function f(int) returns int language sql immutable as 'select 7'`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const restoring = restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    await expect(restoring).rejects.toThrow('cannot create index one of public.t: could not create unique index "one"');
    expect(await target.query("select relname from pg_class where relname = 't'")).toEqual([]);
  });

  test("leaves out an index that the server cannot build, with its comment, and names it", async () => {
    const other = "create function upper(text) returns text language sql immutable as 'select $1'";
    await using source = await createDatabase(major, `${lookingAround("create table u ()")}; ${other}`);
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);
    // By this one the index would mean the other function.
    await target.query(`alter database ${target.name} set search_path = public, pg_catalog`);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    const missing = expect.stringContaining("function inner_f(integer) does not exist");
    expect(warnings).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^index public\.plain is not restored: function inner_f/),
        expect.stringMatching(/^the comment on INDEX public\.plain is not restored: /),
      ]),
    ); // prettier-ignore
    expect(warnings.filter((warning) => missing.asymmetricMatch(warning))).toHaveLength(major < 17 ? 1 : 3);
    expect(await target.query("select relname from pg_class where relname = 'plain'")).toEqual([]);
    expect(await target.query("select count(*), min(g) from t")).toEqual([["1", "2"]]);
  });
});

test("restoring builds indexes and fills views that look for functions by the search_path, as PostgreSQL 15 does", async () => {
  await using source = await createDatabase(15, lookingAround("create unique index one on t (f(a)) where a > 0"));
  await using snapshot = await snapshotOf(source.url);
  await using target = await emptyDatabase(15);

  const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

  expect(warnings).toEqual([]);
  const indexes = `select indexrelid::regclass::text, pg_get_indexdef(indexrelid), indisclustered, indisvalid, obj_description(indexrelid)
                     from pg_index where indrelid in ('t'::regclass, 'parted'::regclass, 'part'::regclass) order by 1`;
  expect(await target.query(indexes)).toEqual(await source.query(indexes));
  expect(await target.query("select x from m")).toEqual([["2"]]);
});
