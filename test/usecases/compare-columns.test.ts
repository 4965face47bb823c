import { expect, test } from "vitest";
import type { CompareResult } from "../../src/usecases/compare-sites.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import type { PostgresMajor } from "../support/postgres-server.ts";
import { compareOpen, differencesOf, liveSide, snapshotSide } from "./compare-setup.ts";

/** Compares two live databases of one version, which are looked at again as the command does it. */
async function compareLive(major: PostgresMajor, left: string, right: string): Promise<CompareResult> {
  await using one = await createDatabase(major, left);
  await using other = await createDatabase(major, right);
  await using here = await liveSide(one.url);
  await using there = await liveSide(other.url);
  const reopen = async () => [await liveSide(one.url), await liveSide(other.url)] as const;
  return await compareOpen(here, there, { reopen });
}

test.each(postgresMajors)(
  "PostgreSQL %i: sees a change in a row that holds a NULL where its catalog says NOT NULL",
  async (major) => {
    const sql =
      "create table t (i int primary key, a int, n numeric, v text); insert into t values (1, null, null, 'x'), (2, 2, 2, 'y')";
    const lie = "; update pg_attribute set attnotnull = true where attrelid = 't'::regclass and attname in ('a', 'n')";

    const result = await compareLive(major, sql + lie, `${sql}; update t set v = 'changed' where i = 1${lie}`);

    expect(differencesOf(result)).toEqual(["t changed 1 v"]);
  },
);

test.each(postgresMajors)(
  "PostgreSQL %i: sees the blanks that a padded text lacks, since its type was changed in the catalog",
  async (major) => {
    const sql = (type: string) => `create table t (i int primary key, v ${type}); insert into t values (1, 'ab')`;
    const lie = "; update pg_attribute set atttypmod = 12 where attrelid = 't'::regclass and attname = 'v'";

    const result = await compareLive(major, sql("char(8)"), sql("char(4)") + lie);

    expect(differencesOf(result)).toEqual(["t changed 1 v"]);
  },
);

test("calls NaN equal to NaN, whatever its bits are, in more rows than are listed", async () => {
  const sql = (nan: (type: string) => string) =>
    `create table t as select i, ${nan("float8")} as v, ${nan("float4")} as w from generate_series(1, 210000) i; alter table t add primary key (i); analyze;
     create table k as select ${nan("float8")} as v, 0 as i; alter table k add primary key (v)`;

  const result = await compareLive(
    18,
    sql((type) => `'Infinity'::${type} - 'Infinity'::${type}`),
    sql((type) => `'NaN'::${type}`),
  );

  expect(result.equal).toBe(true);
});

/** A type and a key on either side. */
const OTHER_KEYS: readonly (readonly [string, string, string, string])[] = [
  ["bigint", "5000000000", "integer", "7"],
  ["integer", "70000", "smallint", "-7"],
  ["numeric", "12345678.5", "numeric(5,2)", "1.25"],
  ["text", "abc", "date", "2024-01-01"],
  ["text", "abc", "uuid", "00000000-0000-0000-0000-000000000001"],
  ["text", "abc", "boolean", "t"],
  ["text", "abcdef", "character varying(3)", "abc"],
  ["oid", "7", "bigint", "-5"],
];

test("looks up keys that the type of the other side cannot hold", async () => {
  const render = (at: 0 | 2) =>
    OTHER_KEYS.map(
      (one, index) =>
        `create table t${index} (k ${one[at]} primary key, v int); insert into t${index} values ('${one[at + 1]}', 1)`,
    ).join("; ");

  const result = await compareLive(18, render(0), render(2));

  expect(differencesOf(result).toSorted()).toEqual(
    OTHER_KEYS.flatMap(([, left, , right], index) => [`t${index} onlyLeft ${left}`, `t${index} onlyRight ${right}`]),
  );
});

test("finds rows by large and negative integer keys in the buckets of a snapshot", async () => {
  await using database = await createDatabase(
    18,
    `create table t (k bigint primary key, v int); insert into t select (i << 32) + sign(i) * (i % 3), i from generate_series(-10000::bigint, 10000) i;
     insert into t values (-9223372036854775808, 1), (9223372036854775807, 1), (-2147483648, 1), (2147483648, 1), (-1, 1); analyze`,
  );
  await using snapshot = await snapshotSide(database.url);
  await using same = await liveSide(database.url);
  await database.query("update t set v = 0 where k in (-9223372036854775808, 4294967297, -1)");
  await using changed = await liveSide(database.url);

  expect((await compareOpen(same, snapshot)).equal).toBe(true);
  expect(differencesOf(await compareOpen(changed, snapshot))).toEqual([
    "t changed -9223372036854775808 v",
    "t changed -1 v",
    "t changed 4294967297 v",
  ]);
});

test("compares tables whose key one side computes by their other columns, live and in a snapshot", async () => {
  await using plain = await createDatabase(
    18,
    "create table t (x int, k int primary key, v text); insert into t values (1, 1, 'a'), (7, 7, 'b')",
  );
  await using computed = await createDatabase(
    18,
    "create table t (x int, k int generated always as (x) stored primary key, v text); insert into t values (2, default, 'a'), (7, default, 'b')",
  );
  await using left = await liveSide(plain.url);
  await using right = await liveSide(computed.url);
  await using snapshot = await snapshotSide(computed.url);

  for (const side of [right, snapshot]) {
    const [there, back] = [await compareOpen(left, side), await compareOpen(side, left)];

    expect(differencesOf(there).toSorted()).toEqual(["t onlyLeft 1 a", "t onlyRight 2 a"]);
    expect(differencesOf(back).toSorted()).toEqual(["t onlyLeft 2 a", "t onlyRight 1 a"]);
  }
});
