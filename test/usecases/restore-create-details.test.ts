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

  test("has extended statistics with what they hold", async () => {
    await using source = await createDatabase(
      major,
      `create table t (a int, b int); insert into t select i % 9, i % 3 from generate_series(1, 900) i; create statistics of_t on a, b from t;
       create table parted (a int, b int) partition by list (b); create table part partition of parted default; insert into parted table t;
       create statistics of_parted on a, b from parted; create statistics of_part on a, b from part;
       create materialized view m as table t; create statistics of_m on a, b from m`,
    );
    await using target = await emptyDatabase(major);

    await restoreAnew(source, target);

    const held = "select distinct statistics_name from pg_stats_ext where n_distinct is not null order by 1";
    expect(await target.query(held)).toEqual([["of_m"], ["of_part"], ["of_parted"], ["of_t"]]);
  });

  test("drops with an extension what depends on it", async () => {
    await using source = await createDatabase(
      major,
      `create extension hstore; create extension citext;
       create function "F"(int) returns int language sql as 'select 1'; create procedure p() language sql as 'select 1'; create aggregate total(int) (sfunc = int4pl, stype = int);
       create function act() returns trigger language plpgsql as 'begin return new; end';
       create table t (id int primary key, a int unique, b int); create index i on t (b); create trigger g before insert on t for each row execute function act();
       create table parted (id int primary key) partition by list (id); create table part partition of parted default;
       create trigger all_of before insert on parted for each row execute function act(); create materialized view m as table t; create index of_m on m (id);
       alter function "F"(int) depends on extension hstore; alter function "F"(int) depends on extension citext; alter procedure p() depends on extension hstore;
       alter function total(int) depends on extension hstore; alter index i depends on extension hstore; alter index t_a_key depends on extension hstore;
       alter trigger g on t depends on extension hstore; alter trigger all_of on part depends on extension citext; alter index of_m depends on extension hstore;
       alter materialized view m depends on extension citext`,
    );
    await using target = await emptyDatabase(major);

    await restoreAnew(source, target);

    const dependencies =
      "select pg_describe_object(classid, objid, 0), pg_describe_object(refclassid, refobjid, 0) from pg_depend where deptype = 'x' order by 1, 2";
    expect(await target.query(dependencies)).toEqual(await source.query(dependencies));
    expect(await target.query(dependencies)).toHaveLength(10);
    await using snapshot = await snapshotOf(source.url);
    await using other = await emptyDatabase(major);
    const { warnings } = await restoreIntoEmpty(optionsFor(other.ownerUrl, snapshot.reader, { tables: ["t"] }));
    expect(warnings).toEqual([]);
    expect((await other.query(dependencies)).map(([what]) => what)).toEqual([
      "index i",
      "index t_a_key",
      "trigger g on table t",
    ]); // prettier-ignore
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

  test("has the names and comments of foreign keys of partitions", async () => {
    await using source = await createDatabase(
      major,
      `create table r (id int primary key); insert into r values (1), (2); create table parted (a int, b int) partition by list (a);
       create table part (a int, b int, constraint mine foreign key (a) references r); create table odd (a int, b int, constraint fk check (b > 0), constraint "of odd" foreign key (a) references r);
       create table deep (a int, b int) partition by list (b); create table leaf (a int, b int, constraint "of leaf" foreign key (a) references r); alter table deep attach partition leaf default;
       create table plain partition of parted for values in (5); alter table parted add constraint fk foreign key (a) references r on delete cascade;
       alter table part drop constraint mine, add constraint mine foreign key (a) references r on delete cascade;
       alter table leaf drop constraint "of leaf", add constraint "of leaf" foreign key (a) references r on delete cascade;
       alter table parted attach partition part for values in (1); alter table parted attach partition deep for values in (2); alter table parted attach partition odd for values in (3);
       comment on constraint fk on parted is 'of parted'; comment on constraint mine on part is 'of part'; comment on constraint fk on plain is 'of plain'; comment on constraint "of leaf" on leaf is 'of leaf';
       insert into parted values (1, 1), (2, 1)`,
    );
    await using target = await emptyDatabase(major);

    await restoreAnew(source, target);

    const keys = `select conrelid::regclass, conname, obj_description(oid, 'pg_constraint'), conparentid <> 0 from pg_constraint where contype = 'f' and conrelid <> 'odd'::regclass order by conrelid::regclass::text`;
    expect(await target.query(keys)).toEqual(await source.query(keys));
    expect(await target.query(keys)).toEqual([
      ["deep", "fk", null, "t"],
      ["leaf", "of leaf", "of leaf", "t"],
      ["part", "mine", "of part", "t"],
      ["parted", "fk", "of parted", "f"],
      ["plain", "fk", "of plain", "t"],
    ]);
  });

  test.each([
    ["swapped", ["a to c", "b to a", "c to b"]],
    ["passed on", ["b to c", "a to b"]],
    ["passed down", ["a to c", "b to a"]],
  ])("has the names of foreign keys of partitions that were %s", async (_how, renames) => {
    await using source = await createDatabase(
      major,
      `${TWO_KEYS}; ${renames.map((rename) => `alter table part rename constraint ${rename};`).join("")}
       comment on constraint b on other is 'of other'; ${renames.length === 3 ? "comment on constraint a on part is 'y'; comment on constraint b on part is 'x'" : ""}`,
    );
    await using target = await emptyDatabase(major);

    await restoreAnew(source, target);

    expect(await target.query(FOREIGN_KEYS)).toEqual(await source.query(FOREIGN_KEYS));
  });

  test("has foreign keys of a partition beside the same one from above", async () => {
    await using source = await createDatabase(
      major,
      `${TWO_KEYS}; alter table part rename constraint b to z; alter table part add constraint "0" foreign key (y) references r`,
    );
    await using target = await emptyDatabase(major);

    await restoreAnew(source, target);

    expect(await target.query(FOREIGN_KEYS)).toEqual(await source.query(FOREIGN_KEYS));
    expect(await target.query(FOREIGN_KEYS)).toContainEqual(["part", "0", "{2}", "f", null]);
  });

  test("names a foreign key of a partition that rows violate and its name there", async () => {
    await using source = await createDatabase(
      major,
      `${TWO_KEYS}; alter table part rename constraint b to z; set session_replication_role = replica; insert into parted values (1, 7, 1)`,
    );
    await using target = await emptyDatabase(major);
    await using snapshot = await snapshotOf(source.url);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    // Before PostgreSQL 18 no foreign key of a partitioned table can be NOT VALID.
    expect(warnings).toEqual(
      major < 18
        ? [
            expect.stringMatching(/^foreign-key public\.b is not restored: insert or update on table "part" violates/),
            'foreign-key public.z is not restored: constraint "b" for table "part" does not exist',
          ]
        : [expect.stringMatching(/^foreign-key b of public\.parted is restored as NOT VALID: /)],
    );
    expect(await target.query("table parted")).toEqual([["1", "7", "1"]]);
  });

  test("has on each level what was proven of constraints that are NOT VALID above", async () => {
    await using source = await createDatabase(
      major,
      `create table top (a int); insert into top values (-1); create table mid () inherits (top); create table low () inherits (mid);
       create table z_side () inherits (top); insert into z_side values (-2); create table own (a int) inherits (top); create table z_local (constraint pos check (a > 0)) inherits (top);
       alter table top add constraint pos check (a > 0) not valid; alter table mid validate constraint pos; alter table own validate constraint pos;
       create table newer () inherits (top); insert into newer values (3);
       create table two (b int) inherits (mid, z_side);
       create table parted (a int) partition by list (a); create table proven partition of parted for values in (1); create table part partition of parted default; insert into part values (-1);
       alter table parted add constraint pos check (a > 0) not valid; alter table proven validate constraint pos;
       create table newest partition of parted for values in (2); comment on constraint pos on mid is 'of mid'`,
    );
    await using target = await emptyDatabase(major);

    await restoreAnew(source, target);

    expect(await target.query(PROVEN)).toEqual(await source.query(PROVEN));
    expect(await target.query(PROVEN)).toEqual(
      expect.arrayContaining([
        ["mid", "pos", "t", "f", "1"],
        ["low", "pos", "t", "f", "1"],
        ["newer", "pos", "t", "f", "1"],
        ["top", "pos", "f", "t", "0"],
        ["z_side", "pos", "f", "f", "1"],
        ["proven", "pos", "t", "f", "1"],
      ]),
    );
  });
});

