import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createDatabase } from "../support/postgres.ts";
import {
  type ComparedPair,
  compareOpen,
  differencesOf,
  liveSide,
  openPair,
  type Pair,
  snapshotSide,
} from "./compare-setup.ts";

const PAIRS: readonly Pair[] = [
  { left: 15, right: 18, pairing: "live with live" },
  { left: 18, right: 18, pairing: "live with live" },
  { left: 18, right: 15, pairing: "live with snapshot" },
];

/** What is compared, its type, and two values that some comparison somewhere takes for one. */
const NEARLY_EQUAL: readonly (readonly [string, string, string, string])[] = [
  ["NULL and empty text", "text", "null", "''"],
  ["NULL and a backslash with N", "text", "null", "E'\\\\N'"],
  ["NULL and the mark that stands for it", "text", "null", "'~1'"],
  ["an empty array and an array of NULL", "text[]", "'{}'", "'{null}'"],
  ["an array of NULL and one of the word", "text[]", "'{null}'", `'{"null"}'`],
  ["0 and -0", "float8", "'0'", "'-0'"],
  ["NaN and infinity", "float8", "'NaN'", "'Infinity'"],
  ["neighbouring floats", "float8", "0.1::float8 + 0.2::float8", "0.3"],
  ["1.0 and 1.00", "numeric", "1.0", "1.00"],
  ["json in another order", "json", `'{"a":1,"b":2}'`, `'{"b":2,"a":1}'`],
  ["jsonb numbers with zeros", "jsonb", `'{"a":1.0}'`, `'{"a":1.00}'`],
  ["upper and lower case", "text", "'a'", "'A'"],
  ["composed and decomposed letters", "text", "U&'\\00e9'", "U&'e\\0301'"],
  ["a day and 24 hours", "interval", "'1 day'", "'24 hours'"],
  ["microseconds", "timestamptz", "'2024-01-01 00:00:00.000001Z'", "'2024-01-01 00:00:00.000002Z'"],
  ["timestamps 2^32 microseconds apart", "timestamp", "'2024-01-01 00:00:00'", "'2024-01-01 01:11:34.967296'"],
  ["infinite and finite timestamps", "timestamptz", "'infinity'", "'294276-01-01'"],
  ["integers 2^32 apart", "bigint", "1", "4294967297"],
  ["integers that fold to the same 32 bits", "bigint", "0", "4294967297"],
  ["negative integers that fold to the same 32 bits", "bigint", "-1", "-4294967298"],
  ["small zeros", "real", "'0'", "'-0'"],
  ["a letter of a padded text", "char(4)", "'a'", "'A'"],
  ["NULL and blanks", "char(4)", "null", "''"],
  ["NULL and 0", "smallint", "null", "0"],
  ["NULL and false", "boolean", "null", "false"],
  ["padding of bytes", "bytea", "'\\x00'", "'\\x0000'"],
  ["an address with and without its mask", "inet", "'10.0.0.1'", "'10.0.0.1/31'"],
  ["bit strings", "varbit", "''", "B'0'"],
  ["blanks", "text", "'a '", "'a'"],
];

/** A type, and three values. */
const KEY_TYPES: readonly (readonly [string, string, string, string])[] = [
  ["smallint", "1", "2", "-3"],
  ["bigint", "1", "4294967297", "-4294967298"],
  ["oid", "1", "2", "4294967295"],
  ["date", "'2024-01-01'", "'2024-01-02'", "'infinity'"],
  ["timestamptz", "'2024-01-01Z'", "'2024-01-02Z'", "'-infinity'"],
  ["numeric", "1.5", "1.50000000001", "'NaN'"],
  ["float8", "1.5", "'-0'", "'NaN'"],
  ["uuid", "md5('a')::uuid", "md5('b')::uuid", "md5('c')::uuid"],
  ["bytea", "'\\x00'", "'\\x0000'", "''"],
  ["varchar(9)", "'a'", "'a '", "''"],
  ["char(3)", "'a'", "'b'", "''"],
  ["inet", "'10.0.0.1'", "'10.0.0.1/31'", "'::1'"],
  ["int4range", "'[1,5)'", "'(,)'", "'empty'"],
];

