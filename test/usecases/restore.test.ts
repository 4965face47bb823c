import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { Destination } from "../../src/destinations/destination.ts";
import { openDestination } from "../../src/destinations/open-destination.ts";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { openSnapshotReader } from "../../src/snapshot/open-snapshot-reader.ts";
import { readerWith, type SnapshotReader } from "../../src/snapshot/snapshot-reader.ts";
import { backUp } from "../../src/usecases/back-up.ts";
import { type RestoreOptions, type RestoreResult, restoreSnapshot } from "../../src/usecases/restore-snapshot.ts";
import { backUpOptions } from "../support/back-up-options.ts";
import { connectionOfUrl } from "../support/connection.ts";
import { createDatabase, postgresMajors, queryServer, type TestDatabase } from "../support/postgres.ts";

const signal = new AbortController().signal;

/** A database of an ordinary login that owns it, and a place for its snapshots. */
interface Shop extends AsyncDisposable {
  readonly database: TestDatabase;
  readonly url: string;
  /** Runs SQL as the owner. */
  run(sql: string): Promise<(string | null)[][]>;
  snapshot(): Promise<SnapshotReader>;
  restore(reader: SnapshotReader, options?: Partial<RestoreOptions>): Promise<RestoreResult>;
}

async function openShop(major: 15 | 18, sql: string): Promise<Shop> {
  const database = await createDatabase(major);
  const owner = `owner_${database.name}`;
  await database.query(
    `create role ${owner} login password 'pw'; alter database ${database.name} owner to ${owner};
     alter schema public owner to ${owner}`,
  );
  const url = database.urlFor(owner, "pw");
  const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  const destination = await openDestination({ type: "local", path: join(folder, "backups") }, { signal });
  const run = (text: string) => database.query(`set role ${owner}; ${text}`);
  await run(sql);
  return {
    database,
    url,
    run,
    snapshot: async () => readerOf(destination, await takeSnapshot(url, destination, folder)),
    restore: (reader, options = {}) => restoreSnapshot({ ...optionsFor(url, reader), ...options }),
    async [Symbol.asyncDispose]() {
      await rm(folder, { recursive: true, force: true });
      await database[Symbol.asyncDispose]();
      await queryServer(major, `drop role ${owner}`).catch(() => undefined);
    },
  };
}

async function takeSnapshot(url: string, destination: Destination, folder: string): Promise<Manifest> {
  const { manifest } = await backUp(backUpOptions(url, { folder, destinations: [destination] }));
  return manifest;
}

function readerOf(destination: Destination, manifest: Manifest): SnapshotReader {
  return openSnapshotReader({ destinations: [destination], prefix: "shop/shop", manifest, signal });
}

function optionsFor(url: string, reader: SnapshotReader): RestoreOptions {
  return {
    reader,
    target: connectionOfUrl(url),
    isNamed: false,
    planOnly: false,
    confirm: async () => true,
    allowConversion: false,
    ignoreMissing: false,
    stallTimeoutMs: 60_000,
    signal,
    report: () => undefined,
  };
}

const flat = (rows: (string | null)[][]) => rows.map((row) => row.join("|"));

