import { expect, test } from "vitest";
import type { TrustToken } from "../../src/drivers/change-tracker.ts";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { baseOf } from "../../src/usecases/reuse-chunks.ts";
import { contentOf, openChain, truthOf } from "../support/increments.ts";
import { createDatabase, postgresMajors, queryServer } from "../support/postgres.ts";
import { untilAlone } from "../support/until-alone.ts";

const TABLE = "create table t (id int primary key, v text); insert into t select i, 'v' from generate_series(1, 500) i";

/** The snapshot as it would be of a server of which this is true. */
const withTrust = (manifest: Manifest, change: Partial<TrustToken>): Manifest => ({
  ...manifest,
  trust: { ...(manifest.trust as TrustToken), ...change },
});

/** Exchanges what is said of the first transaction. */
const flipped = (witness = "") => witness.replace(/[cr]/, (end) => (end === "c" ? "r" : "c"));

test.each(postgresMajors)("a server that was set back with its memory is found out (PostgreSQL %i)", async (major) => {
  await using database = await createDatabase(major, TABLE);
  await using chain = await openChain();
  await untilAlone(database);
  const full = await chain.next(database.url);
  await database.query("update t set v = 'new' where id = 5");
  const base = (witness: string | undefined) => baseOf(chain.readerOf(withTrust(full, { witness })));

  const other = await chain.next(database.url, { base: base(flipped(full.trust?.witness)) });
  const future = await chain.next(database.url, { base: base("4000000000c") });
  const hashed = await chain.next(database.url, { base: base("4000000000c"), serverHash: "always" });
  const same = await chain.next(database.url, { base: base(full.trust?.witness) });

  expect(full.trust?.witness).toMatch(/^\d+[cr]( \d+[cr]){23}$/);
  for (const { tables } of [other, future]) {
    const reason = "the server was set back to an earlier state; it was read again, and 1 of its 1 chunk changed";
    expect(tables).toMatchObject([{ method: "full", reason }]);
  }
  expect(hashed.tables).toMatchObject([
    { method: "delta", reason: "the server was set back to an earlier state; its rows were compared by hashes" },
  ]);
  expect(same.tables).toMatchObject([{ method: "delta" }]);
  // The next one can be compared again.
  const next = await chain.next(database.url, { base: baseOf(chain.readerOf(other)) });
  expect(next.tables).toMatchObject([{ method: expect.stringMatching(/^(unchanged|delta)$/) }]);
  for (const one of [other, future, hashed, same, next]) {
    expect(await contentOf(chain.readerOf(one))).toEqual(await truthOf(database.url));
  }
});

test.each(postgresMajors)(
  "a database that was made again of an older copy with its number is read (PostgreSQL %i)",
  async (major) => {
    await using database = await createDatabase(major, TABLE);
    await using copy = await createDatabase(major, undefined, `template ${database.name}`);
    await using chain = await openChain();
    await untilAlone(database);
    await database.query("update t set v = 'new' where id = 5");
    const [row] = await database.query("select oid from pg_database where datname = current_database()");
    await chain.next(database.url);
    await queryServer(major, `drop database ${database.name} with (force)`);
    await queryServer(
      major,
      `create database ${database.name} template ${copy.name} strategy file_copy oid = ${row?.[0]}`,
    );

    const manifest = await chain.next(database.url);

    expect(manifest.tables).toMatchObject([
      { method: "full", reason: expect.stringMatching(/^the database was altered, or made again/) },
    ]);
    expect(await contentOf(chain.readerOf(manifest))).toEqual(await truthOf(database.url));
  },
);

test("a base of a server that was restarted is compared by its bytes", async () => {
  await using database = await createDatabase(18, TABLE);
  await using chain = await openChain();
  await untilAlone(database);
  const full = await chain.next(database.url);
  await database.query("delete from t where id = 5");
  const base = baseOf(chain.readerOf(withTrust(full, { startedAt: "1.5" })));

  const manifest = await chain.next(database.url, { base });

  expect(manifest.tables).toMatchObject([
    { method: "full", reason: "the server was restarted; it was read again, and 1 of its 1 chunk changed" },
  ]);
  expect(await contentOf(chain.readerOf(manifest))).toEqual(await truthOf(database.url));
});

test("a base without witnesses, of an earlier rowkeep, is believed", async () => {
  await using database = await createDatabase(18, TABLE);
  await using chain = await openChain();
  await untilAlone(database);
  const full = await chain.next(database.url);
  await database.query("delete from t where id = 5");

  const manifest = await chain.next(database.url, {
    base: baseOf(chain.readerOf(withTrust(full, { witness: undefined }))),
  });

  expect(manifest.tables).toMatchObject([{ method: "delta" }]);
  expect(manifest.trust?.witness).toBeDefined();
});

test("a login that may not use PL/pgSQL makes incrementals all the same", async () => {
  await using database = await createDatabase(18, TABLE);
  await database.query("drop extension plpgsql");
  await using chain = await openChain();
  await untilAlone(database);
  await chain.next(database.url);
  await database.query("delete from t where id = 5");

  const manifest = await chain.next(database.url);

  expect(manifest.trust?.witness).toBeUndefined();
  expect(manifest.tables).toMatchObject([{ method: "delta" }]);
});
