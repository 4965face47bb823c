import { expect, test } from "vitest";
import { openSource } from "../../src/drivers/open-driver.ts";
import type { RowHash } from "../../src/drivers/row-hash.ts";
import { connectionOfUrl } from "../support/connection.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";

const signal = new AbortController().signal;
const HASHES: readonly RowHash[] = [
  { method: "lookup3", seeds: [1n, -1n], salt: "s" },
  { method: "lookup3", seeds: [0x7edcba9876543210n, -0x123456789abcdefn], salt: "s" },
  { method: "sha256", seeds: [1n, 1n], salt: "5a17" },
];

test.each(postgresMajors)("PostgreSQL %i hashes text exactly as rowkeep does, whatever the seeds", async (major) => {
  await using database = await createDatabase(major);
  await using source = await openSource(connectionOfUrl(database.url), {
    parallel: 1,
    choose: () => "rows",
    stallTimeoutMs: 60_000,
    signal,
  });

  const answers: boolean[] = [];
  for (const hash of HASHES) answers.push(await source.fingerprints.agreesOn(hash, { signal }));

  expect(answers).toEqual([true, true, true]);
});
