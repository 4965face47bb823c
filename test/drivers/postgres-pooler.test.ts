import { connect, createServer, type Socket } from "node:net";
import { expect, test } from "vitest";
import { openPostgresClient } from "../../src/drivers/postgres/postgres-client.ts";
import { restoreIntoEmpty } from "../../src/usecases/restore-create.ts";
import { restoreSnapshot } from "../../src/usecases/restore-snapshot.ts";
import { connectionOfUrl } from "../support/connection.ts";
import { createDatabase } from "../support/postgres.ts";
import { emptyDatabase, inPlaceOptionsFor, optionsFor, snapshotOf } from "../support/restoring.ts";

const signal = new AbortController().signal;

interface Pooler extends AsyncDisposable {
  readonly port: number;
  /** Every statement that clients sent. */
  statements(): string;
}

/** Starts BackendKeyData: its code and its length (protocol 3.0). */
const KEY_DATA = Buffer.from([0x4b, 0, 0, 0, 12]);

/** A server behind a pooler: its process is another one than the client was told at the start. */
async function startPooler(targetPort: number): Promise<Pooler> {
  const sockets = new Set<Socket>();
  const sent: Buffer[] = [];
  const server = createServer((client) => {
    const upstream = connect(targetPort, "127.0.0.1");
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
    }
    client.on("data", (bytes) => {
      sent.push(bytes);
      upstream.write(bytes);
    });
    let isStarting = true;
    upstream.on("data", (bytes) => {
      const at = isStarting ? bytes.indexOf(KEY_DATA) : -1;
      if (at >= 0) {
        isStarting = false;
        bytes.writeInt32BE(bytes.readInt32BE(at + KEY_DATA.length) + 1_000_000, at + KEY_DATA.length);
      }
      client.write(bytes);
    });
    client.on("close", () => upstream.end());
    upstream.on("close", () => client.end());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  return {
    port: typeof address === "object" && address ? address.port : 0,
    statements: () => Buffer.concat(sent).toString("latin1"),
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

/** Settings that would stay with a connection that others get next. */
const SESSION_SETTINGS = /(?:Q[\s\S]{4}|; ?)set (?!local |transaction )\w+[^\0;]*|set_config\([^\0]*false\)/gi;

test("a pooler is noticed, and settings are pinned inside transactions only", async () => {
  await using database = await createDatabase(18);
  await database.query(`alter database ${database.name} set datestyle = 'SQL, DMY'`);
  await using pooler = await startPooler(connectionOfUrl(database.url).port);
  const connection = { ...connectionOfUrl(database.url), port: pooler.port };

  await using client = await openPostgresClient(connection, {
    signal,
    stallTimeoutMs: 10_000,
    applicationName: "test",
  });
  const outside = await client.query("show datestyle");
  await client.begin("read only");
  const inside = await client.query("show datestyle");

  expect(client.isPooled).toBe(true);
  expect([outside, inside]).toEqual([[["SQL, DMY"]], [["ISO, YMD"]]]);
});

test("no statement is compiled, with a pooler in between or without", async () => {
  await using database = await createDatabase(18);
  await database.query(`alter database ${database.name} set jit = on`);
  await using pooler = await startPooler(connectionOfUrl(database.url).port);
  const direct = connectionOfUrl(database.url);
  const options = { signal, stallTimeoutMs: 10_000, applicationName: "test" };
  await using client = await openPostgresClient(direct, options);
  await using pooled = await openPostgresClient({ ...direct, port: pooler.port }, options);
  await pooled.begin("read only");

  const shown = [await client.query("show jit"), await pooled.query("show jit")];

  expect(shown).toEqual([[["off"]], [["off"]]]);
  expect((await database.query("show jit"))[0]).toEqual(["on"]);
});

test("a backup and every kind of restore through a pooler leave no setting behind", async () => {
  await using source = await createDatabase(18, "create table t (i int primary key); insert into t values (1), (2)");
  await using target = await emptyDatabase(18);
  await using pooler = await startPooler(connectionOfUrl(source.url).port);
  const through = (url: string) => ({ ...connectionOfUrl(url), port: pooler.port });

  await using snapshot = await snapshotOf(source.url, { connection: through(source.url) });
  await restoreSnapshot(inPlaceOptionsFor(source.url, snapshot.reader, { target: through(source.url) }));
  await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader, { target: through(target.ownerUrl) }));

  expect(await target.query("select count(*) from t")).toEqual([["2"]]);
  expect(pooler.statements()).toContain("set local datestyle");
  expect(pooler.statements().match(SESSION_SETTINGS)).toBeNull();
});
