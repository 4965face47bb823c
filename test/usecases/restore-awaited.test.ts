import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { openDestination } from "../../src/destinations/open-destination.ts";
import { restoreSnapshot } from "../../src/usecases/restore-snapshot.ts";
import { takeSafetySnapshot } from "../../src/usecases/safety-snapshot.ts";
import { backUpOptions } from "../support/back-up-options.ts";
import { beginOnce, openSession, SOMEBODY_WAITS } from "../support/other-session.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { inPlaceOptionsFor, snapshotOf } from "../support/restoring.ts";

const signal = new AbortController().signal;

describe.each(postgresMajors)("a restore that others wait for (PostgreSQL %i)", (major) => {
  test.each([
    ["the table", "alter table t add c int", "lock-timeout", "2"],
    [
      "it and what the snapshot reads",
      "begin; alter view v alter a set default 1; update t set a = 3",
      "schema-locked",
      "3",
    ],
  ])(
    "gives way before its safety snapshot, for a migration that waits for %s",
    async (_, migration, code, left) => {
      await using database = await createDatabase(
        major,
        "create table t (a int); insert into t values (1); create view v as select 1 as a",
      );
      await using snapshot = await snapshotOf(database.url);
      await database.query("update t set a = 2");
      await using other = await openSession(database.url);
      const { begin, ended } = beginOnce(database.url, other, migration, SOMEBODY_WAITS);
      const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
      const destination = await openDestination({ type: "local", path: join(folder, "backups") }, { signal });
      const common = backUpOptions(database.url, { folder, destinations: [destination] });

      const restored = restoreSnapshot(
        inPlaceOptionsFor(database.url, snapshot.reader, {
          takeSafetySnapshot: (request) => {
            begin();
            return takeSafetySnapshot({ ...common, restoredSnapshot: "x", largeObjects: false }, request);
          },
        }),
      );

      await expect(restored).rejects.toMatchObject({
        kind: "database",
        code,
        hint: expect.stringMatching(/[Rr]un it again when no schema migration/),
      });
      await ended();
      await other.query("commit");
      expect(await database.query("select a from t")).toEqual([[left]]);
      await rm(folder, { recursive: true, force: true });
    },
    40_000,
  );
});