describe.each(PAIRS)("comparing PostgreSQL $left with $right, $pairing", (pair) => {
  let open: ComparedPair;
  beforeAll(async () => {
    open = await openPair(pair);
  });
  afterAll(() => open[Symbol.asyncDispose]());

  test("calls equal what is equal, whatever the physical order, and says how many rows there are", async () => {
    const result = await open.compare({
      both: "create table t (i int primary key, v text, j jsonb, a text[], b bytea, f float8, n numeric, at timestamptz, u uuid)",
      left: `insert into t select i, E'tab\\tline\\nback\\\\slash ' || i, jsonb_build_object('i', i), array['x', null, '"'], decode(md5(i::text), 'hex'), i / 3.0, i * 1.10, 'epoch'::timestamptz + i * interval '1 h', md5(i::text)::uuid from generate_series(1, 9000) i`,
      right: `insert into t select i, E'tab\\tline\\nback\\\\slash ' || i, jsonb_build_object('i', i), array['x', null, '"'], decode(md5(i::text), 'hex'), i / 3.0, i * 1.10, 'epoch'::timestamptz + i * interval '1 h', md5(i::text)::uuid from generate_series(9000, 1, -1) i`,
    });

    expect(result.equal).toBe(true);
    expect(result.tables).toEqual([
      { schema: "public", name: "t", equal: true, left: { rows: 9000 }, right: { rows: 9000 }, differences: [] },
    ]);
  });

  test("finds 10 differing rows among 10,000 exactly, and the columns in which they differ", async () => {
    const result = await open.compare({
      both: "create table t (i int primary key, v text, n numeric(12,2)); insert into t select i, 'v' || i, i from generate_series(1, 10000) i",
      right: `update t set v = 'x' where i in (7, 5000); update t set n = n + 0.01 where i in (8, 10000);
              update t set v = null where i = 9; update t set v = '', n = null where i = 10;
              delete from t where i in (1, 4096); insert into t values (-5, 'new', 0), (20000, 'new', 0)`,
    });

    expect(result.equal).toBe(false);
    expect(differencesOf(result)).toEqual([
      "t onlyRight -5",
      "t onlyLeft 1",
      "t changed 7 v",
      "t changed 8 n",
      "t changed 9 v",
      "t changed 10 n v",
      "t onlyLeft 4096",
      "t changed 5000 v",
      "t changed 10000 n",
      "t onlyRight 20000",
    ]);
    expect(result.tables[0]).toMatchObject({ onlyLeft: 2, onlyRight: 2, changed: 6, columns: ["n", "v"] });
  });

  test("notices values that were swapped between two rows, or between two columns of a row", async () => {
    // Each swap is alone in its table: another difference would give it away.
    const result = await open.compare({
      both: `create table rows_of_int (i int primary key, a int, b int); insert into rows_of_int select i, i, i + 1 from generate_series(1, 100) i;
             create table rows_of_text (i bigint primary key, a text, n numeric); insert into rows_of_text select i, 'v' || i, i from generate_series(1, 100) i;
             create table keys (i int primary key, a text); insert into keys select i, 'v' || i from generate_series(1, 100) i;
             create table columns (i int primary key, a int, b int); insert into columns select * from rows_of_int;
             create table keyless (a bigint, b bigint); insert into keyless select i, i * 4294967296 from generate_series(1, 50) i`,
      right: `update rows_of_int set a = 3 - i where i in (1, 2); update rows_of_text set a = 'v' || (7 - i) where i in (3, 4);
              update keys set i = i + 1000 where i in (5, 6); update keys set i = case i when 1005 then 6 else 5 end where i > 1000;
              update columns set a = b, b = a where i = 50;
              update keyless set b = case a when 1 then 2 * 4294967296 else 4294967296 end where a in (1, 2)`,
    });

    expect(differencesOf(result).filter((line) => !line.startsWith("keyless"))).toEqual([
      "columns changed 50 a b",
      "keys changed 5 a",
      "keys changed 6 a",
      "rows_of_int changed 1 a",
      "rows_of_int changed 2 a",
      "rows_of_text changed 3 a",
      "rows_of_text changed 4 a",
    ]);
    expect(result.tables.find(({ name }) => name === "keyless")).toMatchObject({ onlyLeft: 2, onlyRight: 2 });
  });

  test("counts duplicates of tables without a key", async () => {
    const result = await open.compare({
      both: "create table t (a int, v text); insert into t values (1, 'one'), (1, 'one'), (1, 'one'), (2, null), (3, 'three')",
      left: "insert into t values (4, 'x'), (4, 'x')",
      right:
        "delete from t where ctid in (select ctid from t where a = 1 limit 2); insert into t values (2, null), (5, ''), (5, '')",
    });

    expect(differencesOf(result).toSorted()).toEqual([
      "t onlyLeft 1 one x2",
      "t onlyLeft 4 x x2",
      "t onlyRight 2 null",
      "t onlyRight 5  x2",
    ]);
  });

  test("tells apart what is only nearly equal, with a key and without", async () => {
    const make = (choose: (one: string, other: string) => string) =>
      NEARLY_EQUAL.map(
        ([, type, one, other], index) =>
          `create table t${index} (i int primary key, v ${type}); insert into t${index} values (1, ${one}), (2, ${other}), (3, ${choose(one, other)});
           create table k${index} (i int, v ${type}); insert into k${index} select * from t${index}`,
      ).join("; ");

    const result = await open.compare({ left: make((one) => one), right: make((_, other) => other) });

    const found = (name: string) => result.tables.find((table) => table.name === name);
    for (const [index, [what]] of NEARLY_EQUAL.entries()) {
      expect(found(`t${index}`)?.differences, what).toEqual([{ key: { i: "3" }, kind: "changed", columns: ["v"] }]);
      expect(found(`k${index}`), what).toMatchObject({ onlyLeft: 1, onlyRight: 1, changed: 0 });
    }
  });

  test("does not take the end of one value for the beginning of the next", async () => {
    const result = await open.compare({
      both: "create table t (i int primary key, a text, b text, c text)",
      left: "insert into t values (1, 'x|', 'y', null), (2, '|', '', 'z'), (3, null, 'a', null), (4, '~1', null, 'b'), (5, 'same', 'same', null)",
      right:
        "insert into t values (1, 'x', '|y', null), (2, '', '|', 'z'), (3, 'a', null, null), (4, null, '~1', 'b'), (5, 'same', 'same', null)",
    });

    expect(differencesOf(result)).toEqual(["t changed 1 a b", "t changed 2 a b", "t changed 3 a b", "t changed 4 a b"]);
  });

  test("compares columns by name, whatever their order, and more than a function takes at once", async () => {
    const names = Array.from({ length: 230 }, (_, index) => `c${index} ${index % 3 === 0 ? "text" : "int"}`);
    const insert = "insert into wide (i, c0, c1, c100, c229) values (1, 'a', 2, 3, 4), (2, null, null, 3, 4)";

    const result = await open.compare({
      left: `create table t (i int primary key, a text, b int); insert into t values (1, 'x', 2); create table wide (i int primary key, ${names.join(", ")}); ${insert}`,
      right: `create table t (b int, gone int, a text, i int primary key); alter table t drop gone; insert into t values (2, 'x', 1);
              create table wide (${names.toReversed().join(", ")}, i int primary key); ${insert}; update wide set c229 = 5 where i = 2`,
    });

    expect(differencesOf(result)).toEqual(["wide changed 2 c229"]);
    expect(result.tables[0]).toMatchObject({ name: "t", equal: true });
  });

  test("handles keys of text under any collation, of several columns and of every other kind", async () => {
    const result = await open.compare({
      both: "create type mood as enum ('sad', 'ok'); create domain code as text",
      left: `create table a (k text collate "C" primary key, v int); create table b (k text, m mood, d date, primary key (k, m, d)); create table c (k code primary key, v int);
             create table n (k numeric primary key, v int); insert into n values (1.0, 1), (2.50, 2);
             insert into a select x, 1 from unnest('{A1,B,Z,_x,a-1,a1,ab,z,é}'::text[]) x; insert into b values ('x', 'sad', '2024-01-01'), (E'\\t|\\\\', 'ok', 'infinity'); insert into c values ('a', 1), ('B', 2)`,
      right: `create table a (k text collate "en-US-x-icu" primary key, v int); create table b (k text, m mood, d date, primary key (k, m, d)); create table c (k code primary key, v int);
              create table n (k numeric primary key, v int); insert into n values (1.00, 1), (2.50, 3);
              insert into a select x, 1 from unnest('{é,z,ab,a1,a-1,_x,Z,b,A1}'::text[]) x; insert into b values ('x', 'sad', '2024-01-02'), (E'\\t|\\\\', 'ok', 'infinity'); insert into c values ('a', 1), ('B', 3)`,
    });

    expect(differencesOf(result)).toEqual([
      "a onlyLeft B",
      "a onlyRight b",
      "b onlyLeft x sad 2024-01-01",
      "b onlyRight x sad 2024-01-02",
      "c changed B v",
      "n onlyLeft 1.0",
      "n onlyRight 1.00",
      "n changed 2.50 v",
    ]);
  });

  test.each(KEY_TYPES)(
    "sees values of %s that change places, and keys whose row repeats them",
    async (type, a, b, c) => {
      const result = await open.compare({
        both: `create table key (k ${type} primary key, v ${type}); create table swap (i int primary key, v ${type}, w ${type});
             create table pair (k ${type}, l ${type}, v int, primary key (k, l))`,
        left: `insert into key values (${a}, ${a}), (${b}, ${b}); insert into swap values (1, ${a}, ${b}), (2, ${b}, ${a}), (3, ${a}, ${a}), (4, ${c}, null);
             insert into pair values (${a}, ${b}, 1), (${b}, ${a}, 1), (${c}, ${c}, 1)`,
        right: `insert into key values (${a}, ${a}), (${c}, ${c}); insert into swap values (1, ${b}, ${a}), (2, ${a}, ${b}), (3, ${b}, ${b}), (4, null, ${c});
              insert into pair values (${a}, ${b}, 1), (${b}, ${a}, 2), (${b}, ${b}, 1)`,
      });

      expect(result.tables).toMatchObject([
        { name: "key", onlyLeft: 1, onlyRight: 1, changed: 0 },
        { name: "pair", onlyLeft: 1, onlyRight: 1, changed: 1, columns: ["v"] },
        { name: "swap", onlyLeft: 0, onlyRight: 0, changed: 4, columns: ["v", "w"] },
      ]);
    },
  );

  test("takes keys that a collation calls equal by their letters", async () => {
    const table = `create collation any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
                   create table t (k text collate any_case primary key, v text collate any_case)`;

    const result = await open.compare({
      both: table,
      left: "insert into t values ('Anna', 'x'), ('Bob', 'y'), ('Cid', 'z')",
      right: "insert into t values ('anna', 'x'), ('Bob', 'Y'), ('Cid', 'z')",
    });

    expect(differencesOf(result)).toEqual(["t onlyLeft Anna", "t changed Bob v", "t onlyRight anna"]);
  });

  test("compares composite values, ranges and enums as they are written", async () => {
    const result = await open.compare({
      both: `create type filler as enum ('x'); create type pair as (a int, b text); create type mood as enum ('sad', 'ok');
             create table t (i int primary key, p pair, m mood, r int4range, x xml, c char(5), v "char")`,
      left: "insert into t values (1, row(null, null), 'ok', '[1,5)', '<a/>', 'ab', 'c'), (2, null, 'sad', 'empty', null, '', ''), (3, row(1, ''), null, null, null, null, null)",
      right:
        "insert into t values (1, row(null, null), 'ok', '[1,4]', '<a/>', 'ab ', 'c'), (2, row(null, null), 'sad', 'empty', null, '', ''), (3, row(1, null), null, null, null, null, null)",
    });

    expect(differencesOf(result)).toEqual(["t changed 2 p", "t changed 3 p"]);
  });

  test("names definitions that differ, and tables that are missing", async () => {
    const result = await open.compare({
      both: "create table a (i int primary key, v text); insert into a values (1, 'x')",
      left: `create table gone (i int); insert into gone values (1), (2); create index a_v on a (v);
             alter table a alter v set default 'd', add constraint short check (length(v) < 9), add extra int; create function f() returns int language sql as 'select 1'`,
      right: "alter table a alter v type varchar(10), alter v set not null; create unique index a_w on a (v)",
    });

    expect(result.equal).toBe(false);
    expect(result.tables).toMatchObject([
      { name: "a", equal: false, left: { rows: 1 }, right: { rows: 1 } },
      { name: "gone", equal: false, left: { rows: 2 }, right: { rows: 0, missing: true } },
    ]);
    const found = result.tables[0]?.schemaDifferences?.map(({ object, name }) => `${object} ${name}`);
    expect(found).toEqual(["column v", "column extra", "constraint short", "default a.v", "index a_v", "index a_w"]);
    expect(result.schemaDifferences.map(({ object, left }) => [object, typeof left])).toEqual([["function", "string"]]);
  });

  test("compares a partitioned table with one that is cut otherwise, and one without partitions", async () => {
    const rows = "insert into p select i, 'v' || i from generate_series(1, 3000) i";

    const result = await open.compare({
      left: `create table p (i int primary key, v text) partition by range (i); create table p1 partition of p for values from (0) to (10); create table p2 partition of p default; ${rows}`,
      right: `create table p (i int primary key, v text); ${rows}; update p set v = 'x' where i in (5, 500)`,
    });

    expect(result.tables.map(({ name, left, right }) => [name, left.rows, right.rows])).toEqual([["p", 3000, 3000]]);
    expect(differencesOf(result)).toEqual(["p changed 5 v", "p changed 500 v"]);
  });

  test("compares chosen tables only, and with counts only just those", async () => {
    const sql = {
      both: "create table a (i int primary key); create table b (i int primary key); insert into a values (1); insert into b values (1), (2)",
      right: "update a set i = 5; delete from b where i = 1",
    };

    const chosen = await open.compare(sql, { tables: ["a"] });
    const counted = await open.compare(sql, { countOnly: true });

    expect(chosen.tables.map(({ name, equal }) => [name, equal])).toEqual([["a", false]]);
    expect(counted.tables.map(({ name, equal }) => [name, equal])).toEqual([
      ["a", true],
      ["b", false],
    ]);
  });

  test("compares large objects by their content", async () => {
    const both = "select lo_from_bytea(70, 'same'), lo_from_bytea(71, decode(repeat('cd', 300000), 'hex'))";

    const same = await open.compare({ both });
    const other = await open.compare({ both, right: "select lo_put(71, 299999, 'x')" });

    expect(same).toMatchObject({ equal: true, largeObjects: { equal: true, left: 2, right: 2 } });
    expect(other).toMatchObject({ equal: false, largeObjects: { equal: false } });
  });
});

