import { connect, createServer, type Socket } from "node:net";
import { expect, test } from "vitest";
import { restoreSnapshot } from "../../src/usecases/restore-snapshot.ts";
import { connectionOfUrl } from "../support/connection.ts";
import { createDatabase } from "../support/postgres.ts";
import { inPlaceOptionsFor, snapshotOf } from "../support/restoring.ts";

interface CommitProxy extends AsyncDisposable {
  readonly port: number;
}

/** Passes everything on until a COMMIT goes by: that reaches the server, and then the client hears nothing more. */
async function startCommitProxy(
  targetPort: number,
  { staysUp, onCommit }: { staysUp: boolean; onCommit?: () => void },
): Promise<CommitProxy> {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(targetPort, "127.0.0.1");
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
    }
    upstream.pipe(client);
    client.on("data", (bytes) => {
      upstream.write(bytes);
      if (!bytes.includes("commit\0")) return;
      upstream.unpipe(client);
      upstream.resume();
      if (!staysUp) server.close();
      onCommit?.();
      setTimeout(() => client.destroy(), 200);
    });
    client.on("close", () => upstream.end());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  return {
    port: typeof address === "object" && address ? address.port : 0,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

async function prepare() {
  const database = await createDatabase(18, "create table t (i int); insert into t values (1)");
  const snapshot = await snapshotOf(database.url);
  await database.query("update t set i = 2");
  return { database, snapshot };
}

test("a restore whose answer to COMMIT is lost asks what became of it", async () => {
  const { database, snapshot } = await prepare();
  await using _database = database;
  await using _snapshot = snapshot;
  await database.query("create materialized view v as select i from t");
  const target = connectionOfUrl(database.url);
  await using proxy = await startCommitProxy(target.port, { staysUp: true });

  const result = await restoreSnapshot(
    inPlaceOptionsFor(database.url, snapshot.reader, { target: { ...target, port: proxy.port } }),
  );

  expect(result.tables).toMatchObject([{ inserted: 1 }]);
  expect(result.warnings.join()).toMatch(/materialized views that read the restored tables, .* were not refreshed/);
  expect(await database.query("select i from t")).toEqual([["1"]]);
});

test("a restore that cannot ask what became of its COMMIT says that it does not know", async () => {
  const { database, snapshot } = await prepare();
  await using _database = database;
  await using _snapshot = snapshot;
  const target = connectionOfUrl(database.url);
  await using proxy = await startCommitProxy(target.port, { staysUp: false });

  const restored = restoreSnapshot(
    inPlaceOptionsFor(database.url, snapshot.reader, { target: { ...target, port: proxy.port } }),
  );

  await expect(restored).rejects.toMatchObject({ code: "outcome-unknown" });
  expect(await database.query("select i from t")).toEqual([["1"]]);
});

test("a restore that is stopped during COMMIT is done when the server did it", async () => {
  const { database, snapshot } = await prepare();
  await using _database = database;
  await using _snapshot = snapshot;
  const target = connectionOfUrl(database.url);
  const stop = new AbortController();
  await using proxy = await startCommitProxy(target.port, { staysUp: true, onCommit: () => stop.abort() });

  const result = await restoreSnapshot(
    inPlaceOptionsFor(database.url, snapshot.reader, {
      target: { ...target, port: proxy.port },
      signal: stop.signal,
    }),
  );

  expect(result.warnings.join()).toMatch(/public.t could not be analysed: it was stopped/);
  expect(await database.query("select i from t")).toEqual([["1"]]);
});

test("a restore that is stopped after COMMIT says what it has done, and what not", async () => {
  const { database, snapshot } = await prepare();
  await using _database = database;
  await using _snapshot = snapshot;
  await database.query("create materialized view v as select i, pg_sleep(1)::text from t");
  const stop = new AbortController();

  const restored = restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader, { signal: stop.signal }));
  while ((await database.query("select i from t"))[0]?.[0] !== "1") await new Promise((done) => setTimeout(done, 20));
  stop.abort();

  expect((await restored).warnings.join()).toMatch(/"v" could not be refreshed: it was stopped/);
});
