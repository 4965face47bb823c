import { describe, expect, test } from "vitest";
import { restoreSnapshot } from "../../src/usecases/restore-snapshot.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { inPlaceOptionsFor, snapshotOf } from "../support/restoring.ts";

const CONSTRAINTS = `select conrelid::regclass::text, conname, pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint'), convalidated,
  conislocal, coninhcount, connoinherit from pg_constraint where contype in ('c', 'n') order by 1, 2`;

describe.each(postgresMajors)("restoring rows that violate what is NOT VALID, PostgreSQL %i", (major) => {
  test("brings them back, and the constraints are as they were", async () => {
    await using database = await createDatabase(
      major,
      `create function small(i int) returns bool language sql immutable as 'select i < 10';
       create table t (id int primary key, i int); insert into t values (1, 100), (2, 1);
       alter table t add constraint "Small" check (small(i)) not valid, add constraint odd check (i <> 2) no inherit not valid;
       comment on constraint "Small" on t is 'of it'`,
    );
    await using snapshot = await snapshotOf(database.url);
    const before = await database.query(CONSTRAINTS);
    await database.query("delete from t");

    const { warnings } = await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    expect(warnings).toEqual([]);
    expect(await database.query("select * from t order by id")).toEqual([
      ["1", "100"],
      ["2", "1"],
    ]);
    expect(await database.query(CONSTRAINTS)).toEqual(before);
    await expect(database.query("insert into t values (3, 100)")).rejects.toThrow(/Small/);
  });

  test("keeps what children and partitions have of them, proven or not, inherited or their own", async () => {
    await using database = await createDatabase(
      major,
      `create table p (i int); create table a () inherits (p); create table b () inherits (p); create table c () inherits (a, b);
       insert into a values (100); insert into b values (1);
       alter table b add constraint small check (i < 10); alter table p add constraint small check (i < 10) not valid;
       comment on constraint small on a is 'of a';
       create table q (i int) partition by range (i); create table q1 partition of q for values from (0) to (50);
       create table q2 partition of q for values from (50) to (500); insert into q values (1), (100);
       alter table q add constraint small check (i < 10) not valid; alter table q1 validate constraint small;
       comment on constraint small on q2 is 'of q2'`,
    );
    await using snapshot = await snapshotOf(database.url);
    const before = await database.query(CONSTRAINTS);
    const proven = new Set(before.map(([table, , , , isProven]) => `${table} ${isProven}`));
    await database.query("delete from p; delete from q");

    for (const tables of [["a"], ["b"], ["q2"], undefined]) {
      await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader, tables ? { tables } : {}));

      expect(await database.query(CONSTRAINTS)).toEqual(before);
    }

    expect([proven.has("p f"), proven.has("b t"), proven.has("q f"), proven.has("q1 t")]).toEqual(Array(4).fill(true));
    expect(
      await database.query("select i, tableoid::regclass::text from p union all select i, 'q' from q order by 1, 2"),
    ).toEqual([
      ["1", "b"],
      ["1", "q"],
      ["100", "a"],
      ["100", "q"],
    ]);
  });
});

test("brings rows back that have NULL where a NOT NULL is NOT VALID (PostgreSQL 18)", async () => {
  await using database = await createDatabase(
    18,
    `create table p (i int); create table c () inherits (p); insert into p values (null); insert into c values (null);
     alter table p add constraint there not null i not valid; comment on constraint there on p is 'soon'`,
  );
  await using snapshot = await snapshotOf(database.url);
  const before = await database.query(CONSTRAINTS);
  await database.query("delete from p");

  await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

  expect(await database.query(CONSTRAINTS)).toEqual(before);
  expect(await database.query("select count(*) from p")).toEqual([["2"]]);
});
