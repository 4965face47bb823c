import { expect, test } from "vitest";
import { ROUNDS, replayHistory, SEED } from "../support/incremental-history.ts";
import { postgresMajors } from "../support/postgres.ts";

test.concurrent.each(postgresMajors)(
  `every snapshot of a random history restores although the secret key is elsewhere (PostgreSQL %i, SEED=${SEED})`,
  { timeout: 60_000 + ROUNDS * 10_000 },
  async (major) => {
    // What nobody here can read, nobody carries over.
    expect(await replayHistory(major, true)).toBe(0);
  },
);
