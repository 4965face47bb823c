import { describe, expect, test } from "vitest";
import { restoreIntoEmpty } from "../../src/usecases/restore-create.ts";
import { restoreSnapshot } from "../../src/usecases/restore-snapshot.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { dump, emptyDatabase, inPlaceOptionsFor, optionsFor, snapshotOf } from "../support/restoring.ts";

const TABLES = `create function price(i int) returns numeric immutable language sql as 'select i * 1.19';
  create table t (i int, price numeric(10,2) generated always as (price(i)) stored,
    doc json generated always as (('[' || i || ']')::json) stored, label varchar(40) generated always as ('n' || i) stored);
  insert into t values (1), (2), (null);
  create table parted (i int, price numeric generated always as (price(i)) stored) partition by list (i);
  create table part partition of parted for values in (1); create table part2 partition of parted for values in (2);
  insert into parted values (1), (2), (2)`;

describe.each(postgresMajors)("restoring generated columns of PostgreSQL %i", (major) => {
  test("says nothing of those that come out as they are", async () => {
    await using database = await createDatabase(major, TABLES);
    await using snapshot = await snapshotOf(database.url);

    const { warnings } = await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    expect(warnings).toEqual([]);
  });

  test("names those whose function changed since, in the plan and in the result", async () => {
    await using database = await createDatabase(major, TABLES);
    await using snapshot = await snapshotOf(database.url);
    await database.query(
      "create or replace function price(i int) returns numeric immutable language sql as 'select i * 1.2'",
    );
    const options = inPlaceOptionsFor(database.url, snapshot.reader);

    const planned = await restoreSnapshot({ ...options, planOnly: true });
    const done = await restoreSnapshot(options);

    const expected = [
      expect.stringMatching(/^public\.t\.price is generated, and in 2 of its rows it is not what it would be now/),
      expect.stringMatching(/^public\.part\.price is generated, and in 1 of/),
      expect.stringMatching(/^public\.part2\.price is generated, and in 2 of/),
    ];
    expect(planned.warnings).toEqual(expect.arrayContaining(expected));
    expect(done.warnings).toEqual(planned.warnings);
    expect(done.warnings).toHaveLength(3);
  });

  test("says when it cannot tell whether they come out as they are", async () => {
    await using database = await createDatabase(major, TABLES);
    await using snapshot = await snapshotOf(database.url);
    await database.query(
      "create or replace function price(i int) returns numeric immutable language sql as 'select i / 0'",
    );
    const options = inPlaceOptionsFor(database.url, snapshot.reader, { tables: ["t"], planOnly: true });

    const { warnings } = await restoreSnapshot(options);

    expect(warnings).toEqual([
      expect.stringMatching(/^public\.t\.price is generated, and .* cannot be checked \(22012\)$/),
    ]);
  });

  const looking = `create table z_known (id int, name text); insert into z_known values (1, 'one');
    create function name_of(int) returns text immutable language plpgsql as $$ begin return (select name from public.z_known where id = $1); end $$;
    create function must_be(int) returns int immutable language plpgsql as $$ begin
      if not exists (select from public.z_known where id = $1) then raise exception 'unknown'; end if; return $1; end $$;`;

  test("computes in a new database what needs the rows of other tables behind them, or names it", async () => {
    await using source = await createDatabase(
      major,
      `${looking} create table named (id int, name text generated always as (name_of(id)) stored, pad text);
       create table must (id int, m int generated always as (must_be(id)) stored, pad text);
       insert into named (id, pad) select 1, repeat('x', 9000); insert into must (id, pad) select 1, repeat('x', 9000)`,
    ); // prettier-ignore
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader, { parallel: 1 }));

    expect(warnings).toEqual([
      expect.stringMatching(
        /^public\.named\.name is generated, and in 1 of its rows it is not what it would be now: it was/,
      ),
    ]);
    expect(await target.query("select id, m from must")).toEqual([["1", "1"]]);
    await target.query("update named set id = id");
    expect(await target.query("select name from named")).toEqual([["one"]]);
  });

  test("says which table and column cannot be computed in a new database", async () => {
    await using source = await createDatabase(
      major,
      `${looking} create table must (id int, m int generated always as (must_be(id)) stored); insert into must values (1); delete from z_known`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const restoring = restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    await expect(restoring).rejects.toMatchObject({
      message: "cannot restore the rows of public.must: unknown",
      hint: expect.stringContaining("its generated column m,"),
    });
  });

  test("makes tables whose generated columns read tables that come later, their own one, or one of the search path", async () => {
    await using source = await createDatabase(
      major,
      `create table z_known (id int, name text, pad text); insert into z_known values (1, 'one', repeat('x', 9000));
       create function name_of(int) returns text immutable language sql as 'select name from public.z_known where id = $1';
       create function short_of(int) returns text immutable language sql as 'select name from z_known where id = $1';
       create function twice(int) returns int immutable language sql as 'select $1 * 2';
       create table a (id int); create function own_of(int) returns bool immutable language sql as 'select $1 > 0 or exists (select from public.a)';
       alter table a add name text generated always as (name_of(id)) stored, add short text generated always as (short_of(id)) stored,
         add own bool generated always as (own_of(id)) stored; comment on column a.name is 'of another';
       create table b (c int generated always as (twice(d)) stored, d int) partition by list (d); create table b_1 partition of b default;
       create table child () inherits (a); insert into a values (1); insert into child values (1); insert into b (d) values (2)`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader, { parallel: 1 }));

    expect(warnings).toEqual([]);
    expect(dump(major, target.url)).toBe(dump(major, source.url));
    expect(await target.query("select id, name, short, own from a")).toEqual([
      ["1", "one", "one", "t"],
      ["1", "one", "one", "t"],
    ]);
  });

  test("names the table whose generated column cannot be made", async () => {
    await using source = await createDatabase(
      major,
      `create table z_known (id int); create function counted(int) returns int immutable language plpgsql as 'begin return (select count(*) from public.z_known); end';
       create table a (id int, n int generated always as (counted(1)) stored)`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const restoring = restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    await expect(restoring).rejects.toMatchObject({
      message: 'cannot create table public.a: relation "public.z_known" does not exist',
      hint: expect.stringContaining("generated column"),
    });
  });
});