test.each([15, 18] as const)("compares two snapshots, and two databases, of PostgreSQL %i", async (major) => {
  const sql =
    "create table t (i int primary key, v text); insert into t select i, 'v' || i from generate_series(1, 2000) i; create table k (v text)";
  for (const pairing of ["live with live", "snapshot with snapshot"] as const) {
    await using open = await openPair({ left: major, right: major, pairing });

    const same = await open.compare({ both: sql });
    const other = await open.compare({ both: sql, right: "update t set v = v || i where i in (1, 1999)" });

    expect(same).toMatchObject({ equal: true, tables: [{ name: "k" }, { name: "t", left: { rows: 2000 } }] });
    expect(differencesOf(other)).toEqual(["t changed 1 v", "t changed 1999 v"]);
  }
});

test("sees the same instants of time in any time zone and any setting of the database", async () => {
  const sql = `create table t (i int primary key, at timestamptz, d date, v interval, f float4, b bytea);
    insert into t values (1, '2024-06-01 12:00:00Z', '2024-02-01', '-1 day -02:03:04', 1e-45, '\\x00ff')`;
  await using one = await createDatabase(15, sql);
  await using other = await createDatabase(18, sql);
  await other.query(
    `alter database ${other.name} set timezone = 'Asia/Kolkata'; alter database ${other.name} set datestyle = 'SQL, DMY';
     alter database ${other.name} set intervalstyle = 'sql_standard'; alter database ${other.name} set extra_float_digits = 0;
     alter database ${other.name} set bytea_output = 'escape'`,
  );
  await using left = await liveSide(one.url);
  await using right = await liveSide(other.url);

  const result = await compareOpen(left, right);

  expect(result.equal).toBe(true);
});

