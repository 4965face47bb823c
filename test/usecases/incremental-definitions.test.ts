import pg from "pg";
import { expect, test } from "vitest";
import type { TrustToken } from "../../src/drivers/change-tracker.ts";
import type { TableChoice, TableName } from "../../src/drivers/driver.ts";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import type { BackUpOptions } from "../../src/usecases/back-up.ts";
import { baseOf } from "../../src/usecases/reuse-chunks.ts";
import { connectionOfUrl } from "../support/connection.ts";
import { executeMeanwhile } from "../support/execute-meanwhile.ts";
import { startForwarder } from "../support/forwarder.ts";
import { contentOf, methodsOf, openChain, truthOf } from "../support/increments.ts";
import { postgresMajors } from "../support/postgres.ts";
import { type PostgresServer, startPostgres } from "../support/postgres-server.ts";
import { tokenOf } from "../support/tracked-source.ts";

const SCHEMA = `
  create role ann login password 'pw'; alter schema public owner to ann; set role ann;
  create table t (id int primary key, v text); insert into t select i, 'v' from generate_series(1, 500) i;
  create table u (id int); create view w as select id from t; comment on table t is 'a comment'; reset role`;

/** The full and incrementals of a server of their own: databases of other tests come and go on those that all share. */
async function openShop(major: 15 | 18) {
  await using stack = new AsyncDisposableStack();
  const server = stack.use(await startPostgres(major));
  const chain = stack.use(await openChain());
  await run(server, SCHEMA);
  const owned = stack.move();
  return { server, chain, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

async function run({ url }: Pick<PostgresServer, "url">, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(sql);
  await client.end();
}

/** The same database for an ordinary login, which owns the tables. */
function asAnn(url: string): string {
  return Object.assign(new URL(url), { username: "ann", password: "pw" }).href;
}

/** Forwards to the server, and tells what it was asked. */
async function startSpy(url: string) {
  const asked: Buffer[] = [];
  const forwarder = await startForwarder(connectionOfUrl(url).port, {
    carry: (from, to, direction) => {
      from.on("data", (bytes: Buffer) => {
        if (direction === "up") asked.push(bytes);
        to.write(bytes);
      });
    },
  });
  return {
    url: Object.assign(new URL(url), { port: String(forwarder.port) }).href,
    takeAsked: () => Buffer.concat(asked.splice(0)).toString("latin1"),
    [Symbol.asyncDispose]: () => forwarder[Symbol.asyncDispose](),
  };
}

const definitionsOf = ({ definitions, notCaptured }: Manifest) => ({ definitions, notCaptured });

const SIGNATURE = ["only the base says so"];

/** What no server says: the snapshot that has it took over what the base knew. */
const signed = (manifest: Manifest, change: Partial<Manifest> = {}): Manifest => ({
  ...manifest,
  notCaptured: SIGNATURE,
  ...change,
});

const withTrust = (manifest: Manifest, change: Partial<TrustToken>) =>
  signed(manifest, { trust: { ...(manifest.trust as TrustToken), ...change } });

test.concurrent.each(
  postgresMajors.flatMap((major) => [undefined, "ann"].map((user) => ({ major, user: user ?? "postgres" }))),
)(
  "definitions that cannot have changed are not read (PostgreSQL $major, login $user)",
  { timeout: 60_000 },
  async ({ major, user }) => {
    await using shop = await openShop(major);
    const { chain, server } = shop;
    await using spy = await startSpy(server.url);
    const url = user === "ann" ? asAnn(spy.url) : spy.url;
    const full = await chain.next(url);
    const inFull = spy.takeAsked();
    await run(server, "insert into t values (1000, 'new'); analyze");

    const incremental = await chain.next(url);
    const inIncremental = spy.takeAsked();
    const third = await chain.next(url);
    const again = await chain.next(url, { base: undefined });

    expect(inFull).toContain("pg_get_viewdef");
    expect(inIncremental).not.toContain("pg_get_viewdef");
    expect(full.definitions.length).toBeGreaterThan(5);
    expect([incremental, third, again].map(definitionsOf)).toEqual([1, 2, 3].map(() => definitionsOf(full)));
    expect(incremental.definitionsMark).toEqual(full.definitionsMark);
    expect(await contentOf(chain.readerOf(incremental))).toEqual(await truthOf(server.url));
  },
);

test("definitions are read where the base proves nothing", { timeout: 120_000 }, async () => {
  await using shop = await openShop(18);
  const { chain, server } = shop;
  const full = await chain.next(server.url);
  const leavesOutU = (table: TableName): TableChoice => (table.name === "u" ? "excluded" : "rows");
  const next = (manifest: Manifest, more: Partial<BackUpOptions> = {}, url = server.url) =>
    chain.next(url, { ...more, base: baseOf(chain.readerOf(manifest)) });

  const taken = await next(signed(full));
  const others = {
    "an earlier rowkeep noted no mark": await next(signed(full, { definitionsMark: undefined })),
    "another rowkeep wrote them": await next(signed(full, { rowkeepVersion: "0.0.1" })),
    "the server was restarted": await next(withTrust(full, { startedAt: "1.5" })),
    "the server was set back": await next(withTrust(full, { witness: "4000000000c" })),
    "the base has no token": await next(signed(full, { trust: undefined })),
    "the job leaves out another table": await next(signed(full), { choose: leavesOutU }),
    "another login reads": await next(signed(full), {}, asAnn(server.url)),
    "a setting of the server differs": await next(
      signed(full, { definitionsMark: { rows: full.definitionsMark?.rows ?? 0, digest: "0".repeat(64) } }),
    ),
    "a row of a catalog is gone": await next(
      signed(full, { definitionsMark: { rows: 1, digest: full.definitionsMark?.digest ?? "" } }),
    ),
  };

  expect(taken.notCaptured).toEqual(SIGNATURE);
  for (const [why, manifest] of Object.entries(others)) {
    const excluded = why.startsWith("the job");
    expect(manifest.notCaptured, why).toEqual([]);
    expect(
      manifest.definitions.some(({ name }) => name === "u"),
      why,
    ).toBe(!excluded);
    if (!excluded) expect(manifest.definitions, why).toEqual(full.definitions);
  }
});

test("a restart between reads definitions again, and the next incremental takes those over", {
  timeout: 60_000,
}, async () => {
  await using shop = await openShop(18);
  const { chain, server } = shop;
  const full = await chain.next(server.url);
  await server.restart();

  const behind = await chain.next(server.url, { base: baseOf(chain.readerOf(signed(full))) });
  const next = await chain.next(server.url, { base: baseOf(chain.readerOf(signed(behind))) });

  expect(definitionsOf(behind)).toEqual(definitionsOf(full));
  expect(next.notCaptured).toEqual(SIGNATURE);
});

test("when the server contradicts the base, definitions that were taken over are read after all", async () => {
  await using shop = await openShop(15);
  const { chain, server } = shop;
  const full = await chain.next(server.url);
  await run(server, "insert into t values (1000, 'new')");
  // A base that claims to be from after that row, which it does not have.
  const { xmin } = await tokenOf(server.url);

  const manifest = await chain.next(server.url, { base: baseOf(chain.readerOf(withTrust(full, { xmin }))) });

  expect(methodsOf(manifest)).toEqual({ t: "full", u: "full" });
  expect(manifest.tables[0]?.reason).toMatch(/is older than the base and not in it/);
  expect(definitionsOf(manifest)).toEqual(definitionsOf(full));
  expect(await contentOf(chain.readerOf(manifest))).toEqual(await truthOf(server.url));
});

test("a login that may not hash or read a catalog backs up as ever", { timeout: 60_000 }, async () => {
  await using shop = await openShop(18);
  const { chain, server } = shop;
  const url = asAnn(server.url);
  const full = await chain.next(url);
  const hashing = "execute on function hashtextextended(text, bigint)";
  await run(server, `revoke ${hashing} from public`);
  const unhashed = await chain.next(url);
  await run(server, `grant ${hashing} to public; revoke select on pg_foreign_table from public`);
  const unread = await chain.next(url);
  const settings = "execute on function pg_show_all_settings() from public";
  await run(server, `grant select on pg_foreign_table to public; revoke ${settings}`);

  const unset = await chain.next(url);

  expect(full.definitionsMark).toBeDefined();
  for (const manifest of [unhashed, unread, unset]) {
    expect(manifest.trust).toBeDefined();
    expect(manifest.definitionsMark).toBeUndefined();
    expect(definitionsOf(manifest)).toEqual(definitionsOf(full));
  }
});

test("an incremental that begins again needs nothing that only its first attempt took over", async () => {
  await using shop = await openShop(18);
  const { chain, server } = shop;
  await run(server, "create view gone as select 1");
  const full = await chain.next(server.url);
  await run(server, "comment on table u is 'so that definitions are read'");
  const ids: string[] = [];

  const incremental = await chain.next(server.url, {
    onBegin: (id) => {
      ids.push(id);
      if (ids.length > 1) return;
      executeMeanwhile(server.url, "drop view gone; update t set v = 'other'; insert into u values (1)");
    },
  });

  expect(ids).toHaveLength(2);
  expect(incremental).toMatchObject({ id: ids[1], kind: "incremental" });
  expect(incremental.references ?? []).toEqual([]);
  expect(full.definitions.map(({ name }) => name)).toContain("gone");
  expect(incremental.definitions.map(({ name }) => name)).not.toContain("gone");
  expect(await contentOf(chain.readerOf(incremental))).toEqual(await truthOf(server.url));
});
