import { expect, test } from "vitest";
import { createDatabase, postgresMajors } from "./postgres.ts";

test.each(postgresMajors)("PostgreSQL %i answers", async (major) => {
  await using database = await createDatabase(major);
  expect((await database.query("show server_version_num"))[0]?.[0]?.slice(0, 2)).toBe(String(major));
});