const TWO_KEYS = `
  create table r (id int primary key); insert into r values (1); create table parted (x int, y int, c int) partition by list (c);
  create table part partition of parted for values in (1); create table other partition of parted for values in (2);
  alter table parted add constraint a foreign key (x) references r, add constraint b foreign key (y) references r`;

const FOREIGN_KEYS = `
  select conrelid::regclass, conname, conkey, conparentid <> 0, obj_description(oid, 'pg_constraint')
    from pg_constraint where contype = 'f' order by conrelid::regclass::text, conname`;

const PROVEN = `
  select conrelid::regclass, conname, convalidated, conislocal, coninhcount from pg_constraint
   where conrelid <> 0 and connamespace = 'public'::regnamespace and contype in ('c', 'n', 'f') order by conrelid::regclass::text, conname`;

test("PostgreSQL 18 has on each level what was proven of NOT NULL and foreign keys that are NOT VALID above", async () => {
  await using source = await createDatabase(
    18,
    `create table top (a int); insert into top values (null); create table mid () inherits (top); create table low () inherits (mid);
     create table z_local (constraint mine not null a) inherits (top); create table z_named (constraint nn not null a) inherits (top);
     alter table top add constraint nn not null a not valid; alter table mid validate constraint nn; create table newer () inherits (top);
     create table r (id int primary key); insert into r values (1);
     create table parted (a int, b int) partition by list (a); create table proven partition of parted for values in (1);
     create table deep partition of parted for values in (2) partition by list (b); create table leaf partition of deep default; create table other partition of deep for values in (7);
     create table part partition of parted default; insert into part values (7); insert into proven values (1, 1);
     alter table parted add constraint fk foreign key (a) references r not valid; alter table proven validate constraint fk; alter table leaf validate constraint fk;
     comment on constraint fk on proven is 'of proven'`,
  );
  await using target = await emptyDatabase(18);

  await restoreAnew(source, target);

  expect(await target.query(PROVEN)).toEqual(await source.query(PROVEN));
  expect(await target.query(PROVEN)).toEqual(
    expect.arrayContaining([
      ["mid", "nn", "t", "f", "1"],
      ["low", "nn", "t", "f", "1"],
      ["top", "nn", "f", "t", "0"],
      ["proven", "fk", "t", "f", "1"],
      ["leaf", "fk", "t", "f", "1"],
      ["other", "fk", "f", "f", "1"],
    ]),
  );
});

