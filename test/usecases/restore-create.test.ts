import { describe, expect, test } from "vitest";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { readerWith, type SnapshotReader } from "../../src/snapshot/snapshot-reader.ts";
import { restoreIntoEmpty } from "../../src/usecases/restore-create.ts";
import { restoreSnapshot } from "../../src/usecases/restore-snapshot.ts";
import { pgTool } from "../support/pg-tools.ts";
import { createDatabase, postgresMajors, type TestDatabase } from "../support/postgres.ts";
import { dump, emptyDatabase, fixture, inPlaceOptionsFor, optionsFor, snapshotOf } from "../support/restoring.ts";

const awkward = fixture("awkward");
const everyType = fixture("every-type");
const rows = `
  insert into app.country select chr(97 + i / 26) || chr(97 + i % 26), 'name ' || i, i / 3.0 from generate_series(0, 99) i on conflict do nothing;
  insert into app.person (code, email, score, salary, home, data, names) select 'K' || i, 'p' || i || '@x', 1 + i % 900, i / 7.0, row('s' || i, i, 'z', array['a', null, 'b,c'])::app.address, jsonb_build_object('i', i), E'n\\t' || i from generate_series(1, 3000) i;
  insert into app.sale select i, '2024-01-01'::date + i % 700, i / 3.0, case when i % 2 = 0 then E'\\\\N' end from generate_series(1, 5000) i;
  insert into app.base values (1), (2); insert into app.derived values (3, 'x', 4); insert into app.empty default values; insert into app.scratch ("Quoted ""Column""") values (5);
  insert into app.left_side values (1, null); insert into app.right_side values (1, 1); update app.left_side set r = 1;
  select lo_from_bytea(991, decode(repeat('ef', 300000), 'hex')); select nextval('app.counter')`;

const UNFINISHED =
  "create schema rowkeep_restore; comment on schema rowkeep_restore is 'restore of 20240101T000000Z-full, not finished'; create table t (i int); insert into t values (7)";

const contentOf = (database: TestDatabase) =>
  database.query(
    "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' union all select nspname, '' from pg_namespace where nspname !~ '^pg_' and nspname not in ('public', 'information_schema')",
  );

/** Without owners: each generation belongs to the role that made it. */
const definitionsOf = ({ reader }: { readonly reader: SnapshotReader }) =>
  reader.manifest.definitions.map((definition) => ({ ...definition, owner: undefined }));

