import pg from "pg";
import { describe, expect, test } from "vitest";
import { OperationalError } from "../../src/base/errors.ts";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { asBeforeRestart, type Chain, contentOf, methodsOf, openChain, truthOf } from "../support/increments.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { startPostgres } from "../support/postgres-server.ts";
import { startSlowLineProxy } from "../support/slow-line-proxy.ts";
import { untilAlone } from "../support/until-alone.ts";

/** The next incremental of a chain, by the hashes of a server that would have been restarted. */
const nextByHash = (chain: Chain, url: string): Promise<Manifest> =>
  chain.next(url, { base: asBeforeRestart(chain), serverHash: "always" });

/** Bytes of rows that a snapshot has of its own. */
const ownBytes = ({ tables }: Manifest): number =>
  tables
    .flatMap(({ segments }) => segments.flatMap(({ chunks }) => chunks))
    .reduce((sum, { snapshot, rawSize }) => sum + (snapshot === undefined ? rawSize : 0), 0);

interface Change {
  readonly name: string;
  readonly act: string;
  readonly method: "full" | "delta" | "unchanged";
}

const TABLE = `create type mood as enum ('sad', 'ok');
  create table t (id int primary key, a int, b int, v text, n numeric, f float8, m mood default 'sad', i interval, j jsonb,
                  h text, c char(5), ts timestamptz);
  alter table t alter h set storage external;
  insert into t select g, g, g + 1, 'v|' || g, 1.0, 0.0, 'sad', '1 day', '{"n": 1.0}', case when g < 20 then repeat(md5(g::text), 90) end, 'x', '2026-01-01'
    from generate_series(1, 1200) g;
  insert into t (id, v) values (3001, null), (3002, 'null'), (3003, E'tab\\tline\\nback\\\\slash'), (3004, '\\N')`;

const changes: readonly Change[] = [
  { name: "nothing", act: "select 1", method: "unchanged" },
  { name: "one row", act: "update t set v = 'new' where id = 77", method: "delta" },
  { name: "a deleted row", act: "delete from t where id = 77", method: "delta" },
  { name: "an added row", act: "insert into t (id) values (4000)", method: "delta" },
  { name: "two columns that exchange their values", act: "update t set a = b, b = a where id = 5", method: "delta" },
  {
    name: "two rows that exchange a value",
    act: "update t x set v = y.v from t y where x.id + y.id = 5 and x.id in (2, 3)",
    method: "delta",
  },
  { name: "NULL that becomes text", act: "update t set v = '\\N' where id = 3001", method: "delta" },
  { name: "a large value that is kept apart", act: "update t set h = h || 'x' where id = 12", method: "delta" },
  { name: "a change that was rolled back", act: "begin; update t set v = 'x'; rollback", method: "unchanged" },
  { name: "frozen rows", act: "vacuum (freeze) t", method: "unchanged" },
  { name: "half of the rows", act: "update t set a = 0 where id % 2 = 0", method: "full" },
  { name: "no row that is left", act: "delete from t", method: "full" },
];

