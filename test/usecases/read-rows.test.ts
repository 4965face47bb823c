import { describe, expect, test } from "vitest";
import { readerWith, type SnapshotReader } from "../../src/snapshot/snapshot-reader.ts";
import { readRows, type ReadRowsOptions } from "../../src/usecases/read-rows.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { snapshotOf } from "../support/restoring.ts";

const signal = new AbortController().signal;

async function textOf(reader: SnapshotReader, options: Partial<ReadRowsOptions> = {}): Promise<string> {
  const pieces: Uint8Array[] = [];
  const rows = readRows({ reader, table: "t", format: "tsv", signal, ...options });
  for await (const { bytes } of rows.pieces) pieces.push(bytes);
  return Buffer.concat(pieces).toString();
}

const linesOf = (text: string) => text.split("\n").slice(0, -1);

const AWKWARD = `create table t (id int primary key, v text, w text);
  insert into t values (1, E'tab\\tnew\\nline', 'x'), (2, null, '\\N'), (3, '', E'back\\\\slash'), (4, 'say "hi", é', E'\\r'), (5, '\\.', ' ')`;

/** Conditions that mean the same to the server, whose texts are under the collation C. */
const CONDITIONS = [
  "i < 1 or n >= 1",
  "i between -2 and 2 and not (t = 'b')",
  "n > 12345678901234567890.1",
  "n in (1.50, -0.00)",
  "n = 'NaN' or n < -5",
  "t like '%\\_%' or t like '_b%'",
  "t >= 'B' and t < 'b'",
  "t is null or c = 'ab'",
  "t not in ('a', 'b') and i is not null",
  "b = true and d > '1999-12-31'",
  "d <= '0001-01-01' or d = 'infinity'",
  "s between '2020-01-01' and '2020-01-01 00:00:00.5'",
  "z < '2020-01-01 00:00:00Z' or z > '9999-12-31 23:59:59'",
  "not (n < 2 or t > 'a')",
  "u = 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
];

describe.each(postgresMajors)("reading rows of a snapshot of PostgreSQL %i", (major) => {
  test("means by a condition what the server means", async () => {
    await using database = await createDatabase(
      major,
      `create table t (id int generated always as identity, i int, n numeric, t text collate "C", c char(5), b boolean, d date, s timestamp, z timestamptz, u uuid);
       insert into t (i, n, t, c, b, d, s, z, u)
       select i, n, t, t, b, d, s, s, u
         from unnest(array[-3, 0, 2, null]) i,
              unnest(array[0, 1.5, -7, 12345678901234567890.2, 'NaN', null]::numeric[]) n,
              unnest(array['a', 'ab', 'B', 'x_y', null]) t,
              unnest(array[true, null]) b,
              (values (date '0044-03-15 BC', timestamp '2020-01-01', null::uuid), ('infinity', '2020-01-01 00:00:00.25', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'),
                      ('2024-02-29', '2019-12-31 23:59:59.999999', null), (null, '12000-01-01', null), ('10000-01-01', '-infinity', null)) x(d, s, u)`,
    );
    await using snapshot = await snapshotOf(database.url);

    const found = await Promise.all(CONDITIONS.map((where) => textOf(snapshot.reader, { where, columns: ["id"] })));

    for (const [index, condition] of CONDITIONS.entries()) {
      const expected = await database.query(`set timezone = 'UTC'; select id from t where ${condition} order by id`);
      expect(expected.length).toBeGreaterThan(0);
      // In the order in which they lie in the table, which is not that of the ids.
      const ids = linesOf(found[index] ?? "").sort((one, other) => Number(one) - Number(other));
      expect(ids, condition).toEqual(expected.map(([id]) => id));
    }
  });

  test("writes rows so that the server reads back what was there", async () => {
    await using database = await createDatabase(major, AWKWARD);
    await using snapshot = await snapshotOf(database.url);

    const tsv = await textOf(snapshot.reader);
    const csv = await textOf(snapshot.reader, { format: "csv" });
    const json = await textOf(snapshot.reader, { format: "json", where: "id <> 3", columns: ["w", "v"] });

    expect(tsv).toBe('1\ttab\\tnew\\nline\tx\n2\t\\N\t\\\\N\n3\t\tback\\\\slash\n4\tsay "hi", é\t\\r\n5\t\\\\.\t \n');
    expect(csv).toBe('id,v,w\n1,"tab\tnew\nline",x\n2,,\\N\n3,"",back\\slash\n4,"say ""hi"", é","\r"\n5,"\\."," "\n');
    expect(linesOf(json).map((line) => JSON.parse(line))).toEqual([
      { w: "x", v: "tab\tnew\nline" },
      { w: "\\N", v: null },
      { w: "\r", v: 'say "hi", é' },
      { w: " ", v: "\\." },
    ]);
  });

  test("gives a partitioned table whole, whatever the order of columns in its partitions", async () => {
    await using database = await createDatabase(
      major,
      `create table p (i int, v text) partition by range (i); create table p1 partition of p for values from (0) to (10);
       create table p2 (v text, i int); alter table p attach partition p2 for values from (10) to (20); insert into p values (1, 'a'), (11, 'b')`,
    );
    await using snapshot = await snapshotOf(database.url);

    expect(linesOf(await textOf(snapshot.reader, { table: "p" }))).toEqual(["1\ta", "11\tb"]);
    expect(linesOf(await textOf(snapshot.reader, { table: "p", where: "i > 5" }))).toEqual(["11\tb"]);
    expect(linesOf(await textOf(snapshot.reader, { table: "p2" }))).toEqual(["b\t11"]);
  });

  test("reads the bytes of no other table", async () => {
    await using database = await createDatabase(
      major,
      `${AWKWARD}; create table large (i int, v text); insert into large select i, md5(i::text) from generate_series(1, 20000) i`,
    );
    await using snapshot = await snapshotOf(database.url);
    const read: number[] = [];
    const { manifest } = snapshot.reader;
    const watched = readerWith(snapshot.reader, {
      manifest,
      chunks: (refs, options) => {
        read.push(...refs.map(({ size }) => size));
        return snapshot.reader.chunks(refs, options);
      },
      [Symbol.asyncDispose]: async () => undefined,
    });

    await textOf(watched, { where: "id = 1" });

    const small = manifest.tables.find(({ name }) => name === "t");
    expect(read.reduce((sum, size) => sum + size, 0)).toBe(small?.storedBytes);
  });
});

test("refuses several tables, an unknown column and a table that is not there", async () => {
  await using database = await createDatabase(18, "create table t (id int); create table t2 (id int)");
  await using snapshot = await snapshotOf(database.url);

  const read = (options: Partial<ReadRowsOptions>) => () =>
    readRows({ reader: snapshot.reader, table: "t", format: "tsv", signal, ...options });

  expect(read({ table: "t*" })).toThrow(expect.objectContaining({ kind: "usage", code: "several-tables" }));
  expect(read({ columns: ["no"] })).toThrow(expect.objectContaining({ kind: "usage", code: "unknown-column" }));
  expect(read({ table: "none" })).toThrow(expect.objectContaining({ kind: "usage", code: "unknown-table" }));
  expect(read({ where: "x = 1" })).toThrow(expect.objectContaining({ kind: "usage", code: "invalid-where" }));
});