describe.each(postgresMajors)("restoring into an empty PostgreSQL %i database", (major) => {
  test("as an ordinary owner makes a database whose pg_dump is equal byte for byte", async ({ skip }) => {
    if (!pgTool("pg_dump", major) && !process.env["CI"]) skip("pg_dump is not installed: npm run services");
    await using source = await createDatabase(major, awkward);
    await source.query(rows);
    await source.query("refresh materialized view app.summary; refresh materialized view app.summary2");
    // The owner restores what it owns: row security would hide its rows from itself otherwise.
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const result = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    expect(result.tables.every(({ deleted }) => deleted === 0)).toBe(true);
    expect(dump(major, target.url)).toBe(dump(major, source.url));
    expect(await contentOf(target)).not.toEqual(expect.arrayContaining([["rowkeep_restore", ""]]));
  });

  test("keeps every built-in type with its extreme values, created anew and deleted and inserted", async ({ skip }) => {
    if (!pgTool("pg_dump", major) && !process.env["CI"]) skip("pg_dump is not installed: npm run services");
    await using source = await createDatabase(major, everyType);
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);
    const before = dump(major, source.url);

    await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));
    await restoreSnapshot({
      ...optionsFor(source.url, snapshot.reader),
      isNamed: false,
      allowConversion: false,
      ignoreMissing: false,
    });

    expect(dump(major, target.url)).toBe(before);
    expect(dump(major, source.url)).toBe(before);
  });

  test.for(["rental-store", "music-store"])(
    "makes the sample database %s again, in two generations",
    async (name, { skip }) => {
      if (!pgTool("pg_dump", major) && !process.env["CI"]) skip("pg_dump is not installed: npm run services");
      await using source = await createDatabase(major, fixture(name));
      await using first = await snapshotOf(source.url);
      await using child = await emptyDatabase(major);
      await using grandchild = await emptyDatabase(major);

      await restoreIntoEmpty(optionsFor(child.ownerUrl, first.reader));
      await using second = await snapshotOf(child.url);
      await restoreIntoEmpty(optionsFor(grandchild.ownerUrl, second.reader));

      expect(first.reader.manifest.notCaptured).toEqual([]);
      expect(definitionsOf(second)).toEqual(definitionsOf(first));
      expect(second.reader.manifest.sequences).toEqual(first.reader.manifest.sequences);
      expect(dump(major, child.url)).toBe(dump(major, source.url));
      expect(dump(major, grandchild.url)).toBe(dump(major, source.url));
    },
  );

  test("restores rights only when it is asked to", async () => {
    await using source = await createDatabase(
      major,
      `drop role if exists reader_${major}; create role reader_${major}; create table t (i int); create sequence s;
       create function f() returns int language sql as 'select 1'; revoke all on function f() from public;
       grant select, insert on t to reader_${major}; grant update on t to reader_${major} with grant option; grant usage on sequence s to public`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using plain = await emptyDatabase(major);
    await using granted = await emptyDatabase(major);

    await restoreIntoEmpty(optionsFor(plain.ownerUrl, snapshot.reader));
    await restoreIntoEmpty(optionsFor(granted.ownerUrl, snapshot.reader, { grants: true }));

    const rights = `select has_table_privilege('reader_${major}', 't', 'insert'), has_table_privilege('reader_${major}', 't', 'update with grant option'),
                           has_table_privilege('reader_${major}', 't', 'delete'), has_sequence_privilege('reader_${major}', 's', 'usage'), has_function_privilege('reader_${major}', 'f()', 'execute')`;
    expect(await plain.query(rights)).toEqual([["f", "f", "f", "f", "t"]]);
    expect(await granted.query(rights)).toEqual([["t", "t", "f", "t", "f"]]);
    for (const database of [source, granted]) await database.query(`drop owned by reader_${major}`);
    await source.query(`drop role reader_${major}`);
  });

  test("as an ordinary owner leaves out what only a superuser may make, and names it", async () => {
    const sql = fixture("awkward-superuser").replace(/create index t_pairs.*/, "");
    await using source = await createDatabase(major, `${sql}; comment on publication everything is 'all'`);
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    expect(snapshot.reader.manifest.notCaptured).toEqual([]);
    for (const what of ["operator-family app.pairs", "operator-class app.pair_order", "publication everything"]) {
      expect(warnings).toEqual(expect.arrayContaining([expect.stringContaining(`${what} is not restored: `)]));
    }
    expect(await target.query("select count(*) from app.t where p operator(app.=#) 3")).toEqual([["14"]]);
  });

  test("keeps comments on checks that are NOT VALID, or were when a child inherited them", async () => {
    await using source = await createDatabase(
      major,
      `create table t (a int); insert into t values (-1); create table child () inherits (t); create table proven () inherits (t);
       alter table t add constraint pos check (a > 0) not valid; alter table proven validate constraint pos;
       create table parted (a int) partition by list (a); create table part partition of parted default; insert into part values (-1);
       alter table parted add constraint pos check (a > 0) not valid;
       create domain d as int constraint small check (value < 9); create table of_d (d d); insert into of_d values (-1);
       alter domain d add constraint pos check (value > 0) not valid;
       comment on constraint pos on t is 'of t'; comment on constraint pos on child is 'of child';
       comment on constraint pos on proven is 'of proven'; comment on constraint pos on parted is 'of parted';
       comment on constraint pos on part is 'of part'; comment on constraint pos on domain d is 'of d';
       comment on constraint small on domain d is 'of small'`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    // What a child proved of a check that it inherits is not kept.
    const commented = `select obj_description(oid, 'pg_constraint') as text, case when conrelid <> to_regclass('proven') then pg_get_constraintdef(oid) end
                         from pg_constraint where obj_description(oid, 'pg_constraint') is not null order by 1`;
    expect(await target.query(commented)).toHaveLength(7);
    expect(await target.query(commented)).toEqual(await source.query(commented));
    expect(
      await target.query("select a from only t union all select a from parted union all select d from of_d"),
    ).toEqual([["-1"], ["-1"], ["-1"]]);
  });

  test("keeps the state of a trigger on any level of partitions", async () => {
    await using source = await createDatabase(
      major,
      `create table r (a int, b int, c int) partition by list (a); create table r1 partition of r for values in (1) partition by list (b);
       create table r1a partition of r1 for values in (1) partition by list (c);
       create table a_leaf partition of r1a default; create table b_leaf partition of r1 default; create table c_leaf partition of r default;
       create function f() returns trigger language plpgsql as 'begin return null; end';
       create trigger t after insert on r for each row execute function f(); alter table a_leaf disable trigger t;
       create trigger u after insert on r for each row execute function f(); alter table r1 enable always trigger u; alter table b_leaf disable trigger u`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    const states =
      "select tgname, tgrelid::regclass, tgenabled from pg_trigger order by tgname, tgrelid::regclass::text";
    expect(await target.query(states)).toHaveLength(12);
    expect(await target.query(states)).toEqual(await source.query(states));
  });

  test("refuses a database that is not empty, and changes nothing in it", async () => {
    await using source = await createDatabase(major, "create table t (i int)");
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);
    await target.query("create table theirs (i int)");

    const restoring = restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    await expect(restoring).rejects.toMatchObject({ kind: "refused", code: "not-empty" });
    expect(await contentOf(target)).toEqual([["public", "theirs"]]);
  });

  test.each(["damaged", "stopped"])("leaves an empty database when it is %s in the middle", async (what) => {
    await using source = await createDatabase(
      major,
      "create schema s; create publication p; create collation folded from \"C\"; create operator ### (leftarg = int, rightarg = int, function = int4pl); create text search configuration words (copy = pg_catalog.english); create type s.e as enum ('a'); create table s.t (i int, e s.e); insert into s.t select i, 'a' from generate_series(1, 100000) i; create function f() returns int language sql as 'select 1'",
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);
    const controller = new AbortController();
    const broken = withChunks(snapshot.reader, async function* (bytes) {
      yield bytes.subarray(0, 1000);
      if (what === "damaged") throw new Error("damaged");
      controller.abort(new DOMException("stopped", "AbortError"));
      yield bytes.subarray(1000);
    });

    const restoring = restoreIntoEmpty(optionsFor(target.ownerUrl, broken, { signal: controller.signal }));

    await expect(restoring).rejects.toThrow(what);
    expect(await contentOf(target)).toEqual([]);
    await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));
    expect(await target.query("select count(*) from s.t")).toEqual([["100000"]]);
  });

  test("plans no restore into a database that is not empty", async () => {
    await using source = await createDatabase(major, "create table t (i int primary key); insert into t values (1)");
    await using snapshot = await snapshotOf(source.url);

    const planned = restoreIntoEmpty(optionsFor(source.url, snapshot.reader, { planOnly: true }));

    await expect(planned).rejects.toMatchObject({ kind: "refused", code: "not-empty" });
  });

  test("tells what a killed restore left before it is removed", async () => {
    await using source = await createDatabase(major, "create table t (i int primary key); insert into t values (1)");
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);
    await target.query(UNFINISHED);

    const planned = await restoreIntoEmpty(optionsFor(target.url, snapshot.reader, { planOnly: true }));

    expect(planned.plan?.notes).toEqual([expect.stringMatching(/everything there is removed first \(.*table t/)]);
  });

  test("puts no rows into what a killed restore left", async () => {
    await using source = await createDatabase(major, "create table t (i int primary key); insert into t values (1)");
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);
    await target.query(UNFINISHED);

    const inPlace = restoreSnapshot(inPlaceOptionsFor(target.url, snapshot.reader));

    await expect(inPlace).rejects.toMatchObject({ kind: "refused", code: "unfinished" });
    expect(await target.query("select i from t")).toEqual([["7"]]);
  });

  test("makes no snapshot of what a killed restore left", async () => {
    await using target = await emptyDatabase(major);
    await target.query(UNFINISHED);

    await expect(snapshotOf(target.url)).rejects.toMatchObject({
      kind: "refused",
      code: "unfinished",
      message: expect.stringContaining("cannot read"),
    });
  });

  test("recognises what a killed restore left, removes it and starts again", async () => {
    await using source = await createDatabase(major, "create table t (i int primary key); insert into t values (1)");
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);
    const owner = target.ownerUrl;
    await using half = await createDatabase(major);
    void half;
    const { default: pg } = await import("pg");
    const client = new pg.Client({ connectionString: owner });
    await client.connect();
    await client.query(
      "create schema rowkeep_restore; comment on schema rowkeep_restore is 'restore of 20240101T000000Z-full, not finished'; create table t (half int); create schema left_over; create table left_over.x ()",
    );
    await client.end();

    await restoreIntoEmpty(optionsFor(owner, snapshot.reader));

    expect(await target.query("select i from t")).toEqual([["1"]]);
    expect(new Set((await contentOf(target)).map(([, name]) => name))).toEqual(new Set(["t", "t_pkey"]));
  });
});

