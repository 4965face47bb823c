import { readFile } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import { expect, test } from "vitest";
import { crash } from "../support/crash-server.ts";
import { contentOf, openChain, truthOf } from "../support/increments.ts";
import { startPostgres } from "../support/postgres-server.ts";
import { openTracked } from "../support/tracked-source.ts";

async function query(url: string, sql: string): Promise<(string | null)[][]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5000, query_timeout: 20_000 });
  client.on("error", () => undefined);
  await client.connect();
  try {
    const result = await client.query({ text: sql, rowMode: "array" });
    return (Array.isArray(result) ? [] : result.rows) as (string | null)[][];
  } finally {
    await client.end();
  }
}

test("an incremental after a crash of the server, whose last transactions are lost, is right", {
  timeout: 120_000,
}, async () => {
  await using server = await startPostgres(18, ["-c", "synchronous_commit=off", "-c", "wal_writer_delay=1s"]);
  await using chain = await openChain();
  await query(
    server.url,
    "create table t (id int primary key, v text); insert into t select i, 'v' from generate_series(1, 3000) i",
  );
  await query(server.url, "update t set v = 'before' where id % 10 = 0; delete from t where id % 10 = 1");
  await query(server.url, "checkpoint");
  await chain.next(server.url);
  for (let round = 1; round <= 3; round++) {
    await query(server.url, `update t set v = 'lost ${round}' where id % 7 = ${round}`);
    await query(server.url, `delete from t where id % 11 = ${round}`);
    if (round === 2) await chain.next(server.url);
    await crash(server.url);
    await query(server.url, `update t set v = 'after ${round}' where id % 13 = ${round}`);

    const manifest = await chain.next(server.url);

    // It was compared by its headers.
    expect(manifest.tables[0]?.reason ?? "").toMatch(/^$|^most of it changed/);
    expect(await contentOf(chain.readerOf(manifest)), `round ${round}`).toEqual(await truthOf(server.url));
  }
});

test("what definitions saw behind the snapshot is not lost by a crash", { timeout: 120_000 }, async () => {
  await using server = await startPostgres(18, ["-c", "synchronous_commit=off", "-c", "wal_writer_delay=1s"]);
  await query(server.url, "create function f() returns text language sql as $$select 'early'$$; checkpoint");
  const source = await openTracked(server.url);
  expect(await source.tracker?.isDurable()).toBe(true);
  await query(server.url, "create or replace function f() returns text language sql as $$select 'late'$$");

  const { definitions } = await source.describe({ signal: new AbortController().signal });
  const isDurable = await source.tracker?.isDurable();
  await source[Symbol.asyncDispose]();
  await crash(server.url);

  expect(definitions.map(({ sql }) => sql).join("\n")).toContain("late");
  expect(isDurable).toBe(true);
  expect(await query(server.url, "select f()")).toEqual([["late"]]);
});

test("a server that hangs does not hang those who started it", async () => {
  const server = await startPostgres(18, [], 200);
  const [pid] = (await readFile(join(server.folder, "postmaster.pid"), "utf8")).split("\n");
  process.kill(Number(pid), "SIGSTOP");

  await server[Symbol.asyncDispose]();

  expect(() => process.kill(Number(pid), 0)).toThrow("ESRCH");
});