test("names a NOT NULL … NOT VALID that a snapshot lacks", async () => {
  await using database = await createDatabase(18, "create table t (a int); insert into t values (null)");
  await using left = await snapshotSide(database.url);
  await database.query("alter table t add constraint nn not null a not valid");
  await using right = await liveSide(database.url);

  const { equal, tables } = await compareOpen(left, right);

  expect(equal).toBe(false);
  expect(tables[0]?.schemaDifferences).toContainEqual(
    expect.objectContaining({ left: undefined, right: "ALTER TABLE public.t ADD CONSTRAINT nn NOT NULL a NOT VALID;" }),
  );
});

test("compares databases of different encodings by their characters", async () => {
  const sql = "create table t (i int primary key, v text); insert into t values (1, 'é'), (2, U&'\\00fc')";
  await using one = await createDatabase(15, sql);
  await using other = await createDatabase(18, undefined, "encoding 'LATIN1' locale 'C' template template0");
  await other.query(`${sql}; update t set v = 'è' where i = 2`);
  await using left = await liveSide(one.url);
  await using right = await liveSide(other.url);
  await using snapshot = await snapshotSide(other.url);

  const live = await compareOpen(left, right);
  const stored = await compareOpen(right, snapshot);

  expect(differencesOf(live)).toEqual(["t changed 2 v"]);
  expect(stored.equal).toBe(true);
});

