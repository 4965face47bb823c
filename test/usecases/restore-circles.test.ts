import { describe, expect, test } from "vitest";
import { restoreIntoEmpty } from "../../src/usecases/restore-create.ts";
import { pgTool } from "../support/pg-tools.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { dump, emptyDatabase, optionsFor, snapshotOf } from "../support/restoring.ts";

const CIRCLES: Readonly<Record<string, string>> = {
  "a check over the row of its own table": `
    create table t (a int, b int); create function f(t) returns bool language sql immutable as 'select $1.a <= $1.b';
    alter table t add constraint ordered check (f(t.*)), add constraint simple check (a > 0), add check (f(t) or b = 9);
    comment on constraint ordered on t is 'by both'; insert into t values (1, 2), (3, 3)`,
  "a check over rows of each other's tables": `
    create table l (a int); create table r (a int); create function of_l(l) returns bool language sql immutable as 'select true';
    create function of_r(r) returns bool language sql immutable as 'select true'; insert into l values (1); insert into r values (2);
    alter table l add check (of_r(null)); alter table r add check (of_l(null))`,
  "a check over its own row that children and partitions have too": `
    create table base (a int); create function f(base) returns bool language sql immutable as 'select true';
    create table child (b int) inherits (base); create table own (c int) inherits (base); alter table own add constraint k check (f(null) and a > 0);
    alter table base add constraint k check (f(null) and a > 0); comment on constraint k on child is 'of child';
    create table parted (a int) partition by list (a); create function g(parted) returns bool language sql immutable as 'select true';
    create table part partition of parted default; alter table parted add constraint k check (g(null)); alter table part add constraint of_part check (g(null) and a < 9);
    insert into child values (1, 2); insert into own values (1, 3); insert into part values (4)`,
  "a column of the type of a view that groups by a key": `
    create table t (id int primary key, note text); insert into t values (1, 'x');
    create view v with (security_barrier = true) as select id, note, count(*) as n, note collate "C" as c, '{}'::int[] as list from t group by id;
    comment on view v is 'grouped'; comment on column v.n is 'how many'; alter view v alter n set default 7;
    create table u (kept v, many v[], id int generated always as identity primary key); insert into u select v, array[v] from v; create table uu (id int references u, of u); create materialized view m as select * from v;
    create rule r as on insert to v do instead nothing; create view w as select n from v`,
  "a default, a check, a generated column and a domain by functions over a view that groups by a key": `
    create table t (id int primary key, note text); insert into t values (1, 'x'); create view v as select id, note, count(*) as n from t group by id;
    create function f(v) returns int language sql immutable as 'select 1';
    create domain d as int check (f(null) + value > 0);
    create table u (a int default f(null), b int check (f(null) = b), c int generated always as (f(null) + 1) stored, e d); insert into u (b, e) values (1, 5)`,
  "a check, a default and a key by functions over a view of their own table": `
    create table t (a int); create view v as select a, a + 1 as b from t; create function f(v) returns bool language sql immutable as 'select true';
    alter table t add check (f(null)), add column c bool default f(null); insert into t values (1)`,
  "a view whose function takes its rows": `
    create view v as select 1 as a, 'x'::text as b; create function f(v) returns int language sql immutable as 'select $1.a';
    create or replace view v as select 1 + f(null) as a, 'y'::text as b; create table u (a v); insert into u values ('(1,z)')`,
};

describe.each(postgresMajors)("restoring what needs each other in a circle (PostgreSQL %i)", (major) => {
  test.for(Object.entries(CIRCLES))("makes %s", async ([, sql], { skip }) => {
    if (!pgTool("pg_dump", major) && !process.env["CI"]) skip("pg_dump is not installed: npm run services");
    await using source = await createDatabase(major, sql);
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    expect(warnings).toEqual([]);
    expect(dump(major, target.url)).toBe(dump(major, source.url));
  });

  test("takes the whole of a view for chosen tables that need its columns", async () => {
    await using source = await createDatabase(
      major,
      `create table t (id int primary key, note text); insert into t values (1, 'x'); create view v as select id, note, count(*) as n from t group by id;
       create table u (kept v); insert into u select v from v; create table other ()`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader, { tables: ["public.u"] }));

    expect(warnings).toEqual(["table public.t is made without rows: a chosen table needs it"]);
    await target.query("insert into t values (2, 'y')");
    expect(await target.query("select v, (select kept from u) from v")).toEqual([["(2,y,1)", "(1,x,1)"]]);
  });

  test("loads rows that name indexes, their own too, when those are there, and keys around them", async () => {
    await using source = await createDatabase(
      major,
      `create table a_named (id int primary key, what regclass, f regprocedure); create table child (id int references a_named);
       create table z (id int, large text); create index z_large on z (large); create table zz (id int primary key, parent int references a_named);
       create view grouped as select id, parent, count(*) from zz group by id; create table old (at regclass[]);
       insert into a_named values (1, 'a_named_pkey', 'now()'), (2, 'z_large', null), (3, 'grouped', null), (4, 'zz_pkey', null);
       insert into child values (1), (4); insert into zz values (1, 2); insert into old values ('{z_large,old}');
       insert into z select i, repeat('x', i) from generate_series(1, 300) i;
       create function no() returns trigger language plpgsql as $$ begin return null; end $$;
       create trigger no before insert on a_named for each row execute function no()`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    expect(warnings).toEqual([]);
    for (const query of ["select * from a_named order by id", "select * from old", "select count(*) from child"]) {
      expect(await target.query(query)).toEqual(await source.query(query));
    }
    expect(await target.query("select count(*) from pg_constraint where contype = 'f' and convalidated")).toEqual([
      ["2"],
    ]);
  });

  test("says of a row that names what is not restored what to do", async () => {
    await using source = await createDatabase(
      major,
      "create table other (); create table t (what regclass); insert into t values ('other')",
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const restoring = restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader, { tables: ["public.t"] }));

    await expect(restoring).rejects.toMatchObject({
      message: 'cannot restore the rows of public.t: relation "public.other" does not exist',
      hint: expect.stringContaining("--tables"),
    });
  });
});
