import { describe, expect, test } from "vitest";
import { restoreIntoEmpty } from "../../src/usecases/restore-create.ts";
import { restoreSnapshot } from "../../src/usecases/restore-snapshot.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { emptyDatabase, optionsFor, snapshotOf } from "../support/restoring.ts";

const inPlace = { isNamed: false, allowConversion: false, ignoreMissing: false };

describe.each(postgresMajors)("restoring what reads views (PostgreSQL %i)", (major) => {
  const SUMS = `create table t (a int); insert into t values (1), (2); create view v as select a from t;
    create materialized view m as select sum(a) from v`;

  test("fills a materialized view over a view in a new database", async () => {
    await using source = await createDatabase(major, SUMS);
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    expect(warnings).toEqual([]);
    expect(await target.query("select * from m")).toEqual([["3"]]);
  });

  test("refreshes a materialized view over a view, and asks a check that reads one, where a role forbids to read views", async () => {
    await using source = await createDatabase(
      major,
      `${SUMS}; create table known (k text primary key); insert into known values ('x'); create view vk as select k from known;
       create function is_known(text) returns bool stable language sql as 'select exists (select from public.vk where k = $1)';
       create table z (k text check (is_known(k))); insert into z values ('x')`,
    );
    await using snapshot = await snapshotOf(source.url);
    await source.query("delete from t where a = 2; refresh materialized view m; delete from z");
    // Not every minor version of 15 knows it.
    await source.query(
      `do $$ begin if current_setting('restrict_nonsystem_relation_kind', true) is not null then
         alter database ${source.name} set restrict_nonsystem_relation_kind = view; end if; end $$`,
    );
    const tables = ["public.t", "public.z"];

    const { warnings } = await restoreSnapshot({ ...optionsFor(source.url, snapshot.reader), ...inPlace, tables });

    expect(warnings).toEqual([]);
    await source.query(`alter database ${source.name} reset all`);
    expect(await source.query("select m.*, z.* from m, z")).toEqual([["3", "x"]]);
  });

  test("refreshes those that read a partition of what is restored, or what that is a part of", async () => {
    await using source = await createDatabase(
      major,
      `create table p (k int) partition by list (k); create table p1 partition of p for values in (1); insert into p values (1);
       create table parent (i int); create table child () inherits (parent); insert into child values (2);
       create materialized view of_root as select k from p; create materialized view of_leaf as select k from p1;
       create materialized view of_parent as select i from parent`,
    );
    await using snapshot = await snapshotOf(source.url);
    const damage = `delete from p; delete from parent; refresh materialized view of_root; refresh materialized view of_leaf;
      refresh materialized view of_parent`;
    const seen = "select (select k from of_root), (select k from of_leaf), (select i from of_parent)";

    for (const tables of [
      ["p1", "child"],
      ["p", "child"],
    ]) {
      await source.query(damage);
      await restoreSnapshot({ ...optionsFor(source.url, snapshot.reader), ...inPlace, tables });

      expect(await source.query(seen)).toEqual([["1", "1", "2"]]);
    }
  });

  test("leaves a materialized view without rows whose query fails now, and says so", async () => {
    await using source = await createDatabase(
      major,
      `create table t (a int); insert into t values (1); create materialized view m as select 10 / a as q from t;
       create materialized view mm as select q from m; create unique index on m (q); update t set a = 0`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    expect(warnings).toEqual([
      "materialized view public.m is left without rows: division by zero",
      expect.stringMatching(/^materialized view public\.mm is left without rows: .*"m" has not been populated/),
    ]);
    expect(await target.query("select a from t")).toEqual([["0"]]);
    expect(await target.query("select relname from pg_class where relkind = 'm' and relispopulated")).toEqual([]);
  });
});