test("looks at differing rows of live sites once more, and does not report those in motion", async () => {
  const sql = "create table t (i int primary key, v text); insert into t select i, 'v' from generate_series(1, 100) i";
  await using one = await createDatabase(15, sql);
  await using other = await createDatabase(18, sql);
  await one.query(
    "update t set v = 'new' where i in (1, 2); delete from t where i = 3; update t set v = 'real' where i = 9",
  );
  await using left = await liveSide(one.url);
  await using right = await liveSide(other.url);
  const reopen = async () => {
    await other.query("update t set v = 'new' where i in (1, 2); delete from t where i = 3");
    return [await liveSide(one.url), await liveSide(other.url)] as const;
  };

  const result = await compareOpen(left, right, { reopen });

  expect(result.tables[0]).toMatchObject({ equal: false, inMotion: 3, changed: 1, onlyLeft: 0, onlyRight: 0 });
  expect(differencesOf(result)).toEqual(["t changed 9 v"]);
});

test("does not call a differing table equal because it was gone at the second look", async () => {
  const sql = "create table t (i int primary key); insert into t values (1)";
  await using one = await createDatabase(15, sql);
  await using other = await createDatabase(15, `${sql}; insert into t values (2)`);
  await using left = await liveSide(one.url);
  await using right = await liveSide(other.url);
  await using empty = await createDatabase(15);

  const result = await compareOpen(left, right, {
    reopen: async () => [await liveSide(empty.url), await liveSide(other.url)],
  });

  expect(differencesOf(result)).toEqual(["t onlyRight 2"]);
});

