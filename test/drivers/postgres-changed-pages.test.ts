import { describe, expect, test } from "vitest";
import type { TrustToken } from "../../src/drivers/change-tracker.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { openTracked, tokenOf } from "../support/tracked-source.ts";
import { untilAlone } from "../support/until-alone.ts";

const PAGES = 40;

/** Ten rows a page, 40 pages: two groups of pages and a half. */
const TABLE = `create table t (id int, v text); alter table t alter v set storage plain;
  insert into t select i, repeat('x', 760) from generate_series(1, ${PAGES * 10}) i`;

/** The changed pages with the rows of then that each of them kept; checks the sums that were told instead of them. */
async function changesSince(url: string, since: TrustToken) {
  await using source = await openTracked(url);
  const table = source.tables.find(({ name }) => name === "t");
  if (!table || !source.tracker) throw new Error("no table is tracked");
  const counts = async () => new Int32Array(PAGES + 8).map((_, page) => (page < PAGES ? 10 : 0));
  const range = { lo: 0, hi: PAGES + 8, since };
  const seen = await source.tracker.rangeRows(table, range);
  if (!seen) throw new Error("the server does not count");
  const changed = await source.tracker.changedPages(table, { ...range, counts, seen });
  expect(await source.tracker.changedPages(table, { ...range, counts, seen: undefined })).toEqual(changed);
  const pages = await source.tracker.listPages(
    table,
    changed.map(({ page }) => page),
  );
  const { hashPlace } = source.tracker;
  return changed.map((found) => {
    const { page, added } = found;
    const offsets = Array.from(pages.find((one) => one.page === page)?.offsets ?? []);
    const hash = offsets.reduce((sum, offset) => sum ^ hashPlace(page, offset), 0);
    expect(found).toEqual(
      "rows" in found ? { page, added, rows: offsets.length, hash } : { page, added, offsets: expect.anything() },
    );
    if ("offsets" in found) expect(Array.from(found.offsets)).toEqual(offsets);
    return { page, kept: offsets.filter((offset) => !added.includes(offset)), added };
  });
}

/** The line pointers 1 to 10 but these. */
function all(...but: readonly number[]): readonly number[] {
  return [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].filter((offset) => !but.includes(offset));
}

describe.each(postgresMajors)("the changed pages of PostgreSQL %i", (major) => {
  test("are none while nothing changed, or what changed was taken back", async () => {
    await using database = await createDatabase(major, TABLE);
    await untilAlone(database);
    const since = await tokenOf(database.url);
    await database.query("begin; delete from t where id < 100; insert into t values (0, repeat('x', 760)); rollback");

    const changed = await changesSince(database.url, since);

    expect(changed).toEqual([]);
  });

  test("are those that only lost rows, the last of a group and all of a page among them", async () => {
    await using database = await createDatabase(major, TABLE);
    await untilAlone(database);
    const since = await tokenOf(database.url);
    await database.query("delete from t where id in (31, 160, 400) or id between 201 and 210");

    const changed = await changesSince(database.url, since);

    expect(changed).toEqual([
      { page: 3, kept: all(1), added: [] },
      { page: 15, kept: all(10), added: [] },
      { page: 20, kept: [], added: [] },
      { page: 39, kept: all(10), added: [] },
    ]);
  });

  test("are those that lost a row while another of the same group won one, and those behind the last of then", async () => {
    await using database = await createDatabase(major, TABLE);
    await untilAlone(database);
    await database.query("delete from t where id = 55");
    await untilAlone(database);
    await database.query("vacuum t");
    const since = await tokenOf(database.url);
    await database.query("insert into t values (55, repeat('y', 760)), (401, repeat('y', 760))");
    await database.query("delete from t where id = 41");

    const changed = await changesSince(database.url, since);

    expect(changed).toEqual([
      { page: 4, kept: all(1), added: [] },
      { page: 5, kept: all(5), added: [5] },
      { page: 40, kept: [], added: [1] },
    ]);
  });

  test("are the same where a row took the place of another", async () => {
    await using database = await createDatabase(major, TABLE);
    await untilAlone(database);
    const since = await tokenOf(database.url);
    await database.query("delete from t where id in (3, 7)");
    await untilAlone(database);
    await database.query("vacuum t");
    await database.query("insert into t values (3, repeat('y', 760)), (7, repeat('y', 760))");

    const changed = await changesSince(database.url, since);

    expect(changed).toEqual([{ page: 0, kept: all(3, 7), added: [3, 7] }]);
  });

  test("are all of them where each has another row", async () => {
    await using database = await createDatabase(major, TABLE);
    await untilAlone(database);
    const since = await tokenOf(database.url);
    await database.query("delete from t where id % 10 = 4");
    await untilAlone(database);
    await database.query("vacuum t");
    await database.query("insert into t select i, repeat('y', 760) from generate_series(1, 30) i");
    await database.query("delete from t where id = 99");

    const changed = await changesSince(database.url, since);

    expect(changed.map(({ page }) => page)).toEqual(Array.from({ length: PAGES }, (_, page) => page));
    const places = await database.query("select t.ctid::text from t where v like 'y%' order by t.ctid");
    expect(changed.flatMap(({ page, added }) => added.map((offset) => [`(${page},${offset})`]))).toEqual(places);
    expect(changed.find(({ page }) => page === 9)?.kept).toEqual(all(4, 9));
  });
});
