import { afterAll, expect, test } from "vitest";
import { ROUNDS, replayHistory, SEED } from "../support/incremental-history.ts";
import { postgresMajors } from "../support/postgres.ts";

/** In how many runs of all histories chunks were carried over. */
let carriedOver = 0;

afterAll(() => {
  if (ROUNDS >= 100) expect(carriedOver).toBeGreaterThan(0);
});

test.concurrent.each(postgresMajors)(
  `every snapshot of a random history restores the rows of its instant (PostgreSQL %i, SEED=${SEED})`,
  { timeout: 60_000 + ROUNDS * 10_000 },
  async (major) => {
    carriedOver += await replayHistory(major, false);
  },
);