test("counts rows that differ here and there in large tables, with keys of any kind and without", async () => {
  const rows = "select i::bigint << 12 as i, i % 7 as v, 'row ' || i as t from generate_series(1, 250000) i";
  const sql = `create table number as ${rows}; alter table number add primary key (i); create table text as ${rows}; alter table text add primary key (t);
               create table none as ${rows}; create table many as ${rows}; alter table many add primary key (i); analyze`;
  const change = (table: string) => `update ${table} set v = v + 10 where t like '%77'`;
  await using one = await createDatabase(18, sql);
  await using other = await createDatabase(
    18,
    `${sql}; ${change("number")}; ${change("text")}; ${change("none")}; delete from number where t = 'row 5'; update many set v = v + 1 where t like '%7'`,
  );
  await using left = await liveSide(one.url);
  await using right = await liveSide(other.url);
  await using snapshot = await snapshotSide(other.url);

  for (const side of [right, snapshot]) {
    const result = await compareOpen(left, side, { rows: false });

    const [many, none, number, text] = result.tables;
    expect(number).toMatchObject({ onlyLeft: 1, onlyRight: 0, changed: 2500 });
    expect(text).toMatchObject({ onlyLeft: 0, onlyRight: 0, changed: 2500 });
    expect(none).toMatchObject({ onlyLeft: 2500, onlyRight: 2500, changed: 0 });
    expect([number, text, none].map((table) => table?.atLeast)).toEqual([undefined, undefined, undefined]);
    expect(many).toMatchObject({ onlyLeft: 0, onlyRight: 0, changed: 25_000 });
  }
});

test("gives lower bounds where more rows differ than are listed", async () => {
  const sql =
    "create table t (i int primary key, v int); insert into t select i, i from generate_series(1, 210000) i; analyze t";
  await using one = await createDatabase(18, sql);
  await using other = await createDatabase(18, `${sql}; update t set v = v + 1`);
  await using left = await liveSide(one.url);
  await using right = await liveSide(other.url);

  const result = await compareOpen(left, right, { rows: false });

  const [table] = result.tables;
  expect(table).toMatchObject({ equal: false, atLeast: true, onlyLeft: 0, onlyRight: 0, columns: ["v"] });
  expect(table?.changed).toBeGreaterThan(100_000);
  expect(table?.differences).toBeUndefined();
});

test("refuses to compare what row security or missing rights would filter", async () => {
  await using one = await createDatabase(15, "create table t (i int); alter table t enable row level security");
  await one.query(`create role r_${one.name} login password 'pw'; grant select on t to r_${one.name}`);

  const opening = liveSide(one.urlFor(`r_${one.name}`, "pw"));

  await expect(opening).rejects.toMatchObject({ kind: "database", code: "row-security" });
  await one.query(`revoke all on t from r_${one.name}`);
  await expect(liveSide(one.urlFor(`r_${one.name}`, "pw"))).rejects.toMatchObject({ code: "denied" });
  await one.query(`drop role r_${one.name}`);
});
