import { readerWith } from "../../src/snapshot/snapshot-reader.ts";
import { isDeepStrictEqual } from "node:util";
import pg from "pg";
import { describe, expect, test } from "vitest";
import { CELL_PAGES, SPAN_PAGES } from "../../src/plan/plan-delta.ts";
import type { ChunkRef } from "../../src/snapshot/manifest.ts";
import { baseOf } from "../../src/usecases/reuse-chunks.ts";
import { contentOf, methodsOf, openChain, truthOf } from "../support/increments.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { untilAlone } from "../support/until-alone.ts";

describe.each(postgresMajors)("an incremental of PostgreSQL %i", (major) => {
  test("stores scattered changes as single rows and refers to the base for the rest", async () => {
    await using database = await createDatabase(
      major,
      `create table t (id int primary key, v text);
       insert into t select i, md5(i::text) || repeat('x', 200) from generate_series(1, 60000) i;
       create table still (v text); insert into still select i from generate_series(1, 1000) i;
       create table empty (i int)`,
    );
    await using chain = await openChain();
    await untilAlone(database);
    const full = await chain.next(database.url);
    await database.query("update t set v = 'new' where id % 1000 = 0; delete from t where id % 999 = 0");

    const manifest = await chain.next(database.url);

    expect(manifest.kind).toBe("incremental");
    expect(methodsOf(manifest)).toEqual({ t: "delta", still: "unchanged", empty: "unchanged" });
    expect(manifest.references?.map(({ id }) => id)).toEqual([full.id]);
    expect(await contentOf(chain.readerOf(manifest))).toEqual(await truthOf(database.url));
    expect(manifest.volumes[0]?.size).toBeLessThan((full.volumes[0]?.size ?? 0) / 10);
  });
});

interface Trap {
  readonly name: string;
  readonly setup?: string;
  readonly act: string;
  /** What is told of the table `t`. */
  readonly method: "full" | "delta" | "unchanged";
  readonly reason?: RegExp;
}

const traps: readonly Trap[] = [
  { name: "nothing at all", act: "select 1", method: "unchanged" },
  { name: "a change of another table", act: "create table elsewhere (i int)", method: "unchanged" },
  { name: "a change that was rolled back", act: "begin; update t set v = 'x'; rollback", method: "unchanged" },
  { name: "a deleted row", act: "delete from t where id = 5", method: "delta" },
  {
    name: "rows that exchanged their values",
    act: "update t a set v = b.v from t b where a.id + b.id = 3",
    method: "delta",
  },
  { name: "VACUUM FREEZE", act: "vacuum (freeze) t", method: "unchanged" },
  { name: "VACUUM FULL", act: "vacuum full t", method: "full", reason: /truncated or rewritten/ },
  { name: "TRUNCATE", act: "truncate t", method: "full", reason: /truncated or rewritten/ },
  { name: "TRUNCATE that was rolled back", act: "begin; truncate t; rollback", method: "unchanged" },
  { name: "a pages' end cut off by VACUUM", act: "delete from t where id > 1700; vacuum t", method: "delta" },
  {
    name: "a column added with a default",
    act: "alter table t add c int default 7",
    method: "full",
    reason: /definition/,
  },
  {
    name: "a change of a table whose columns have the names that the questions use",
    setup:
      "alter table t add g int default 0; alter table t add n int default 7; alter table t add page int default 0; alter table t add c text; alter table t add d text; alter table t add x int; alter table t add y int; alter table t add last tid; alter table t add age xid; alter table t add t text",
    act: "update t set v = 'x' where id = 1900; delete from t where id = 3",
    method: "delta",
  },
  { name: "a change of most rows", act: "update t set v = 'all'", method: "full", reason: /changed/ },
  { name: "a dropped column", act: "alter table t drop v", method: "full", reason: /definition/ },
  {
    name: "a renamed value of an enum, in an array of a composite",
    setup:
      "create type mood as enum ('sad'); create type m2 as (m mood[]); alter table t add m m2 default row(array['sad']::mood[])",
    act: "alter type mood rename value 'sad' to 'glum'",
    method: "full",
    reason: /one of its types/,
  },
  {
    name: "a renamed value of an enum in rows that were written with it",
    setup: "create type mood as enum ('sad'); alter table t add m mood; update t set m = 'sad'; vacuum full t",
    act: "alter type mood rename value 'sad' to 'glum'",
    method: "full",
    reason: /one of its types/,
  },
  {
    name: "a table that took its name",
    act: "drop table t; create table t (id int, v text); insert into t values (1, 'other')",
    method: "full",
    reason: /another table/,
  },
  {
    name: "a renamed table that a value of type regclass names",
    setup: "create table named (i int); alter table t add r regclass default 'named'",
    act: "alter table named rename to renamed",
    method: "full",
    reason: /regclass/,
  },
  {
    name: "an unlogged table",
    setup: "alter table t set unlogged",
    act: "select 1",
    method: "full",
    reason: /unlogged/,
  },
];

/** Runs statements one by one in one session, in the schema of a trap. */
async function actIn(client: pg.Client, schema: string, sql = ""): Promise<void> {
  await client.query(`set search_path = ${schema}`);
  for (const statement of sql.split("; ")) if (statement) await client.query(statement);
}

