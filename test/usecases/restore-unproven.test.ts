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

const DOMAINS =
  "select typname, typnotnull from pg_type where typtype = 'd' and typnamespace = 'public'::regnamespace order by 1";

describe.each(postgresMajors)("restoring rows that violate what is proven, PostgreSQL %i", (major) => {
  test("brings those back that are null where a domain allows none, again and again", async () => {
    await using database = await createDatabase(
      major,
      `create domain there as int not null; create domain above as there; create table none (x above);
       create table t (id int, x above); insert into t values (1, (select x from none)), (2, 2)`,
    );
    await using snapshot = await snapshotOf(database.url);
    await database.query("delete from t where id = 1");

    const first = await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));
    const second = await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    expect(first.warnings).toEqual([
      expect.stringMatching(
        /^not-null public\.there\S* is restored as a check that is NOT VALID: column "x" of table "t"/,
      ),
    ]);
    expect(second.warnings).toEqual([]);
    expect(await database.query("select * from t order by id")).toEqual([
      ["1", null],
      ["2", "2"],
    ]);
    await expect(database.query("insert into t values (3, null)")).rejects.toThrow("violates check constraint");
  });

  test("leaves NOT NULL of a domain as it is where no row that stays is null", async () => {
    await using database = await createDatabase(
      major,
      "create domain there as int not null; create table t (x there, y there[]); insert into t values (1, '{1}')",
    );
    await using snapshot = await snapshotOf(database.url);
    const before = await database.query(DOMAINS);

    const { warnings } = await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    expect(warnings).toEqual([]);
    expect(await database.query(DOMAINS)).toEqual(before);
  });

  test("makes checks NOT VALID whose function changed since, of tables and domains, with what children have of them", async () => {
    await using database = await createDatabase(
      major,
      `create function good(int) returns bool language sql immutable as 'select true';
       create domain d as int constraint d_good check (good(value)); comment on constraint d_good on domain d is 'of d';
       create domain e as int; create table t (id int primary key, i int constraint good check (good(i)), d d, e e[]); insert into t values (1, -1, -1, '{-1}');
       alter domain e add constraint e_low check (value > 0) not valid;
       create table parted (a int, constraint of_all check (good(a))) partition by list (a); create table part partition of parted default;
       comment on constraint of_all on part is 'of part'; insert into parted values (-5);
       create or replace function good(int) returns bool language sql immutable as 'select $1 > 0'`,
    );
    await using snapshot = await snapshotOf(database.url);
    const before = await database.query(CONSTRAINTS);

    const { warnings } = await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    const named = warnings.map((warning) => warning.split(" is restored as NOT VALID: ")[0]);
    expect(new Set(named)).toEqual(
      new Set(["check good of public.t", "check of_all of public.parted", "check public.d.d_good"]),
    );
    const unproven = before.map((row) =>
      ["good", "d_good", "of_all"].includes(row[1] ?? "") ? row.with(2, `${row[2]} NOT VALID`).with(4, "f") : row,
    );
    expect(await database.query(CONSTRAINTS)).toEqual(unproven);
    expect(await database.query("select * from t")).toEqual([["1", "-1", "-1", "{-1}"]]);
    expect(await database.query("select * from part")).toEqual([["-5"]]);
  });

  test("refuses rows for constraints that came later, and leaves all as it was", async () => {
    await using database = await createDatabase(
      major,
      "create domain d as int; create table t (id int primary key, x d); insert into t values (1, null), (2, -2)",
    );
    await using snapshot = await snapshotOf(database.url);
    await database.query("delete from t; alter domain d set not null; alter table t add constraint low check (x > 0)");
    const state = async () => [await database.query(CONSTRAINTS), await database.query(DOMAINS)];
    const before = await state();

    const restoring = restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    await expect(restoring).rejects.toMatchObject({
      code: "23502",
      hint: expect.stringContaining("drop the NOT NULL"),
    });
    expect(await state()).toEqual(before);
    await database.query("alter domain d drop not null");
    await expect(restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader))).rejects.toMatchObject({
      code: "23514",
    });
  });

  const raising = `create function fine(int) returns bool language plpgsql immutable as $$ begin return true; end $$;
    create domain d as int constraint d_fine check (fine(value)); create domain e as int;
    create table t (id int primary key, i int constraint fine check (fine(i)), d d, plain int check (plain > 0)); insert into t values (1, -1, 1, 1), (2, 1, -1, 1);
    create table parted (a int) partition by list (a); create table part partition of parted (constraint of_part check (fine(a))) default; insert into parted values (-5)`;
  const stricter = `create or replace function fine(int) returns bool language plpgsql immutable as $$ begin if $1 < 0 then raise 'too low'; end if; return true; end $$`;

  test("makes checks NOT VALID whose function raises an error since, of tables, partitions and domains", async () => {
    await using database = await createDatabase(major, raising);
    await using snapshot = await snapshotOf(database.url);
    const before = await database.query(CONSTRAINTS);
    await database.query(`${stricter}; delete from t; delete from parted`);

    const { warnings } = await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    expect(warnings.toSorted()).toEqual([
      expect.stringMatching(/^check fine of public.t is restored as NOT VALID: too low/),
      expect.stringMatching(/^check of_part of public.part is restored as NOT VALID: too low/),
      expect.stringMatching(/^check public.d.d_fine is restored as NOT VALID: too low/),
    ]);
    const unproven = before.map((row) =>
      /fine|of_part/.test(row[1] ?? "") ? row.with(2, `${row[2]} NOT VALID`).with(4, "f") : row,
    );
    expect(await database.query(CONSTRAINTS)).toEqual(unproven);
    expect(await database.query("select sum(i), sum(d) from t union all select sum(a), 0 from parted")).toEqual([
      ["0", "0"],
      ["-5", "0"],
    ]);
  });

  test("names the checks that came later and raise an error, and leaves all as it was", async () => {
    await using database = await createDatabase(
      major,
      "create domain e as int; create table t (id int, e e); insert into t values (-1, 1)",
    );
    await using snapshot = await snapshotOf(database.url);
    await database.query(`delete from t; create function fine(int) returns bool language plpgsql as $$ begin return true; end $$; ${stricter.replace("immutable", "")};
      alter table t add constraint later check (fine(id)); alter domain e add constraint e_later check (fine(value))`);
    const before = await database.query(CONSTRAINTS);

    const restoring = restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    await expect(restoring).rejects.toMatchObject({
      message: expect.stringMatching(/^cannot restore public.t: too low/),
      hint: expect.stringContaining("later of public.t, e_later of domain public.e"),
    });
    expect(await database.query(CONSTRAINTS)).toEqual(before);
    expect(await database.query("select count(*) from t")).toEqual([["0"]]);
  });

  test("says which domain must be the login's own for its check to be taken off, and leaves all as it was", async () => {
    await using database = await createDatabase(major, raising);
    const login = `login_${database.name}`;
    await database.query(
      `create role ${login} login password 'pw'; grant ${login} to current_user; grant all on schema public to ${login}; alter table t owner to ${login}`,
    );
    try {
      await using snapshot = await snapshotOf(database.url);
      const before = await database.query(CONSTRAINTS);
      const options = inPlaceOptionsFor(database.urlFor(login, "pw"), snapshot.reader, { tables: ["t"] });

      const silent = await restoreSnapshot(options);
      await database.query(stricter);
      const raised = restoreSnapshot(options);

      expect(silent.warnings).toEqual([]);
      const hint = expect.stringContaining("owns the domain public.d");
      await expect(raised).rejects.toMatchObject({ message: expect.stringContaining("too low"), hint });
      await database.query(
        "create or replace function fine(int) returns bool language plpgsql immutable as 'begin return $1 > 0; end'",
      );
      const refused = restoreSnapshot(options);
      await expect(refused).rejects.toMatchObject({ code: "23514", hint });
      expect(await database.query(CONSTRAINTS)).toEqual(before);
      expect(await database.query("select count(*) from t")).toEqual([["2"]]);
    } finally {
      await database.query(`drop owned by ${login}; drop role ${login}`);
    }
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
