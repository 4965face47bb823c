import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { openPostgresClient, type PostgresClient } from "../../src/drivers/postgres/postgres-client.ts";
import { connectionOfUrl } from "../support/connection.ts";
import { createDatabase, type TestDatabase } from "../support/postgres.ts";
import { type StallingProxy, startStallingProxy } from "../support/stalling-proxy.ts";

let controller: AbortController;
let database: TestDatabase;
let client: PostgresClient;
beforeEach(async () => {
  controller = new AbortController();
  database = await createDatabase(18);
  client = await openPostgresClient(connectionOfUrl(database.url), {
    applicationName: "test",
    stallTimeoutMs: 60_000,
    signal: controller.signal,
  });
});
afterEach(async () => {
  await client[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

test("statements that are asked for at once run in turn, whatever becomes of one, and nobody is warned", async () => {
  const warnings: Error[] = [];
  const onWarning = (warning: Error) => warnings.push(warning);
  process.on("warning", onWarning);

  const results = await Promise.allSettled([
    client.query("select 1"),
    client.query("select 1 / 0"),
    client.query("select $1::int", [3]),
    client.query("select 4"),
  ]);
  // A warning is told in a later turn.
  await client.query("select 5");
  process.off("warning", onWarning);

  expect(results).toMatchObject([
    { status: "fulfilled", value: [["1"]] },
    { status: "rejected", reason: { kind: "database" } },
    { status: "fulfilled", value: [["3"]] },
    { status: "fulfilled", value: [["4"]] },
  ]);
  expect(warnings).toEqual([]);
});

test("statements that wait for their turn end with the reason of an abort", async () => {
  const reason = new Error("enough");
  const results = Promise.allSettled([
    client.query("select pg_sleep(60)"),
    client.query("select 2"),
    client.query("select 3"),
  ]);
  controller.abort(reason);

  expect((await results).map((result) => (result as PromiseRejectedResult).reason)).toEqual([reason, reason, reason]);
});

test("a statement whose connection is ended says so, and what to do", async () => {
  const [[pid = ""] = []] = await client.query("select pg_backend_pid()");

  const failure = client.query("select pg_sleep(30)").catch((error: unknown) => error);
  await database.query(`select pg_terminate_backend(${pid})`);

  expect(await failure).toMatchObject({ kind: "database", hint: expect.stringContaining("then run it again") });
  await expect(client.query("select 1")).rejects.toMatchObject({ code: "connection-lost", hint: expect.any(String) });
});

describe("a statement that nobody answers", () => {
  let proxy: StallingProxy;
  beforeEach(async () => {
    proxy = await startStallingProxy(Number(new URL(database.url).port));
  });
  afterEach(async () => {
    await proxy[Symbol.asyncDispose]();
  });

  async function openThroughProxy(stallTimeoutMs: number, user?: string): Promise<PostgresClient> {
    const url = new URL(user ? database.urlFor(user, "pw") : database.url);
    url.port = String(proxy.port);
    const { signal } = controller;
    return openPostgresClient(connectionOfUrl(url.href), { applicationName: "test", stallTimeoutMs, signal });
  }

  test("is given up when a new connection gets no answer either", async () => {
    await using stalled = await openThroughProxy(200);
    proxy.stall();

    await expect(stalled.query("select 1")).rejects.toMatchObject({
      kind: "database",
      code: "stalled",
      message: expect.stringContaining("none to a new connection"),
      hint: expect.any(String),
    });
    await expect(stalled.query("select 1")).rejects.toMatchObject({ code: "stalled" });
  });

  test("may take as long as it needs while the server answers others", async () => {
    await using slow = await openThroughProxy(200);

    expect(await slow.query("select 'done' from pg_sleep(1.5)")).toEqual([["done"]]);

    expect(proxy.accepted()).toBeGreaterThan(1);
  });

  test("may take as long as it needs while the server refuses others", async () => {
    await database.query("create role one_at_a_time login password 'pw' connection limit 1");
    try {
      await using slow = await openThroughProxy(200, "one_at_a_time");

      expect(await slow.query("select 'done' from pg_sleep(1.5)")).toEqual([["done"]]);

      expect(proxy.accepted()).toBeGreaterThan(1);
    } finally {
      await database.query("drop role one_at_a_time");
    }
  });

  test("is let go by an abort while a new connection is tried, and nothing is left open", async () => {
    await using stalled = await openThroughProxy(200);
    proxy.stall();
    const failure = stalled.query("select 1").catch((error: unknown) => error);
    while (proxy.accepted() < 2) await sleep(10);
    const reason = new Error("enough");
    controller.abort(reason);

    expect(await failure).toBe(reason);
  });
});
