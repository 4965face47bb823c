import { describe, expect, test } from "vitest";
import type { SnapshotReader } from "../../src/snapshot/snapshot-reader.ts";
import type { CompareResult } from "../../src/usecases/compare-sites.ts";
import { type DiffOptions, diffSnapshots } from "../../src/usecases/diff-snapshots.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { snapshotOf } from "../support/restoring.ts";
import { differencesOf } from "./compare-setup.ts";

const signal = new AbortController().signal;

interface Watched {
  readonly reader: SnapshotReader;
  /** Bytes that were asked for. */
  readonly read: () => number;
}

function watch({ reader }: { readonly reader: SnapshotReader }): Watched {
  let bytes = 0;
  const chunks: SnapshotReader["chunks"] = (refs, options) => {
    for (const { size } of refs) bytes += size;
    return reader.chunks(refs, options);
  };
  return {
    reader: Object.assign(Object.create(reader) as SnapshotReader, { chunks, manifest: reader.manifest }),
    read: () => bytes,
  };
}

function diff(left: Watched, right: Watched, options: Partial<DiffOptions> = {}): Promise<CompareResult> {
  const report = () => undefined;
  return diffSnapshots({ left: left.reader, right: right.reader, rows: true, parallel: 2, signal, report, ...options });
}

describe.each(postgresMajors)("the difference of two snapshots of PostgreSQL %i", (major) => {
  test("reads nothing when every table is stored alike", async () => {
    await using database = await createDatabase(
      major,
      `create table t (id int primary key, v text); insert into t select i, 'v' || i from generate_series(1, 1000) i;
       create table nokey (v text); insert into nokey values ('a'), ('a'); select lo_from_bytea(0, 'x')`,
    );
    await using one = await snapshotOf(database.url);
    await using other = await snapshotOf(database.url);
    const [left, right] = [watch(one), watch(other)];

    const result = await diff(left, right);

    expect([left.read(), right.read()]).toEqual([0, 0]);
    expect(result).toMatchObject({
      equal: true,
      tables: [
        { name: "nokey", equal: true, left: { rows: 2 }, right: { rows: 2 } },
        { name: "t", equal: true, left: { rows: 1000 }, right: { rows: 1000 } },
      ],
    });
  });

  test("reads only tables that are stored differently and names rows and columns", async () => {
    await using database = await createDatabase(
      major,
      `create table t (id int primary key, v text, w text); insert into t select i, 'v' || i, 'w' from generate_series(1, 1000) i;
       create table large (i int); insert into large select i from generate_series(1, 30000) i; create table gone (i int); insert into gone values (1)`,
    );
    await using one = await snapshotOf(database.url);
    await database.query(
      "update t set v = 'new' where id = 7; delete from t where id = 8; insert into t values (2000, 'x', null); drop table gone",
    );
    await using other = await snapshotOf(database.url);
    const [left, right] = [watch(one), watch(other)];

    const result = await diff(left, right);

    expect(differencesOf(result)).toEqual(["t changed 7 v", "t onlyLeft 8", "t onlyRight 2000"]);
    expect(
      result.tables.map(({ name, equal, left: here, right: there }) => [name, equal, here.rows, there.rows]),
    ).toEqual([
      ["gone", false, 1, 0],
      ["large", true, 30_000, 30_000],
      ["t", false, 1000, 1000],
    ]);
    const large = one.reader.manifest.tables.find(({ name }) => name === "large");
    expect(left.read()).toBeLessThan(large?.storedBytes ?? 0);
  });

  test("finds rows equal that only lie elsewhere", async () => {
    await using database = await createDatabase(
      major,
      "create table t (id int primary key, v text); insert into t select i, 'v' || i from generate_series(1, 1000) i",
    );
    await using one = await snapshotOf(database.url);
    await database.query("update t set v = v where id % 7 = 0");
    await using other = await snapshotOf(database.url);

    const result = await diff(watch(one), watch(other));

    expect(result).toMatchObject({
      equal: true,
      tables: [{ equal: true, left: { rows: 1000 }, right: { rows: 1000 } }],
    });
  });

  test("counts the partitions that it did not read", async () => {
    await using database = await createDatabase(
      major,
      `create table p (i int primary key, v text) partition by range (i);
       create table p1 partition of p for values from (0) to (10); create table p2 partition of p for values from (10) to (20);
       insert into p values (1, 'a'), (2, 'b'), (11, 'c')`,
    );
    await using one = await snapshotOf(database.url);
    await database.query("insert into p values (12, 'd')");
    await using other = await snapshotOf(database.url);

    const whole = await diff(watch(one), watch(other));
    const part = await diff(watch(one), watch(other), { tables: ["p1"] });

    expect(whole.tables).toMatchObject([
      { name: "p", equal: false, left: { rows: 3 }, right: { rows: 4 }, onlyRight: 1 },
    ]);
    expect(part.tables).toMatchObject([{ name: "p1", equal: true, left: { rows: 2 }, right: { rows: 2 } }]);
  });

  test("tells a column that was renamed although the bytes are the same", async () => {
    await using database = await createDatabase(
      major,
      "create table t (id int primary key, v text); insert into t values (1, 'a')",
    );
    await using one = await snapshotOf(database.url);
    await database.query("alter table t rename v to w");
    await using other = await snapshotOf(database.url);

    const result = await diff(watch(one), watch(other));

    expect(result.equal).toBe(false);
    expect(result.tables[0]?.schemaDifferences?.length).toBeGreaterThan(0);
  });
});
