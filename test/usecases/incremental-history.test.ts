import { expect, test } from "vitest";
import { asBeforeRestart, contentOf, openChain, truthOf } from "../support/increments.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { HISTORY_SCHEMA, RandomHistory } from "../support/random-history.ts";

/** More of them by `ROUNDS=10000 npm run soak`. */
const ROUNDS = Number(process.env["ROUNDS"] ?? 14);
const SEED = Number(process.env["SEED"] ?? Date.now() % 1_000_000_000);

test.each(postgresMajors)(
  `every incremental of a random history restores the rows of its instant (PostgreSQL %i, SEED=${SEED})`,
  { timeout: 60_000 + ROUNDS * 10_000 },
  async (major) => {
    await using database = await createDatabase(major, HISTORY_SCHEMA);
    await using chain = await openChain();
    await using history = await RandomHistory.start(database, SEED + major);
    const methods: Record<string, number> = {};
    await chain.next(database.url);
    for (let round = 1; round <= ROUNDS; round++) {
      await history.act(1 + ((round * 7) % 12));
      // Open definitions would make the backup wait for their locks.
      if (round % 3 === 0) await history.settle();

      // Every third time as after a restart: nothing that headers tell is believed, and the server hashes its rows.
      const isRestarted = round % 3 === 1 && chain.latest?.trust !== undefined;
      const manifest = await chain.next(
        database.url,
        isRestarted ? { base: asBeforeRestart(chain), serverHash: "always" } : {},
      );

      const restored = await contentOf(chain.readerOf(manifest));
      expect(restored, `round ${round}`).toEqual(await truthOf(database.url));
      for (const { method, reason = "" } of manifest.tables) {
        const told = reason.endsWith("its rows were compared by hashes") ? `${method} by hash` : method;
        methods[told] = (methods[told] ?? 0) + 1;
      }
    }
    expect(Object.keys(methods).sort()).toEqual(
      expect.arrayContaining(["delta", "delta by hash", "full", "unchanged"]),
    );
  },
);
