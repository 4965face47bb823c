import { describe, expect, test } from "vitest";
import { restoreSnapshot } from "../../src/usecases/restore-snapshot.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { inPlaceOptionsFor, snapshotOf } from "../support/restoring.ts";

describe.each(postgresMajors)("restoring tables that were attached since (PostgreSQL %i)", (major) => {
  const YEARS = `create table years (y int, v text) partition by range (y); create table year_1 partition of years for values from (1) to (2);
    insert into years values (1, 'a'); create table old (y int, v text); insert into old values (0, 'z');
    create table deep (y int, v text) partition by range (y); create table deep_1 partition of deep for values from (-9) to (-5);
    insert into deep values (-7, 'd')`;
  const ATTACH = `alter table years attach partition old for values from (0) to (1);
    alter table years attach partition deep for values from (-9) to (0)`;
  const ROWS = "select tableoid::regclass, * from years order by y";

  test("is refused together with the table above them, which would delete their rows", async () => {
    await using database = await createDatabase(major, YEARS);
    await using snapshot = await snapshotOf(database.url);
    await database.query(ATTACH);

    const restored = restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    await expect(restored).rejects.toMatchObject({
      kind: "refused",
      code: "drift",
      message: expect.stringMatching(
        /public\.deep is a partition of public\.years there, .*\n {2}public\.old is a partition of public\.years there/,
      ),
    });
    expect(await database.query(ROWS)).toEqual([
      ["deep_1", "-7", "d"],
      ["old", "0", "z"],
      ["year_1", "1", "a"],
    ]);
  });

  test("goes one by one", async () => {
    await using database = await createDatabase(major, YEARS);
    await using snapshot = await snapshotOf(database.url);
    await database.query(`${ATTACH}; update years set v = 'damaged'`);

    for (const table of ["years", "old", "deep"]) {
      await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader, { tables: [table] }));
    }

    expect(await database.query(ROWS)).toEqual([
      ["deep_1", "-7", "d"],
      ["old", "0", "z"],
      ["year_1", "1", "a"],
    ]);
  });
});