function withChunks(
  reader: SnapshotReader,
  change: (bytes: Uint8Array) => AsyncIterable<Uint8Array>,
): SnapshotReader & { readonly manifest: Manifest } {
  return readerWith(reader, {
    async *chunks(refs, options) {
      for await (const bytes of reader.chunks(refs, options)) yield* change(bytes);
    },
  });
}

test("restoring NOT NULL … NOT VALID of PostgreSQL 18 keeps it with its comment, also of children", async () => {
  await using source = await createDatabase(
    18,
    `create table t (a int, b int not null); insert into t values (null, 1), (1, 1); create table child () inherits (t);
     alter table t add constraint nn not null a not valid;
     create table parent (a int); create table a_child () inherits (parent); create table z_child () inherits (a_child); insert into z_child values (null);
     alter table z_child add constraint z not null a not valid; alter table parent add constraint nn not null a not valid;
     create table parted (a int, b int) partition by list (b); create table proven partition of parted for values in (1);
     create table part (a int, b int); insert into part values (null, 2); alter table part add constraint mine not null a not valid;
     alter table parted add constraint nn not null a not valid; alter table parted attach partition part for values in (2);
     alter table proven validate constraint nn;
     create table alone (a int); alter table alone add constraint nn not null a no inherit not valid, add constraint pos check (a > 0) not valid;
     comment on constraint nn on t is 'of t'; comment on constraint nn on child is 'of child'; comment on constraint z on z_child is 'of z_child';
     comment on constraint nn on a_child is 'of a_child'; comment on constraint mine on part is 'of part'; comment on constraint nn on proven is 'of proven'`,
  );
  await using snapshot = await snapshotOf(source.url);
  await using target = await emptyDatabase(18);

  await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

  const constraints = `select conrelid::regclass, conname, pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint')
                         from pg_constraint where conrelid <> 0 and connamespace = 'public'::regnamespace order by conrelid::regclass::text, conname`;
  expect(await target.query(constraints)).toEqual(await source.query(constraints));
  expect(await target.query(constraints)).toContainEqual(["t", "nn", "NOT NULL a NOT VALID", "of t"]);
  expect(await target.query("select a from t order by a")).toEqual([["1"], [null]]);
  await using again = await snapshotOf(target.url);
  expect(definitionsOf(again)).toEqual(definitionsOf(snapshot));
});