test("PostgreSQL 18 has on each level what was proven of NOT NULL that is NOT VALID at several parents", async () => {
  await using source = await createDatabase(
    18,
    `create table p1 (a int); create table p2 (a int); create table c () inherits (p1, p2); create table g () inherits (c); create table h () inherits (p1, p2);
     alter table p1 add constraint n1 not null a not valid; alter table p2 add constraint n2 not null a not valid; alter table c validate constraint n1;
     create table x1 (a int); create table x2 (a int); create table y () inherits (x1, x2); create table z () inherits (y);
     alter table x2 add constraint n2 not null a not valid; alter table x1 add constraint n1 not null a not valid; alter table y validate constraint n2`,
  );
  await using target = await emptyDatabase(18);

  await restoreAnew(source, target);

  expect(await target.query(PROVEN)).toEqual(await source.query(PROVEN));
});

test("PostgreSQL 18 restores rows where children call the same NOT NULL otherwise, and names what is not proven", async () => {
  await using source = await createDatabase(
    18,
    `create table x1 (a int); create table x2 (a int); create table y () inherits (x1, x2); insert into y values (1);
     alter table x2 add constraint n2 not null a not valid; alter table x1 add constraint n1 not null a not valid; create table z () inherits (x1, x2);
     alter table y validate constraint n2; alter table z validate constraint n1`,
  );
  await using snapshot = await snapshotOf(source.url);
  await using target = await emptyDatabase(18);

  const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

  expect(warnings).toEqual([
    expect.stringMatching(/^replica-identity public\.[yz] is not restored: constraint "n\d" of/),
  ]);
  expect(await target.query("select a from x1")).toEqual([["1"]]);
});

test.each([15, 18] as const)(
  "columns of children that take null where parents do not go from PostgreSQL 15 to %i",
  async (major) => {
    await using source = await createDatabase(
      15,
      `create table base (a int not null, b int not null); create table child (b int) inherits (base); create table below () inherits (child);
     alter table child alter a drop not null; alter table only base alter b set not null; alter table only below alter b drop not null`,
    );
    if (major === 15) await source.query("insert into child values (null, 1); insert into below values (null, null)");
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    const columns =
      "select attrelid::regclass, attname, attnotnull from pg_attribute where attrelid in ('base'::regclass, 'child'::regclass, 'below'::regclass) and attnum > 0 order by 1, 2";
    if (major === 18) {
      expect(warnings).toContainEqual(
        expect.stringMatching(/^nullable public.child.a is not restored: cannot drop inherited constraint/),
      );
    } else {
      expect(warnings).toEqual([]);
      expect(await target.query(columns)).toEqual(await source.query(columns));
      expect(await target.query("select * from base order by b")).toEqual(
        await source.query("select * from base order by b"),
      );
    }
  },
);
