import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { Manifest, StoredTable } from "../../src/snapshot/manifest.ts";
import { runCliHere } from "../support/cli.ts";
import { asBeforeRestart, contentOf, openChain, truthOf } from "../support/increments.ts";
import { startOlderProxy } from "../support/older-proxy.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { untilAlone } from "../support/until-alone.ts";

/** Four cells of some 10,000 rows. */
const TABLE = `create table t (id int, v text) with (fillfactor = 90); alter table t alter v set storage external;
  insert into t select i, repeat(md5(i::text), 20) from generate_series(1, 40000) i`;

/** The table's chunks that are the snapshot's own, by the first page of their segment. */
function ownCells({ tables }: Manifest): readonly (number | undefined)[] {
  const [table] = tables as [StoredTable];
  return table.segments
    .filter(({ chunks }) => chunks.some(({ snapshot }) => snapshot === undefined))
    .map(({ pages }) => pages?.lo);
}

describe.each(postgresMajors)("a table of PostgreSQL %i whose headers prove nothing", (major) => {
  test("is read again, and only cells that changed are stored", { timeout: 60_000 }, async () => {
    await using database = await createDatabase(major, TABLE);
    await using chain = await openChain();
    await chain.next(database.url);
    await database.query("update t set v = 'new' where id = 12000; delete from t where id = 39990");

    const manifest = await chain.next(database.url, { base: asBeforeRestart(chain) });

    expect(ownCells(manifest)).toEqual([1024, 3072]);
    expect(manifest.tables[0]?.method).toBe("full");
    expect(manifest.tables[0]?.reason).toMatch(
      /^the server was restarted; it was read again, and [23] of its \d+ chunks? changed$/,
    );
    expect(await contentOf(chain.readerOf(manifest))).toEqual(await truthOf(database.url));
  });

  test("and whose rows all moved says that nothing could be taken over", { timeout: 60_000 }, async () => {
    await using database = await createDatabase(major, TABLE);
    await using chain = await openChain();
    await chain.next(database.url);
    await database.query("delete from t where id = 1");
    // A row that another transaction of the server may still see would stay where it is, and with it all others.
    await untilAlone(database);
    await database.query("vacuum full t");

    const manifest = await chain.next(database.url);

    expect(manifest.tables[0]?.reason).toMatch(
      /^it was truncated or rewritten; it was read again, and (\d+) of its \1 chunks? changed$/,
    );
    expect(await contentOf(chain.readerOf(manifest))).toEqual(await truthOf(database.url));
  });
});

test("a server before version 14 is read as a whole, and only cells that changed are stored", {
  timeout: 60_000,
}, async () => {
  await using database = await createDatabase(
    15,
    `${TABLE}; create table empty (i int); create table none (); insert into none default values;
     create table long (v text); insert into long values (repeat('x', 9000000)), (E'tab\\t \\\\ \\n'), (null)`,
  );
  await using proxy = await startOlderProxy(Number(new URL(database.url).port));
  await using chain = await openChain();
  const url = new URL(database.url);
  url.port = String(proxy.port);
  const full = await chain.next(url.href);
  await database.query("update t set v = 'new' where id = 12000; delete from t where id = 39990");

  const manifest = await chain.next(url.href);

  expect(full.trust).toBeUndefined();
  const table = manifest.tables.find(({ name }) => name === "t");
  expect(ownCells({ ...manifest, tables: table ? [table] : [] })).toEqual([1024, 3072]);
  expect(table?.reason).toMatch(
    /^a server before version 14 cannot read ranges of pages; it was read again, and [23] of/,
  );
  expect(manifest.tables.find(({ name }) => name === "long")?.reason).toMatch(/ 0 of its 3 chunks changed$/);
  expect(await contentOf(chain.readerOf(full))).not.toEqual(await truthOf(database.url));
  expect(await contentOf(chain.readerOf(manifest))).toEqual(await truthOf(database.url));
});

test("a job on a server before version 14 makes incrementals that build on each other", {
  timeout: 60_000,
}, async () => {
  await using stack = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  await using database = await createDatabase(15, TABLE);
  await using proxy = await startOlderProxy(Number(new URL(database.url).port));
  const url = new URL(database.url);
  url.port = String(proxy.port);
  const file = join(folder, "shop.yaml");
  await writeFile(
    file,
    `version: 1\nname: shop\nsource: { url: "${url.href}" }\ndestinations: [{ type: local, path: ./backups }]\n`,
  );
  const make = async () => {
    const { last } = await runCliHere(["run", file, "--incremental", "--json"], {
      home: join(folder, "home"),
      cwd: folder,
    });
    return ((last()["snapshots"] ?? []) as { kind: string; storedBytes: number }[])[0];
  };
  const first = await make();
  await database.query("update t set v = 'new' where id = 12000");
  const second = await make();

  expect([first?.kind, second?.kind]).toEqual(["full", "incremental"]);
  expect(second?.storedBytes).toBeLessThan((first?.storedBytes ?? 0) / 2);
});
