import { expect, test } from "vitest";
import { asBeforeRestart, contentOf, openChain } from "../support/increments.ts";
import { postgresMajors } from "../support/postgres.ts";
import { startPostgres } from "../support/postgres-server.ts";
import { RandomHistory, randomFrom } from "../support/random-history.ts";
import { openTruth } from "../support/truth-reader.ts";

/** Of each; more of them by `npm run soak`. */
const ROUNDS = Math.ceil(Number(process.env["ROUNDS"] ?? 128) / 8);
// The same in CI: what a random one finds must not look like the fault of a change.
const SEED = Number(process.env["SEED"] ?? (process.env["CI"] ? 1 : Date.now() % 1_000_000_000));

test.concurrent.each(postgresMajors)(
  `a random history that is compared by hashes and by headers in turns restores (PostgreSQL %i, SEED=${SEED})`,
  { timeout: 60_000 + ROUNDS * 10_000 },
  async (major) => {
    await using server = await startPostgres(major, ["-c", "max_prepared_transactions=8"]);
    await using chain = await openChain();
    await using history = await RandomHistory.start(server.url, randomFrom(SEED + major));
    await using truth = await openTruth(server.url);
    const seen = new Set<string>();
    await chain.next(server.url);
    for (let round = 1; round <= ROUNDS; round++) {
      await history.act(1 + ((round * 7) % 12));
      if (round % 3 === 0) await history.settle();
      // As after a restart: nothing that headers tell is believed, and the server hashes its rows.
      const isRestarted = round % 3 !== 2 && chain.latest?.trust !== undefined;

      const manifest = await chain.next(
        server.url,
        isRestarted ? { base: asBeforeRestart(chain), serverHash: "always" } : {},
      );

      expect(await contentOf(chain.readerOf(manifest)), `round ${round}`).toEqual(await truth.read());
      for (const { method, reason = "" } of manifest.tables) {
        seen.add(reason.endsWith("its rows were compared by hashes") ? `${method} by hash` : method);
      }
    }
    expect([...seen]).toEqual(
      expect.arrayContaining(["delta", "delta by hash", "full", "unchanged", "unchanged by hash"]),
    );
  },
);
