import { describe, expect, test } from "vitest";
import type { RangeRows, TrustToken } from "../../src/drivers/change-tracker.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { openTracked, tokenOf } from "../support/tracked-source.ts";
import { untilAlone } from "../support/until-alone.ts";

/** What the first and the second 8 pages hold. */
async function look(url: string, since: TrustToken): Promise<readonly (RangeRows | undefined)[]> {
  await using source = await openTracked(url);
  const table = source.tables.find(({ name }) => name.startsWith("t"));
  const { tracker } = source;
  if (!table || !tracker) throw new Error("no table is tracked");
  const first = await tracker.rangeRows(table, { lo: 0, hi: 8, since });
  return [first, await tracker.rangeRows(table, { lo: 8, hi: 16, since })];
}

const NONE = new Map();

/** Ten rows a page, 16 pages. */
const TABLE = `create table t (id int, v text); alter table t alter v set storage plain;
  insert into t select i, repeat('x', 760) from generate_series(1, 160) i`;

describe.each(postgresMajors)("the rows of a range of pages of PostgreSQL %i", (major) => {
  test("are counted while none of them is new", async () => {
    await using database = await createDatabase(major, TABLE);
    await untilAlone(database);
    const since = await tokenOf(database.url);

    const rows = await look(database.url, since);

    expect(rows).toEqual([
      { added: NONE, rows: 80 },
      { added: NONE, rows: 80 },
    ]);
  });

  test("are fewer when one was deleted, and those of a transaction that was taken back do not count", async () => {
    await using database = await createDatabase(major, TABLE);
    await untilAlone(database);
    const since = await tokenOf(database.url);
    await database.query("delete from t where id = 100");
    await database.query("begin; delete from t; insert into t values (0); rollback");

    const rows = await look(database.url, since);

    expect(rows).toEqual([
      { added: NONE, rows: 80 },
      { added: NONE, rows: 79 },
    ]);
  });

  test("have a new one when one took the place of another", async () => {
    await using database = await createDatabase(major, TABLE);
    await untilAlone(database);
    const since = await tokenOf(database.url);
    await database.query("delete from t where id = 3");
    await untilAlone(database);
    await database.query("vacuum t");
    await database.query("insert into t values (161, repeat('x', 760))");

    const [first, second] = await look(database.url, since);

    expect(first).toEqual({ added: new Map([[0, [3]]]), rows: 80 });
    expect(second).toEqual({ added: NONE, rows: 80 });
  });
});

const HOSTILE = [
  "enable_tidscan = off",
  "track_functions = 'all'",
  "max_parallel_workers_per_gather = 8",
  "parallel_setup_cost = 0",
  "parallel_tuple_cost = 0",
  "min_parallel_table_scan_size = 0",
  "jit_above_cost = 0",
  "plan_cache_mode = force_generic_plan",
  "track_io_timing = on",
  "search_path = evil, pg_catalog",
];

test.each([
  [15, "force_parallel_mode = on"],
  [18, "debug_parallel_query = on"],
] as const)(
  "no setting of a database and nothing in it changes what is counted (PostgreSQL %i)",
  async (major, parallel) => {
    await using database = await createDatabase(
      major,
      `${TABLE}; alter table t add x tid, add age xid, add pg_catalog int; alter table t rename to "t ""x' (a)";
       create table heir () inherits ("t ""x' (a)"); insert into heir (id) select generate_series(1, 20);
       create schema evil; create view evil."t ""x' (a)" as select 1;
       create function evil.age(xid) returns int language sql as 'select 2147483647';
       create function evil.no(int, int) returns bool language sql as 'select false';
       create operator evil.<= (leftarg = int, rightarg = int, function = evil.no)`,
    );
    for (const one of [...HOSTILE, parallel]) await database.query(`alter database ${database.name} set ${one}`);
    await untilAlone(database);
    const since = await tokenOf(database.url);
    await database.query(`delete from only public."t ""x' (a)" where id = 100`);

    const rows = await look(database.url, since);

    expect(rows).toEqual([
      { added: NONE, rows: 80 },
      { added: NONE, rows: 79 },
    ]);
  },
);

test.each(postgresMajors)("are not told by a server that does not count (PostgreSQL %i)", async (major) => {
  await using database = await createDatabase(major, TABLE);
  await untilAlone(database);
  const since = await tokenOf(database.url);
  await database.query(`alter database ${database.name} set track_counts = off`);

  const rows = await look(database.url, since);

  expect(rows).toEqual([undefined, undefined]);
});

test.each(postgresMajors)(
  "are not told to a login that may not ask, and nothing fails (PostgreSQL %i)",
  async (major) => {
    await using database = await createDatabase(major, TABLE);
    const role = `${database.name}_reader`;
    await database.query(
      `revoke execute on function pg_catalog.pg_stat_get_xact_tuples_returned(oid) from public;
     create role ${role} login password 'secret'; grant select on t to ${role}`,
    );
    await untilAlone(database);
    const since = await tokenOf(database.url);
    try {
      const rows = await look(database.urlFor(role, "secret"), since);

      expect(rows).toEqual([undefined, undefined]);
    } finally {
      await database.query(`drop owned by ${role}; drop role ${role}`);
    }
  },
);

test.each(postgresMajors)("are not looked at once more where rows only went (PostgreSQL %i)", async (major) => {
  await using database = await createDatabase(major, TABLE);
  await untilAlone(database);
  const since = await tokenOf(database.url);
  await database.query("delete from t where id = 100");
  await using source = await openTracked(database.url);
  const { tracker, tables } = source;
  const [table] = tables;
  if (!table || !tracker) throw new Error("no table is tracked");
  const range = { lo: 8, hi: 16, since };
  const seen = await tracker.rangeRows(table, range);

  await tracker.changedPages(table, { ...range, seen, counts: async () => new Int32Array(8).fill(10) });

  expect(seen).toEqual({ added: NONE, rows: 79 });
  expect(await tracker.rangeRows(table, range)).toBeUndefined();
});
