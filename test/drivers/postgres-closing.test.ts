import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
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

test("nobody waits for the sessions of a source that was left, not even the end of the process, and they end", async () => {
  await using database = await createDatabase(18, "create table t (id int)");
  const before = keptAlive();
  const signal = new AbortController().signal;
  const options = { parallel: 1, choose: () => "rows" as const, stallTimeoutMs: 60_000, signal };
  const source = await openSource(connectionOfUrl(database.url), options);
  expect(keptAlive()).toBeGreaterThan(before);

  source.leave();

  // What was opened beforehand is left a few promises later.
  await nextTurn();
  expect(keptAlive()).toBe(before);
  const disposed = source[Symbol.asyncDispose]().then(() => "at once");
  expect(await Promise.race([disposed, nextTurn("later")])).toBe("at once");
  await vi.waitFor(async () => expect(await database.query(OURS)).toEqual([]), 2000);
});

/** Connections for which this process would stay. */
function keptAlive(): number {
  return process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap").length;
}
