import { setTimeout as sleep } from "node:timers/promises";
import { expect, test, vi } from "vitest";
import { openSource } from "../../src/drivers/open-driver.ts";
import { connectionOfUrl } from "../support/connection.ts";
import { startDelayingProxy } from "../support/delaying-proxy.ts";
import { createDatabase } from "../support/postgres.ts";

const DELAY_MS = 15;
const OURS = `select pid from pg_stat_activity where datname = current_database() and application_name = 'rowkeep backup'`;

test("a source that is closed while a connection is being opened leaves none behind, and opens no further one", async () => {
  await using database = await createDatabase(18, "create table t (id int); create table u (id int)");
  const direct = connectionOfUrl(database.url);
  await using proxy = await startDelayingProxy(direct.port, DELAY_MS);
  const source = await openSource(
    { ...direct, port: proxy.port },
    { parallel: 1, choose: () => "rows", stallTimeoutMs: 60_000, track: true, signal: new AbortController().signal },
  );
  const asked = Promise.allSettled(source.tables.map(async (table) => source.tracker?.pagesOf(table)));
  // It shares the snapshot, and is not yet ready.
  await sleep(5 * DELAY_MS);

  await source[Symbol.asyncDispose]();

  expect((await asked).map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  await vi.waitFor(async () => expect(await database.query(OURS)).toEqual([]), 2000);
});
