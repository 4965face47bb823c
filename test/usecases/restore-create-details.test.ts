import { describe, expect, test } from "vitest";
import type { SnapshotReader } from "../../src/snapshot/snapshot-reader.ts";
import { restoreIntoEmpty } from "../../src/usecases/restore-create.ts";
import { createDatabase, postgresMajors, type TestDatabase } from "../support/postgres.ts";
import { emptyDatabase, optionsFor, snapshotOf } from "../support/restoring.ts";

/** Without owners: each generation belongs to the role that made it. */
const definitionsOf = (reader: SnapshotReader) =>
  reader.manifest.definitions.map((definition) => ({ ...definition, owner: undefined }));

/** Restores a database into an empty one and backs that up; its definitions must be the same, with nothing to tell. */
async function restoreAnew(source: TestDatabase, target: { readonly url: string; readonly ownerUrl: string }) {
  await using snapshot = await snapshotOf(source.url);
  const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));
  await using again = await snapshotOf(target.url);
  expect(warnings).toEqual([]);
  expect(definitionsOf(again.reader)).toEqual(definitionsOf(snapshot.reader));
}

describe.each(postgresMajors)("a database made anew in PostgreSQL %i", (major) => {
  test("has the options of the columns of materialized views", async () => {
    await using source = await createDatabase(
      major,
      `create table t (id int primary key, a text, b text); insert into t values (1, 'a', 'b');
       create materialized view m as select id, a, b from t; create materialized view late as select id, a from t group by id;
       alter materialized view m alter a set storage external; alter materialized view m alter b set compression pglz;
       alter materialized view m alter id set (n_distinct = 7, n_distinct_inherited = 8); alter materialized view m alter b set statistics 50;
       alter materialized view late alter a set storage main; alter materialized view m set (fillfactor = 70, toast.autovacuum_enabled = off)`,
    );
    await using target = await emptyDatabase(major);

    await restoreAnew(source, target);

    const columns = `select attrelid::regclass, attname, attstorage, attcompression, attoptions, nullif(attstattarget, -1) from pg_attribute
                      where attrelid in ('m'::regclass, 'late'::regclass) and attnum > 0 order by attrelid::regclass::text, attnum`;
    expect(await target.query(columns)).toEqual(await source.query(columns));
    expect(await target.query(columns)).toContainEqual(["m", "b", "x", "p", null, "50"]);
    const toast =
      "select t.reloptions from pg_class c join pg_class t on t.oid = c.reltoastrelid where c.relname = 'm'";
    expect(await target.query(toast)).toEqual([["{autovacuum_enabled=off}"]]);
  });

  test("has the names of what a domain demands, with comments", async () => {
    await using source = await createDatabase(
      major,
      `create domain d as int constraint given not null constraint pos check (value > 0); comment on constraint pos on domain d is 'of pos';
       create domain plain as text not null; create domain free as text; create table t (d d, p plain); insert into t values (1, '')`,
    );
    if (major >= 18) await source.query("comment on constraint given on domain d is 'of given'");
    await using target = await emptyDatabase(major);

    await restoreAnew(source, target);

    const constraints = `select conname, contypid::regtype, pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint')
                           from pg_constraint where contypid <> 0 and connamespace = 'public'::regnamespace order by contypid::regtype::text, conname`;
    expect(await target.query(constraints)).toEqual(await source.query(constraints));
    expect(await target.query(constraints)).toHaveLength(major >= 18 ? 3 : 1);
    await expect(target.query("insert into t (d) values (1)")).rejects.toThrow("plain does not allow null values");
  });

  test("has the comments on triggers that partitions have from above", async () => {
    await using source = await createDatabase(
      major,
      `create table r (a int, b int) partition by list (a); create table r1 partition of r for values in (1) partition by list (b);
       create table a_leaf partition of r1 default; create table b_leaf partition of r default;
       create function f() returns trigger language plpgsql as 'begin return null; end';
       create trigger t after insert on r for each row execute function f(); create trigger u after insert on r for each row execute function f();
       alter table a_leaf disable trigger t; alter table r1 enable always trigger u;
       comment on trigger t on r is 'root'; comment on trigger t on r1 is 'middle'; comment on trigger t on a_leaf is 'disabled'; comment on trigger t on b_leaf is 'leaf';
       comment on trigger u on r1 is 'always'; comment on trigger u on a_leaf is 'below'`,
    );
    await using target = await emptyDatabase(major);

    await restoreAnew(source, target);

    const triggers = `select tgname, tgrelid::regclass, tgenabled, obj_description(oid, 'pg_trigger') from pg_trigger order by tgname, tgrelid::regclass::text`;
    expect(await target.query(triggers)).toEqual(await source.query(triggers));
    expect((await target.query(triggers)).filter(([, , , text]) => text !== null)).toHaveLength(6);
  });
});
