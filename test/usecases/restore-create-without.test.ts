import { describe, expect, test } from "vitest";
import type { ChosenTable } from "../../src/drivers/driver.ts";
import { recoverEntries } from "../../src/snapshot/recover-sql.ts";
import { drillSnapshot } from "../../src/usecases/drill-snapshot.ts";
import { restoreIntoEmpty } from "../../src/usecases/restore-create.ts";
import { connectionOfUrl } from "../support/connection.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { emptyDatabase, optionsFor, snapshotOf } from "../support/restoring.ts";

const choose = ({ name }: ChosenTable) => (name === "gone" ? "excluded" : "rows");
const C_CODE = `create function c_code(int) returns int immutable strict language c as '$libdir/plpgsql', 'plpgsql_call_handler'`;

describe.each(postgresMajors)("a database of PostgreSQL %i made without what is not captured", (major) => {
  test("has all tables but those that need it, which are named", async () => {
    await using source = await createDatabase(
      major,
      `create table gone (a int); create table child (id serial primary key, b int) inherits (gone); insert into child values (1, 1, 1); create index on child (b);
       create table below () inherits (child); create table holds (o gone); create table holds_many (o gone[]);
       create foreign data wrapper fdw; create server far foreign data wrapper fdw; create foreign table far_table (i int) server far; create table holds_far (f far_table);
       create domain of_far as far_table; create table holds_domain (f of_far);
       create sequence count_seq; create table keep (id int primary key, n int references child); insert into keep values (1, 1);
       create view v as select * from child; comment on table child is 'x'; grant select on child to public;
       create function f() returns setof gone language sql as 'select null::gone'`,
    );
    await using snapshot = await snapshotOf(source.url, { choose });
    await using target = await emptyDatabase(major);

    const { warnings, tables } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    const { notCaptured } = snapshot.reader.manifest;
    expect(notCaptured).toEqual([
      "domain public.of_far is not captured: it needs what is not captured either",
      "function public.f is not captured: it needs something that is left out",
      ...["child", "below", "holds", "holds_domain"].map(
        (name) => `table public.${name} is not captured: it needs something that is left out`,
      ),
      "table public.holds_far is not captured: it needs what is not captured either",
      "table public.holds_many is not captured: it needs something that is left out",
      "view public.v is not captured: it needs something that is left out",
      "foreign-key public.keep_n_fkey is not captured: it needs something that is left out",
      "foreign server far is not captured",
      "foreign table public.far_table (its rows are elsewhere) is not captured",
      "foreign-data wrapper fdw is not captured",
    ]);
    expect(warnings.filter((warning) => !notCaptured.includes(warning)).toSorted()).toEqual(
      ["below", "child", "holds", "holds_domain", "holds_far", "holds_many"].map(
        (name) => `rows of public.${name} are not restored: the snapshot has no definition of it`,
      ),
    );
    expect(tables.map(({ name }) => name)).toEqual(["keep"]);
    expect(
      await target.query("select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'"),
    ).toEqual([["keep"]]);
    expect(await target.query("select * from keep")).toEqual([["1", "1"]]);
    const byHand = [...recoverEntries(snapshot.reader.manifest)].find(({ name }) => name === "recover/sequences.sql");
    expect([...(byHand?.text.matchAll(/"\w+_seq"/g) ?? [])].flat()).toEqual(['"count_seq"']);
  });

  test("has the rows of tables of which a default, check or index needs it", async () => {
    await using source = await createDatabase(
      major,
      `${C_CODE}; create function twice(int) returns int immutable language sql return c_code($1) + c_code($1);
       create operator === (function = int4eq, leftarg = int, rightarg = int);
       create table t (a int default c_code(1), b int constraint odd check (b is null or c_code(b) > 0), c int constraint pos check (c > 0), d int constraint twice check (d is null or twice(d) > 0), e int check (e === e));
       comment on constraint odd on t is 'x'; comment on constraint pos on t is 'y'; create index odd_index on t (c_code(b)) where b > 0; insert into t values (1, null, 1);
       create table child () inherits (t); create table parted (a int constraint odd check (a is null or c_code(a) > 0)) partition by list (a);
       create table part partition of parted default; create table generated (a int, b int generated always as (c_code(a)) stored); insert into generated values (null);
       create domain odd_domain as int constraint odd check (value is null or c_code(value) > 0); create table of_domain (d odd_domain)`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    const because = "is not captured: it needs what is not captured either";
    expect(warnings).toEqual([
      `function public.twice ${because}`,
      `table public.generated ${because}`,
      `default public.child.a ${because}`,
      `default public.t.a ${because}`,
      `index public.odd_index ${because}`,
      ...["odd_domain", "parted", "t"].map((name) => `check odd of public.${name} ${because}`),
      `check twice of public.t ${because}`,
      "function public.c_code(integer) (its language is not trusted) is not captured",
      "rows of public.generated are not restored: the snapshot has no definition of it",
    ]);
    expect(
      await target.query(
        "select conrelid::regclass, conname, obj_description(oid, 'pg_constraint') from pg_constraint where contype = 'c' and connamespace = 'public'::regnamespace order by conrelid::regclass::text, conname",
      ),
    ).toEqual([
      ["child", "pos", null],
      ["child", "t_e_check", null],
      ["t", "pos", "y"],
      ["t", "t_e_check", null],
    ]);
    expect(await target.query("select * from t")).toEqual([["1", null, "1", null, null]]);
  });

  test("is proven by a drill, which tells what it lacks", async () => {
    await using source = await createDatabase(
      major,
      "create table gone (a int); create table child (id serial) inherits (gone); create table keep (id serial); insert into keep default values; insert into child values (1)",
    );
    await using snapshot = await snapshotOf(source.url, { choose });

    const { ok, problems, warnings, rows } = await drillSnapshot({
      reader: snapshot.reader,
      server: connectionOfUrl(source.url),
      parallel: 1,
      stallTimeoutMs: 60_000,
      now: () => new Date(),
      signal: new AbortController().signal,
      report: () => undefined,
    });

    expect([ok, problems, rows]).toEqual([true, [], 1]);
    expect(warnings).toEqual(["rows of public.child are not restored: the snapshot has no definition of it"]);
  });
});