/** Rows of a table before and after they were all replaced, each at the place of the one before. */
const exchanged: readonly {
  readonly type: string;
  readonly before: string;
  readonly after: string;
  readonly more?: string;
}[] = [
  { type: "i int, v text", before: "(1, 'a'), (2, 'b')", after: "(1, 'a'), (2, 'b')" },
  { type: "i int, v text", before: "(1, 'a'), (2, 'b')", after: "(2, 'b'), (1, 'a')" },
  { type: "i int, v text", before: "(1, 'a'), (2, 'b')", after: "(1, 'b'), (2, 'a')" },
  { type: "v text", before: "('x'), ('x')", after: "('y'), ('y')" },
  { type: "v text", before: "(null)", after: "('')", more: "alter table c4 alter v set not null" },
  { type: "i int, v text", before: "(1, null)", after: "(1, '')" },
  { type: "i int, v text", before: "(1, null)", after: "(1, '\\N')" },
  { type: "a int, b int", before: "(1, 11)", after: "(11, 1)" },
  { type: "a int, b int", before: "(1, null)", after: "(null, 1)" },
  { type: "a text, b text", before: "('a', 'b|c')", after: "('a|b', 'c')" },
  { type: "a text, b text", before: "('', 'a')", after: "('a', '')" },
  { type: "v numeric", before: "(1.0)", after: "(1.00)" },
  { type: "v float8", before: "(0.0)", after: "('-0')" },
  { type: "v interval", before: "('1 day')", after: "('24:00:00')" },
  { type: "v jsonb", before: `('{"n": 1.0}')`, after: `('{"n": 1.00}')` },
  { type: "v bigint", before: "(1)", after: "(4294967296)" },
  { type: "v timestamp", before: "('2026-01-01 00:00:00')", after: "('2026-01-01 01:11:34.967296')" },
  { type: "v char(4), w text", before: "('a', 'b')", after: "('a', ' b')" },
  { type: "v text[]", before: "(array['a', null])", after: "(array['a', 'NULL'])" },
  { type: "v bytea", before: "('\\x00')", after: "('\\x0000')" },
  { type: "v boolean", before: "(true)", after: "(false)" },
];

describe.each(postgresMajors)("the hashes of PostgreSQL %i tell apart", (major) => {
  test("every change, each in the chain of its table", { timeout: 120_000 }, async () => {
    await using database = await createDatabase(major, TABLE);
    await using chain = await openChain();
    await using stack = new AsyncDisposableStack();
    const client = new pg.Client({ connectionString: database.url });
    stack.defer(() => client.end());
    await client.connect();
    await chain.next(database.url);
    for (const { name, act, method } of changes) {
      for (const statement of act.split("; ")) await client.query(statement);

      const manifest = await nextByHash(chain, database.url);

      expect([name, methodsOf(manifest)["t"]]).toEqual([name, method]);
      expect(await contentOf(chain.readerOf(manifest)), name).toEqual(await truthOf(database.url));
    }
  });

  test("rows of equal content that change places, though no value changed", async () => {
    await using database = await createDatabase(
      major,
      "create table t (v text); insert into t values ('a'), ('b'), ('b'), ('a')",
    );
    await using chain = await openChain();
    await untilAlone(database);
    await chain.next(database.url);
    await database.query("delete from t where ctid in ('(0,1)', '(0,2)')");
    await database.query("vacuum t");
    await database.query("insert into t values ('b'), ('a')");

    const hashed = await nextByHash(chain, database.url);
    await database.query("delete from t where ctid = '(0,1)'");
    const byHeaders = await chain.next(database.url);

    expect(methodsOf(hashed)).not.toEqual({ t: "unchanged" });
    expect(await contentOf(chain.readerOf(byHeaders))).toEqual(await truthOf(database.url));
  });

  test("rows that took the places of removed ones, on pages behind one that did not change", async () => {
    // Four rows fill a page.
    await using database = await createDatabase(
      major,
      `create table t (i int, v text); alter table t alter v set storage plain;
       insert into t select i, repeat('v', 1900) from generate_series(1, 40) i`,
    );
    await using chain = await openChain();
    await untilAlone(database);
    await chain.next(database.url);
    await database.query("delete from t where ctid in ('(0,2)', '(1,2)')");
    await database.query("vacuum t");
    await database.query("insert into t select i, repeat('n', 1900) from generate_series(51, 52) i");
    const byHeaders = await chain.next(database.url);
    await database.query("delete from t where ctid = '(1,3)'");

    const manifest = await nextByHash(chain, database.url);

    expect([methodsOf(byHeaders), ownBytes(byHeaders)]).toEqual([{ t: "delta" }, 2 * 1904]);
    expect(manifest.tables[0]?.reason).toBe("the server was restarted; its rows were compared by hashes");
    expect([methodsOf(manifest), ownBytes(manifest)]).toEqual([{ t: "delta" }, 0]);
    expect(await contentOf(chain.readerOf(manifest))).toEqual(await truthOf(database.url));
  });

  test("text that changed though no byte of a row did", async () => {
    await using database = await createDatabase(
      major,
      `create type mood as enum ('sad', 'ok'); create table t (i int, m mood);
       insert into t select i, case when i = 700 then 'ok' else 'sad' end::mood from generate_series(1, 2000) i`,
    );
    await using chain = await openChain();
    await untilAlone(database);
    await chain.next(database.url);
    await database.query("alter type mood rename value 'ok' to 'fine'");

    const manifest = await nextByHash(chain, database.url);

    expect(methodsOf(manifest)).toEqual({ t: "delta" });
    expect(ownBytes(manifest)).toBeLessThan(20);
    expect(await contentOf(chain.readerOf(manifest))).toEqual(await truthOf(database.url));
  });

  test("values that took the place of others, down to the line pointer", { timeout: 60_000 }, async () => {
    await using database = await createDatabase(major);
    await using chain = await openChain();
    for (const [index, { type, before }] of exchanged.entries()) {
      await database.query(`create table c${index} (${type}); insert into c${index} values ${before}`);
    }
    await untilAlone(database);
    await chain.next(database.url);
    for (const [index, { after, more = "" }] of exchanged.entries()) {
      await database.query(`delete from c${index}`);
      // What is emptied as a whole is cut off, and line pointers begin anew.
      await database.query(`vacuum c${index}`);
      await database.query(`insert into c${index} values ${after}; ${more}`);
    }

    const manifest = await nextByHash(chain, database.url);

    expect(await contentOf(chain.readerOf(manifest))).toEqual(await truthOf(database.url));
    const told = exchanged.map(({ after, before }, index) => [after, methodsOf(manifest)[`c${index}`], before]);
    expect(told).toEqual(
      exchanged.map(({ after, before }) => [after, after === before ? "unchanged" : "full", before]),
    );
  });
});