describe.each(postgresMajors)("restoring rows into PostgreSQL %i as an ordinary owner", (major) => {
  test("puts every table back exactly, and says what was deleted and inserted", async () => {
    await using shop = await openShop(
      major,
      `create table t (i int primary key, v text, j jsonb, a text[], b bytea);
       insert into t select i, E'tab\\t' || i, jsonb_build_object('i', i), array['x', null], decode(md5(i::text), 'hex') from generate_series(1, 5000) i`,
    );
    const before = flat(await shop.run("select md5(string_agg(t::text, ',' order by i)) from t"));
    const reader = await shop.snapshot();
    await shop.run("delete from t where i % 3 = 0; update t set v = null where i % 3 = 1; insert into t values (9999)");

    const result = await shop.restore(reader);

    expect(result.tables).toEqual([{ schema: "public", name: "t", deleted: 3335, inserted: 5000 }]);
    expect(flat(await shop.run("select md5(string_agg(t::text, ',' order by i)) from t"))).toEqual(before);
  });

  test("with a plan only, tells the same and changes nothing", async () => {
    await using shop = await openShop(major, "create table t (i int); insert into t values (1), (2)");
    const reader = await shop.snapshot();
    await shop.run("delete from t where i = 1");

    const result = await shop.restore(reader, { planOnly: true });

    expect(result.tables).toEqual([{ schema: "public", name: "t", deleted: 1, inserted: 2 }]);
    expect(flat(await shop.run("select i from t"))).toEqual(["2"]);
  });

  test("leaves the rows of tables that refer to the restored ones, whatever their foreign keys would do on a delete", async () => {
    await using shop = await openShop(
      major,
      `create table cust (id int primary key, name text);
       create table ord (id int primary key, c int references cust on delete cascade);
       create table note (id int, c int references cust on delete set null deferrable initially deferred);
       create table strict (c int references cust on delete restrict);
       insert into cust values (1, 'a'), (2, 'b'); insert into ord values (1, 1), (2, 2); insert into note values (1, 1); insert into strict values (2)`,
    );
    const keys =
      "select conname, pg_get_constraintdef(oid), convalidated from pg_constraint where contype = 'f' order by 1";
    const before = flat(await shop.run(keys));
    const reader = await shop.snapshot();
    await shop.run("update cust set name = 'spoilt'");

    await shop.restore(reader, { tables: ["cust"] });

    expect(flat(await shop.run("select * from cust order by 1"))).toEqual(["1|a", "2|b"]);
    expect(flat(await shop.run("select * from ord order by 1"))).toEqual(["1|1", "2|2"]);
    expect(flat(await shop.run("select * from note"))).toEqual(["1|1"]);
    expect(flat(await shop.run(keys))).toEqual(before);
  });

  test("changes nothing when other rows refer to rows that the snapshot does not have", async () => {
    await using shop = await openShop(
      major,
      "create table cust (id int primary key); create table ord (c int references cust); insert into cust values (1)",
    );
    const reader = await shop.snapshot();
    await shop.run("insert into cust values (2); insert into ord values (2)");

    const restoring = shop.restore(reader, { tables: ["cust"] });

    await expect(restoring).rejects.toMatchObject({ kind: "database", code: "foreign-key" });
    expect(flat(await shop.run("select * from cust order by 1"))).toEqual(["1", "2"]);
    expect(flat(await shop.run("select conname from pg_constraint where contype = 'f'"))).toEqual(["ord_c_fkey"]);
  });

  test("restores cycles of foreign keys and tables that refer to themselves", async () => {
    await using shop = await openShop(
      major,
      `create table a (id int primary key, b int); create table b (id int primary key, a int references a);
       alter table a add foreign key (b) references b; create table self (id int primary key, up int references self);
       insert into a values (1, null); insert into b values (1, 1); update a set b = 1; insert into self values (2, 2), (1, 2)`,
    );
    const reader = await shop.snapshot();
    await shop.run("update a set b = null; delete from b; delete from a; delete from self");

    await shop.restore(reader);

    expect(
      flat(await shop.run("select * from a union all select * from b union all select * from self order by 1, 2")),
    ).toEqual(["1|1", "1|1", "1|2", "2|2"]);
  });

  test("keeps triggers from changing rows and gives each its exact state back", async () => {
    await using shop = await openShop(
      major,
      `create table t (i int, changed text);
       create function touch() returns trigger language plpgsql as $$ begin new.changed := 'touched'; return new; end $$;
       create function swallow() returns trigger language plpgsql as $$ begin return null; end $$;
       create trigger a_touch before insert on t for each row execute function touch();
       create trigger b_off before insert on t for each row execute function swallow(); alter table t disable trigger b_off;
       create trigger c_replica before insert on t for each row execute function swallow(); alter table t enable replica trigger c_replica;
       create trigger d_keep before delete on t for each row execute function swallow();
       alter table t disable trigger user; insert into t values (1, 'original');
       alter table t enable trigger a_touch; alter table t enable replica trigger c_replica; alter table t enable always trigger d_keep`,
    );
    const states = "select tgname, tgenabled from pg_trigger where not tgisinternal order by 1";
    const before = flat(await shop.run(states));
    const reader = await shop.snapshot();

    await shop.restore(reader);

    expect(flat(await shop.run("select * from t"))).toEqual(["1|original"]);
    expect(flat(await shop.run(states))).toEqual(before);
    expect(before).toEqual(["a_touch|O", "b_off|D", "c_replica|R", "d_keep|A"]);
  });

  test("restores a partitioned table through its root, whatever its partitions are now", async () => {
    await using shop = await openShop(
      major,
      `create table p (i int, v text) partition by range (i);
       create table p1 partition of p for values from (0) to (10); create table p2 partition of p for values from (10) to (20);
       insert into p values (1, 'a'), (11, 'b')`,
    );
    const reader = await shop.snapshot();
    await shop.run(
      "drop table p2; alter table p detach partition p1; drop table p1; create table all_of_it partition of p default; insert into p values (5, 'x')",
    );

    const result = await shop.restore(reader);

    expect(result.tables).toEqual([{ schema: "public", name: "p", deleted: 1, inserted: 2 }]);
    expect(flat(await shop.run("select * from p order by 1"))).toEqual(["1|a", "11|b"]);
  });

  test("says that rows lie outside the partitions there", async () => {
    await using shop = await openShop(
      major,
      "create table p (i int) partition by range (i); create table p1 partition of p default; insert into p values (11)",
    );
    const reader = await shop.snapshot();
    await shop.run("drop table p1; create table p1 partition of p for values from (0) to (9)");

    const restored = shop.restore(reader);

    await expect(restored).rejects.toMatchObject({
      code: "23514",
      hint: expect.stringMatching(/outside the partitions/),
    });
  });

  test("restores one partition alone, and a parent without touching its children", async () => {
    await using shop = await openShop(
      major,
      `create table p (i int) partition by range (i);
       create table p1 partition of p for values from (0) to (10); create table p2 partition of p for values from (10) to (20);
       insert into p values (1), (11); create table parent (i int); create table child () inherits (parent);
       insert into parent values (1); insert into child values (2)`,
    );
    const reader = await shop.snapshot();
    await shop.run("insert into p values (2), (12); delete from only parent; insert into child values (3)");

    await shop.restore(reader, { tables: ["p1", "parent"] });

    expect(flat(await shop.run("select * from p order by 1"))).toEqual(["1", "11", "12"]);
    expect(flat(await shop.run("select * from parent order by 1"))).toEqual(["1", "2", "3"]);
  });

  test("moves sequences on, so that the next insert works; never back", async () => {
    await using shop = await openShop(
      major,
      `create table ident (i int generated always as identity primary key, v int); insert into ident (v) values (1), (2), (3);
       create table ahead (i serial primary key); insert into ahead default values;
       create table empty (i serial primary key); create table down (i int); create sequence down_seq increment -1 owned by down.i; select nextval('down_seq')`,
    );
    const reader = await shop.snapshot();
    await shop.run("truncate ident restart identity; select setval('ahead_i_seq', 50)");

    await shop.restore(reader);

    await shop.run(
      "insert into ident (v) values (4); insert into ahead default values; insert into empty default values",
    );
    expect(flat(await shop.run("select max(i) from ident"))).toEqual(["4"]);
    expect(flat(await shop.run("select max(i) from ahead"))).toEqual(["51"]);
    expect(flat(await shop.run("select i from empty"))).toEqual(["1"]);
    expect(flat(await shop.run("select nextval('down_seq')"))).toEqual(["-2"]);
  });

  test("refuses what would narrow or lose values, and names every column", async () => {
    await using shop = await openShop(
      major,
      "create table t (a numeric(12,4), b int, c text, d varchar(5)); insert into t values (1.5, 1, 'x', 'y')",
    );
    const reader = await shop.snapshot();
    await shop.run(
      "delete from t; alter table t alter a type numeric(5,1), drop column b, add e int not null; alter table t alter d type varchar(9)",
    );

    const restoring = shop.restore(reader);

    await expect(restoring).rejects.toMatchObject({ kind: "refused", code: "drift" });
    await expect(restoring).rejects.toThrow(
      /t\.a is numeric\(5,1\) there[\s\S]*no column b|no column b[\s\S]*t\.a is numeric/,
    );
    await expect(restoring).rejects.not.toThrow(/t\.d/);
  });

  test("refuses a table with row security, and a table that is missing", async () => {
    await using shop = await openShop(major, "create table t (i int); create table gone (i int)");
    const reader = await shop.snapshot();
    await shop.run("alter table t enable row level security; alter table t force row level security; drop table gone");

    await expect(shop.restore(reader)).rejects.toThrow(
      /row security[\s\S]*gone is missing|gone is missing[\s\S]*row security/,
    );
  });

  test("makes a writer wait until it is done, so that no row comes in between", async () => {
    await using shop = await openShop(major, "create table t (i int); insert into t select generate_series(1, 1000)");
    const reader = await shop.snapshot();
    let writing: Promise<unknown> = Promise.resolve();
    const slow = readerWith(reader, {
      async *chunks(refs, options) {
        writing = shop.run("insert into t values (-1)");
        await new Promise((resolve) => setTimeout(resolve, 300));
        yield* reader.chunks(refs, options);
      },
    });

    await shop.restore(slow);
    await writing;

    expect(flat(await shop.run("select count(*), min(i) from t"))).toEqual(["1001|-1"]);
  });

  test.each(["the archive is damaged", "the server kills the connection", "it is stopped"])(
    "leaves the target as it was when %s in the middle",
    async (what) => {
      await using shop = await openShop(
        major,
        "create table p (i int primary key); create table t (i int references p, v text); insert into p select generate_series(1, 20000); insert into t select i, repeat(md5(i::text), 20) from generate_series(1, 20000) i",
      );
      const reader = await shop.snapshot();
      await shop.run(
        "delete from t where i > 100; create function f() returns trigger language plpgsql as 'begin return new; end'; create trigger g before insert on t for each row execute function f()",
      );
      const controller = new AbortController();
      let chunk = 0;
      const broken = readerWith(reader, {
        async *chunks(refs, options) {
          for await (const bytes of reader.chunks(refs, options)) {
            yield bytes.subarray(0, Math.floor(bytes.length / 2));
            chunk += 1;
            if (what.includes("archive")) throw new Error("damaged");
            if (what.includes("stopped")) controller.abort(new DOMException("stopped", "AbortError"));
            if (what.includes("kills")) {
              await shop.database.query(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'rowkeep restore' and datname = current_database()",
              );
            }
            yield bytes.subarray(Math.floor(bytes.length / 2));
          }
        },
      });

      await expect(shop.restore(broken, { tables: ["t"], signal: controller.signal })).rejects.toThrow();

      expect(chunk).toBeGreaterThan(0);
      expect(flat(await shop.run("select count(*) from t"))).toEqual(["100"]);
      expect(flat(await shop.run("select tgenabled from pg_trigger where not tgisinternal"))).toEqual(["O"]);
      expect(flat(await shop.run("select count(*) from pg_constraint where contype = 'f'"))).toEqual(["1"]);
    },
  );

  test("fails before the commit when the rows that arrive are not as many as the manifest says", async () => {
    await using shop = await openShop(major, "create table t (i int); insert into t values (1), (2)");
    const reader = await shop.snapshot();
    const lying = { ...reader.manifest, tables: reader.manifest.tables.map((table) => ({ ...table, rows: 3 })) };

    await expect(shop.restore(readerWith(reader, { manifest: lying }))).rejects.toMatchObject({
      code: "count-mismatch",
    });

    expect(flat(await shop.run("select count(*) from t"))).toEqual(["2"]);
  });

  test("takes hostile names as names", async () => {
    const name = `x"; drop schema public cascade;--\n.y`;
    const quoted = `"${name.replaceAll('"', '""')}"`;
    await using shop = await openShop(
      major,
      `create table ${quoted} (${quoted} int primary key); insert into ${quoted} values (1)`,
    );
    const reader = await shop.snapshot();
    await shop.run(`delete from ${quoted}`);

    await shop.restore(reader);

    expect(flat(await shop.run(`select * from ${quoted}`))).toEqual(["1"]);
  });

  test("keeps duplicates of tables without a key, NOT VALID constraints and large objects", async () => {
    await using shop = await openShop(
      major,
      `create table t (i int); insert into t values (1), (1), (2);
       create table nv (i int); insert into nv values (-1); create table r (id int primary key); alter table nv add foreign key (i) references r not valid;
       select lo_from_bytea(77, decode(repeat('cd', 300000), 'hex'))`,
    );
    const reader = await shop.snapshot();
    await shop.run("delete from t; delete from nv; select lo_unlink(77)");

    await shop.restore(reader);

    expect(flat(await shop.run("select i from t order by 1"))).toEqual(["1", "1", "2"]);
    expect(flat(await shop.run("select * from nv"))).toEqual(["-1"]);
    expect(flat(await shop.run("select convalidated from pg_constraint where conrelid = 'nv'::regclass"))).toEqual([
      "f",
    ]);
    expect(
      flat(await shop.run("select length(lo_get(77)), md5(lo_get(77)) = md5(decode(repeat('cd', 300000), 'hex'))")),
    ).toEqual(["300000|t"]);
  });

  test("refuses a database that is not the snapshot's unless it is named, and a name that does not fit", async () => {
    await using shop = await openShop(major, "create table t (i int); insert into t values (1)");
    await using other = await openShop(major, "create table t (i int)");
    const reader = await shop.snapshot();

    const unnamed = restoreSnapshot(optionsFor(other.url, reader));
    await expect(unnamed).rejects.toMatchObject({ kind: "refused", code: "wrong-target" });
    const misnamed = restoreSnapshot({ ...optionsFor(other.url, reader), isNamed: true, targetDb: "production" });
    await expect(misnamed).rejects.toMatchObject({ kind: "refused", code: "wrong-target" });
    await restoreSnapshot({ ...optionsFor(other.url, reader), isNamed: true, targetDb: other.database.name });

    expect(flat(await other.run("select * from t"))).toEqual(["1"]);
  });

  test("refreshes materialized views that read the restored tables", async () => {
    await using shop = await openShop(
      major,
      "create table t (i int); insert into t values (1); create materialized view m as select count(*) n from t; create materialized view mm as select n + 1 as n from m",
    );
    const reader = await shop.snapshot();
    await shop.run("delete from t; refresh materialized view m; refresh materialized view mm");

    await shop.restore(reader);

    expect(flat(await shop.run("select m.n, mm.n from m, mm"))).toEqual(["1|2"]);
  });
});