describe.each(postgresMajors)("an incremental of PostgreSQL %i sees", (major) => {
  test("every trap, each table by itself", { timeout: 60_000 }, async () => {
    await using database = await createDatabase(major);
    await using chain = await openChain();
    await using stack = new AsyncDisposableStack();
    const client = new pg.Client({ connectionString: database.url });
    stack.defer(() => client.end());
    await client.connect();
    for (const [index, { setup }] of traps.entries()) {
      await client.query(
        `create schema s${index}; create table s${index}.t (id int, v text);
         insert into s${index}.t select i, 'v' || i from generate_series(1, 2000) i`,
      );
      await actIn(client, `s${index}`, setup);
    }
    await untilAlone(database);
    await chain.next(database.url);
    for (const [index, { act }] of traps.entries()) await actIn(client, `s${index}`, act);

    const manifest = await chain.next(database.url);

    const told = traps.map((_, index) =>
      manifest.tables.find(({ schema, name }) => schema === `s${index}` && name === "t"),
    );
    expect(told.map((table, index) => `${traps[index]?.name}: ${table?.method}`)).toEqual(
      traps.map(({ name, method }) => `${name}: ${method}`),
    );
    for (const [index, { reason }] of traps.entries()) if (reason) expect(told[index]?.reason).toMatch(reason);
    expect(await contentOf(chain.readerOf(manifest))).toEqual(await truthOf(database.url));
  });

  test("what a transaction did that was open at the base, though younger ones were done", async () => {
    await using database = await createDatabase(major, "create table t (id int); insert into t values (1), (2)");
    await using chain = await openChain();
    await using stack = new AsyncDisposableStack();
    const session = new pg.Client({ connectionString: database.url });
    stack.defer(() => session.end());
    await session.connect();
    await session.query("begin; insert into t values (3); delete from t where id = 1");
    await database.query("insert into t values (4)");
    await chain.next(database.url);
    await session.query("commit");

    const manifest = await chain.next(database.url);

    expect(await contentOf(chain.readerOf(manifest))).toEqual({ "public.t": ["2", "3", "4"] });
  });

  test("many chained changes, gathers their rows and stays readable", { timeout: 120_000 }, async () => {
    await using database = await createDatabase(
      major,
      "create table t (id int primary key, v text); insert into t select i, 'v' || i from generate_series(1, 5000) i",
    );
    await using chain = await openChain();
    await chain.next(database.url);
    for (let round = 0; round < 9; round++) {
      await database.query(`update t set v = 'r${round}' where id % 200 = ${round}`);

      const manifest = await chain.next(database.url);

      expect(manifest.tables[0]?.segments.length).toBeLessThanOrEqual(9);
      expect(await contentOf(chain.readerOf(manifest))).toEqual(await truthOf(database.url));
    }
  });
});

test("rows of a chain that are the same are seen at a glance, without a look at where they were", async () => {
  await using database = await createDatabase(
    18,
    "create table t (id int, v text); insert into t select i, repeat('x', 500) from generate_series(1, 3000) i; create table u ()",
  );
  await using chain = await openChain();
  await untilAlone(database);
  await chain.next(database.url);
  for (const id of [7, 8]) {
    await database.query(`update t set v = 'new' where id in (${id}00, 1000); delete from t where id % 500 = ${id}`);
    await untilAlone(database);
    await chain.next(database.url);
  }
  const { latest } = chain;
  if (!latest) throw new Error("nothing was made");
  const [table] = latest.tables.filter(({ name }) => name === "t");
  const reader = chain.readerOf(latest);
  const read: ChunkRef[] = [];
  const base = baseOf(
    readerWith(reader, {
      manifest: latest,
      chunks: (refs, options) => {
        read.push(...refs);
        return reader.chunks(refs, options);
      },
    }),
  );
  // Otherwise it would be the same instant.
  await database.query("select pg_current_xact_id()");

  const manifest = await chain.next(database.url, { base });

  expect(table?.segments.length).toBeGreaterThan(2);
  expect(table?.removed?.rows).toBeGreaterThan(10);
  expect(read).toEqual(table?.removed?.chunks);
  expect(methodsOf(manifest)["t"]).toBe("unchanged");
  expect(await contentOf(chain.readerOf(manifest))).toEqual(await truthOf(database.url));
});

test("an incremental of a table with more than one span sees changes on both sides of every border", async () => {
  await using database = await createDatabase(
    18,
    // One row on each page: 17 cells, of which the last one is the first of the second span.
    `create table t (id int, v text) with (fillfactor = 10);
     insert into t select i, repeat('x', 700) from generate_series(0, ${SPAN_PAGES + 500}) i`,
  );
  await using chain = await openChain();
  await untilAlone(database);
  await chain.next(database.url);
  const borders = [0, CELL_PAGES - 1, CELL_PAGES, SPAN_PAGES - 1, SPAN_PAGES, SPAN_PAGES + 500];
  for (const act of ["update t set v = 'new'", "delete from t"]) {
    await database.query(`${act} where id in (${borders.join(", ")})`);

    const manifest = await chain.next(database.url);

    expect(methodsOf(manifest)).toEqual({ t: "delta" });
    expect(await contentOf(chain.readerOf(manifest))).toEqual(await truthOf(database.url));
  }
});

test("an incremental holds a changed row that is larger than a chunk may be", { timeout: 60_000 }, async () => {
  await using database = await createDatabase(
    18,
    "create table t (id int primary key, v text); insert into t select i, 'v' || i from generate_series(1, 3000) i",
  );
  await using chain = await openChain();
  await untilAlone(database);
  await chain.next(database.url);
  const acts = [
    "update t set v = repeat('x', 140000000) where id = 1000; update t set v = 'new' where id in (999, 1001)",
    "delete from t where id = 1000; update t set v = 'newer' where id = 999",
  ];
  const methods: unknown[] = [];
  for (const act of acts) {
    await database.query(act);

    const manifest = await chain.next(database.url);

    methods.push(methodsOf(manifest));
    const [content, truth] = [await contentOf(chain.readerOf(manifest)), await truthOf(database.url)];
    // Not by toEqual: it would print what differs.
    expect(isDeepStrictEqual(content, truth)).toBe(true);
  }
  expect(methods).toEqual([{ t: "delta" }, { t: "delta" }]);
});