/** 40 MB of rows. */
const WIDE = `create table t (id int primary key, v text);
  alter table t alter v set storage external;
  insert into t select i, repeat(md5(i::text), 20) from generate_series(1, 56000) i;
  create table toasted (id int, v text); alter table toasted alter v set storage external;
  insert into toasted select i, repeat(md5(i::text), 600) from generate_series(1, 100) i`;

async function runIn(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

test("after a restart of a far server only what changed is transferred, then headers are believed again", {
  timeout: 120_000,
}, async () => {
  await using server = await startPostgres(18);
  await using proxy = await startSlowLineProxy(server.port, 2_000_000);
  await using chain = await openChain();
  const far = server.url.replace(`:${server.port}/`, `:${proxy.port}/`);
  await runIn(server.url, WIDE);
  await chain.next(server.url);
  await runIn(server.url, "update t set v = 'new' where id % 7000 = 0; delete from t where id % 5999 = 0");
  await chain.next(server.url);
  await server.restart();
  await runIn(server.url, "update t set v = 'newer' where id % 9000 = 0; update toasted set v = v || 'x' where id = 5");
  proxy.reset();

  const hashed = await chain.next(far, { serverHash: "on-slow-links" });
  const bytes = proxy.received;
  const byHeaders = await chain.next(far, { serverHash: "on-slow-links" });

  expect(hashed.tables.map(({ name, method, reason }) => [name, method, reason])).toEqual([
    ["t", "delta", "the server was restarted; its rows were compared by hashes"],
    ["toasted", "delta", "the server was restarted; its rows were compared by hashes"],
  ]);
  expect(ownBytes(hashed)).toBeLessThan(25_000);
  // The measurement reads a part of one cell.
  expect(bytes).toBeLessThan(4_000_000);
  expect(methodsOf(byHeaders)).toEqual({ t: "unchanged", toasted: "unchanged" });
  expect(await contentOf(chain.readerOf(hashed))).toEqual(await truthOf(server.url));
});

test.each([
  ["LATIN1", "e9e8"],
  ["SQL_ASCII", "c3a9"],
])("text of a database in %s is compared as well", { timeout: 60_000 }, async (encoding, bytes) => {
  await using database = await createDatabase(
    15,
    `set client_encoding = ${encoding}; create table t (i int, v text);
     insert into t select i, convert_from('\\x${bytes}'::bytea, '${encoding}') || i from generate_series(1, 300) i`,
    `encoding '${encoding}' locale 'C' template template0`,
  );
  await using chain = await openChain();
  await chain.next(database.url);

  const same = await nextByHash(chain, database.url);
  await database.query("update t set v = v || 'x' where i = 200");
  const changed = await nextByHash(chain, database.url);

  expect([methodsOf(same), methodsOf(changed)]).toEqual([{ t: "unchanged" }, { t: "delta" }]);
  expect(ownBytes(changed)).toBeLessThan(20);
});

test("a login that may not hash reads the rows", { timeout: 60_000 }, async () => {
  const role = `hashless_${process.pid}`;
  await using database = await createDatabase(
    15,
    "create table t (i int, n numeric); insert into t values (1, 1.5), (2, null)",
  );
  await database.query(`create role ${role} login password 'p' in role pg_read_all_data`);
  try {
    await using chain = await openChain();
    const url = database.urlFor(role, "p");
    await chain.next(url);
    await database.query("revoke execute on function sha256(bytea), hashtextextended(text, bigint) from public");
    const unasked = await chain.next(url, { base: asBeforeRestart(chain), serverHash: "always" });
    await database.query("grant execute on function hashtextextended(text, bigint) to public");
    await database.query("revoke execute on function int8send(bigint) from public");
    await database.query("update t set i = 5 where i = 1");

    const manifest = await chain.next(url, { base: asBeforeRestart(chain), serverHash: "always" });

    expect(unasked.tables[0]?.reason).toMatch(/^the server was restarted; it was read again/);
    expect(manifest.tables[0]?.reason).toMatch(
      /^the server was restarted; the server could not hash it: .*denied.*; it was read/,
    );
    expect(await contentOf(chain.readerOf(manifest))).toEqual(await truthOf(database.url));
  } finally {
    await database.query(`drop owned by ${role}; drop role ${role}`);
  }
});

test("a near server sends its rows, which takes less time than hashing them", { timeout: 60_000 }, async () => {
  await using database = await createDatabase(18, WIDE);
  await using chain = await openChain();
  await chain.next(database.url);

  const manifest = await chain.next(database.url, { base: asBeforeRestart(chain), serverHash: "on-slow-links" });

  for (const { reason } of manifest.tables)
    expect(reason).toMatch(/^the server was restarted; it was read again, and 0 of/);
  expect(ownBytes(manifest)).toBe(0);
});

test("a table that was rewritten, or a base that cannot be read, makes the table be read", {
  timeout: 60_000,
}, async () => {
  await using database = await createDatabase(
    18,
    "create table moved (i int); insert into moved values (1), (2); create table t (i int); insert into t values (1)",
  );
  await using chain = await openChain();
  const full = await chain.next(database.url);
  await database.query("vacuum full moved");
  const base = asBeforeRestart(chain);
  const [chunk] = full.tables.find(({ name }) => name === "t")?.segments[0]?.chunks ?? [];

  const manifest = await chain.next(database.url, {
    base: {
      book: base.book,
      reader: {
        ...base.reader,
        chunks: (refs, options) => {
          if (refs.some(({ offset }) => offset === chunk?.offset)) {
            throw new OperationalError("cannot read it", { kind: "archive", code: "hash-mismatch" });
          }
          return base.reader.chunks(refs, options);
        },
      },
    },
    serverHash: "always",
  });

  const reasons = Object.fromEntries(manifest.tables.map(({ name, reason }) => [name, reason]));
  expect(reasons["moved"]).toMatch(/^the server was restarted; it was read again/);
  expect(reasons["t"]).toMatch(/^the server was restarted; the base cannot be read: cannot read it; it was read again/);
  expect(await contentOf(chain.readerOf(manifest))).toEqual(await truthOf(database.url));
});
