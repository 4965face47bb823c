import { expect, test } from "vitest";
import { hashTid } from "../../src/drivers/postgres/postgres-tid-hash.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";

const PAGES = [0, 1, 255, 256, 65_535, 65_536, 131_077, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 2];
const OFFSETS = [1, 2, 255, 256, 291, 65_535];

test.each(postgresMajors)("places are hashed as PostgreSQL %i does", async (major) => {
  await using database = await createDatabase(major);
  const places = PAGES.flatMap((page) => OFFSETS.map((offset) => ({ page, offset })));

  const rows = await database.query(
    `select hashtid(tid)::text from unnest('{${places.map(({ page, offset }) => `"(${page},${offset})"`).join(",")}}'::tid[]) tid`,
  );

  expect(places.map(({ page, offset }) => [String(hashTid(page, offset))])).toEqual(rows);
});
