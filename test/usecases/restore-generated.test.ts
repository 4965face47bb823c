import { describe, expect, test } from "vitest";
import { restoreSnapshot } from "../../src/usecases/restore-snapshot.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { inPlaceOptionsFor, snapshotOf } from "../support/restoring.ts";

const TABLES = `create function price(i int) returns numeric immutable language sql as 'select i * 1.19';
  create table t (i int, price numeric(10,2) generated always as (price(i)) stored,
    doc json generated always as (('[' || i || ']')::json) stored, label varchar(40) generated always as ('n' || i) stored);
  insert into t values (1), (2), (null);
  create table parted (i int, price numeric generated always as (price(i)) stored) partition by list (i);
  create table part partition of parted for values in (1); create table part2 partition of parted for values in (2);
  insert into parted values (1), (2), (2)`;

describe.each(postgresMajors)("restoring generated columns of PostgreSQL %i", (major) => {
  test("says nothing of those that come out as they are", async () => {
    await using database = await createDatabase(major, TABLES);
    await using snapshot = await snapshotOf(database.url);

    const { warnings } = await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    expect(warnings).toEqual([]);
  });

  test("names those whose function changed since, in the plan and in the result", async () => {
    await using database = await createDatabase(major, TABLES);
    await using snapshot = await snapshotOf(database.url);
    await database.query(
      "create or replace function price(i int) returns numeric immutable language sql as 'select i * 1.2'",
    );
    const options = inPlaceOptionsFor(database.url, snapshot.reader);

    const planned = await restoreSnapshot({ ...options, planOnly: true });
    const done = await restoreSnapshot(options);

    const expected = [
      expect.stringMatching(/^public\.t\.price is generated, and in 2 of its rows it is not what it would be now/),
      expect.stringMatching(/^public\.part\.price is generated, and in 1 of/),
      expect.stringMatching(/^public\.part2\.price is generated, and in 2 of/),
    ];
    expect(planned.warnings).toEqual(expect.arrayContaining(expected));
    expect(done.warnings).toEqual(planned.warnings);
    expect(done.warnings).toHaveLength(3);
  });

  test("says when it cannot tell whether they come out as they are", async () => {
    await using database = await createDatabase(major, TABLES);
    await using snapshot = await snapshotOf(database.url);
    await database.query(
      "create or replace function price(i int) returns numeric immutable language sql as 'select i / 0'",
    );
    const options = inPlaceOptionsFor(database.url, snapshot.reader, { tables: ["t"], planOnly: true });

    const { warnings } = await restoreSnapshot(options);

    expect(warnings).toEqual([
      expect.stringMatching(/^public\.t\.price is generated, and .* cannot be checked \(22012\)$/),
    ]);
  });
});
