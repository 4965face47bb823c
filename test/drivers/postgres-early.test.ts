import { expect, test, vi } from "vitest";
import type { ConnectOptions } from "../../src/drivers/driver.ts";
import { openEarlyConnections, openSource } from "../../src/drivers/open-driver.ts";
import { PostgresEarly } from "../../src/drivers/postgres/postgres-early.ts";
import { connectionOfUrl } from "../support/connection.ts";
import { createDatabase } from "../support/postgres.ts";

const OURS = `select pid from pg_stat_activity where datname = current_database() and application_name = 'rowkeep backup' order by pid`;
const END_OURS = `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'rowkeep backup'`;

function options(): ConnectOptions {
  return { parallel: 2, stallTimeoutMs: 60_000, signal: new AbortController().signal };
}

test("a source takes the connections that are open, and no more are opened", async () => {
  await using database = await createDatabase(18, "create table t (id int)");
  const connection = connectionOfUrl(database.url);
  await using early = await openEarlyConnections(connection, options());
  await vi.waitFor(async () => expect(await database.query(OURS)).toHaveLength(3), 5000);
  const open = await database.query(OURS);

  await using source = await openSource(connection, { ...options(), choose: () => "rows", early });
  const [table] = source.tables;
  if (table) for await (const _ of source.rows(table, {} as never, { batchBytes: 1000, signal: options().signal }));

  expect(await database.query(OURS)).toEqual(open);
});

test("a second source opens its own, as many at once", async () => {
  await using database = await createDatabase(18, "create table t (id int)");
  const connection = connectionOfUrl(database.url);
  await using early = await openEarlyConnections(connection, options());
  {
    await using _first = await openSource(connection, { ...options(), choose: () => "rows", early });
  }

  await using source = await openSource(connection, { ...options(), choose: () => "rows", early });

  await vi.waitFor(async () => expect(await database.query(OURS)).toHaveLength(3), 5000);
  expect(source.tables).toHaveLength(1);
});

test("those that the server ended meanwhile are opened again", async () => {
  await using database = await createDatabase(18, "create table t (id int)");
  const connection = connectionOfUrl(database.url);
  await using early = new PostgresEarly(connection, options());
  await vi.waitFor(async () => expect(await database.query(OURS)).toHaveLength(3), 5000);
  await database.query(END_OURS);
  await vi.waitFor(async () => expect(await database.query(OURS)).toEqual([]), 5000);

  await using source = await openSource(connection, { ...options(), choose: () => "rows", early });

  expect(source.tables).toHaveLength(1);
});

test("a login that is refused is told when it is needed", async () => {
  await using database = await createDatabase(18);
  const connection = { ...connectionOfUrl(database.url), password: "not it" };
  const early = new PostgresEarly(connection, options());

  const leading = early.lead();

  await expect(leading).rejects.toMatchObject({ kind: "database", code: "wrong-password" });
  expect(await early.take()).toBeUndefined();
});

test("closing them leaves none behind, whether they are open yet or not", async () => {
  await using database = await createDatabase(18);
  const early = await openEarlyConnections(connectionOfUrl(database.url), options());

  await early[Symbol.asyncDispose]();

  await vi.waitFor(async () => expect(await database.query(OURS)).toEqual([]), 2000);
});
