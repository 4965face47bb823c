import { describe, expect, test } from "vitest";
import { postgresMajors } from "../support/postgres.ts";
import { openRowShop } from "./row-shop.ts";

const TEN =
  "create table t (id int primary key, v text); insert into t select i, 'v' || i from generate_series(1, 10) i";

const DRIFTS: readonly (readonly [string, string])[] = [
  ["alter table t drop column v", "has no column v"],
  ["alter table t alter v type varchar(1) using 'x'", "is character varying(1) there"],
  ["alter table t rename to old", "is missing in the target"],
  ["alter table t drop constraint t_pkey", "the primary key of public.t is none there"],
  ["alter table t drop constraint t_pkey, add primary key (id, v)", "the primary key of public.t is (id, v) there"],
  ["create rule r as on insert to t do instead nothing", "has the rule r"],
  ["alter table t enable row level security, force row level security", "has row security"],
  ["alter table t rename to old; create view t as select * from old", "is missing in the target"],
];

/** The whole table, in an order of its own. */
const ALL = "select * from t order by 1";

describe.each(postgresMajors)("restoring chosen rows into PostgreSQL %i as an ordinary owner", (major) => {
  test("replaces rows that match, here or in the snapshot, and leaves all others; undo takes it back", async () => {
    await using shop = await openRowShop(major, TEN);
    // 2 is gone, 3 was changed, 4 no longer matches, 7 does now, 11 is new and matches, 5 and 12 do not.
    await shop.run(
      `delete from t where id = 2; update t set v = 'spoilt' where id in (3, 5); update t set v = 'x' where id = 4;
       update t set v = 'v3' where id = 7; insert into t values (11, 'v2'), (12, 'new')`,
    );
    const before = await shop.run(ALL);
    const where = "v in ('v2', 'v3', 'v4')";

    const planned = await shop.rows({ where, planOnly: true });
    const unchanged = await shop.run(ALL);
    const done = await shop.rows({ where });
    const after = await shop.run(ALL);
    await shop.undo(done);

    expect(unchanged).toEqual(before);
    expect(planned.tables).toEqual([{ schema: "public", name: "t", deleted: 4, inserted: 3, updated: 0 }]);
    expect(done.tables).toEqual(planned.tables);
    expect(after).toEqual(["1|v1", "2|v2", "3|v3", "4|v4", "5|spoilt", "6|v6", "8|v8", "9|v9", "10|v10", "12|new"]);
    expect(await shop.run(ALL)).toEqual(before);
  });

  test("inserts only rows whose key is missing; undo takes them out again", async () => {
    await using shop = await openRowShop(major, TEN);
    await shop.run("delete from t where id in (1, 2, 9); update t set v = 'mine' where id = 3");
    const before = await shop.run(ALL);

    const done = await shop.rows({ where: "id < 5", mode: "insert-missing" });
    const after = await shop.run(ALL);
    await shop.undo(done);

    expect(done.tables).toMatchObject([{ deleted: 0, inserted: 2, updated: 0 }]);
    expect(after.slice(0, 3)).toEqual(["1|v1", "2|v2", "3|mine"]);
    expect(after).toHaveLength(9);
    expect(await shop.run(ALL)).toEqual(before);
  });

  test("updates rows whose key is there and inserts the others; columns that are not stored stay", async () => {
    await using shop = await openRowShop(major, TEN);
    await shop.run(
      "delete from t where id = 2; update t set v = null where id = 3; alter table t add extra text default 'd'; update t set extra = 'kept'",
    );

    const done = await shop.rows({ where: "id between 2 and 4", mode: "upsert" });

    expect(done.tables).toMatchObject([{ deleted: 0, inserted: 1, updated: 2 }]);
    expect((await shop.run(ALL)).slice(0, 5)).toEqual(["1|v1|kept", "2|v2|d", "3|v3|kept", "4|v4|kept", "5|v5|kept"]);
    expect(done.warnings.join()).toContain("extra is not in the snapshot");
  });

  test("takes the safety snapshot while nobody can write, and counts again what the plan counted", async () => {
    await using shop = await openRowShop(major, TEN);
    let written: unknown;
    const confirm = async () => {
      await shop.run("insert into t values (11, 'v1')");
      return true;
    };
    const takeSafetySnapshot = async () => {
      written = await shop.run("set lock_timeout = '50ms'; delete from t").catch((error: unknown) => error);
      return { id: "kept", warnings: ["one place does not have it"], discard: async () => undefined };
    };

    const done = await shop.rows({ where: "v = 'v1'", confirm, takeSafetySnapshot });

    expect(written).toMatchObject({ code: "55P03" });
    expect(done).toMatchObject({ tables: [{ deleted: 2, inserted: 1 }], safetySnapshot: "kept" });
    expect(done.warnings).toContain("one place does not have it");
  });

  test("changes nothing when the safety snapshot cannot be taken", async () => {
    await using shop = await openRowShop(major, TEN);
    await shop.run("delete from t where id = 1");
    const takeSafetySnapshot = async () => {
      throw new Error("full");
    };

    await expect(shop.rows({ where: "id = 1", takeSafetySnapshot })).rejects.toThrow("full");
    expect(await shop.run("select count(*) from t")).toEqual(["9"]);
  });

  test("does nothing, and asks nothing, when there is nothing to do", async () => {
    await using shop = await openRowShop(major, TEN);
    const confirm = async () => {
      throw new Error("asked");
    };

    const none = await shop.rows({ where: "id > 100", confirm });
    const all = await shop.rows({ mode: "insert-missing", confirm });

    expect([none, all].map(({ tables }) => tables[0])).toMatchObject([{ deleted: 0, inserted: 0 }, { inserted: 0 }]);
    expect(none.safetySnapshot).toBeUndefined();
  });

  test("changes nothing when the answer is no", async () => {
    await using shop = await openRowShop(major, TEN);
    await shop.run("delete from t where id = 1");

    const restoring = shop.rows({ where: "id = 1", confirm: async () => false });

    await expect(restoring).rejects.toMatchObject({ kind: "refused", code: "not-confirmed" });
    expect(await shop.run("select count(*) from t")).toEqual(["9"]);
  });

  test("finds rows by keys of several columns, of text with every awkward value, and of numbers with other zeros", async () => {
    const awkward = String.raw`E'tab\t', E'new\nline', E'\\N', E'back\\slash', '', 'quo''te"', 'é', E'\r'`;
    await using shop = await openRowShop(
      major,
      `create table t (a text, b numeric, v text, w bytea, primary key (b, a));
       insert into t select a, 1.50, a, convert_to(a, 'UTF8') from unnest(array[${awkward}]) a; insert into t values ('null', 2, null, null)`,
    );
    const before = await shop.run('select a, b::text, v, w from t order by a collate "C"');
    await shop.run("update t set v = 'spoilt', w = null, b = b * 1.000; delete from t where a like '%slash' or a = ''");

    const done = await shop.rows({ where: "b >= 1.5", mode: "upsert" });

    expect(done.tables).toMatchObject([{ inserted: 2, updated: 7 }]);
    expect(await shop.run('select a, b::text, v, w from t order by a collate "C"')).toEqual(before);
  });

  test("tells NULL from the text \\N", async () => {
    await using shop = await openRowShop(
      major,
      String.raw`create table t (id int, v text); insert into t values (1, null), (2, E'\\N')`,
    );
    await shop.run("delete from t");

    await shop.rows({ where: "v is null" });
    const nulls = await shop.run(ALL);
    await shop.rows({ where: String.raw`v = '\N'` });

    expect(nulls).toEqual(["1|NULL"]);
    expect(await shop.run(ALL)).toEqual(["1|NULL", String.raw`2|\N`]);
  });

  test("keeps rows that refer to restored ones, whatever their keys would do on a delete", async () => {
    await using shop = await openRowShop(
      major,
      `${TEN}; create table child (c int references t on delete cascade); create table strict (c int references t on delete restrict);
       insert into child values (3); insert into strict values (4)`,
    );
    const keys =
      "select conname, pg_get_constraintdef(oid), convalidated from pg_constraint where contype = 'f' order by 1";
    const before = await shop.run(keys);
    await shop.run("update t set v = 'spoilt'");

    const done = await shop.rows({ where: "id in (3, 4)" });

    expect(done.tables).toMatchObject([{ deleted: 2, inserted: 2 }]);
    expect(await shop.run("select * from child union all select * from strict")).toEqual(["3", "4"]);
    expect(await shop.run(keys)).toEqual(before);
  });

  test("changes nothing when rows refer to one that would go, or a restored one refers to nothing", async () => {
    await using shop = await openRowShop(
      major,
      `create table up (id int primary key); insert into up values (1), (2);
       create table t (id int primary key, u int references up); insert into t values (1, 1), (2, 2); create table child (c int references t)`,
    );
    await shop.run(
      "insert into t values (3, 1); insert into child values (3); delete from t where id = 2; delete from up where id = 2",
    );

    const going = shop.rows({ where: "id = 3" });
    await expect(going).rejects.toMatchObject({ kind: "database", code: "foreign-key" });
    const orphan = shop.rows({ where: "id = 2", mode: "insert-missing" });
    await expect(orphan).rejects.toMatchObject({ kind: "database", code: "foreign-key" });

    expect(await shop.run(ALL)).toEqual(["1|1", "3|1"]);
    expect(await shop.run("select count(*) from pg_constraint where contype = 'f'")).toEqual(["2"]);
  });

  test.each(["replace", "upsert", "insert-missing"] as const)(
    "keeps triggers from changing rows with %s, and gives each its exact state back",
    async (mode) => {
      await using shop = await openRowShop(
        major,
        `${TEN}; create table log (x text);
         create function swallow() returns trigger language plpgsql as $$ begin insert into log values (tg_op); return null; end $$;
         create trigger a_row before insert or update or delete on t for each row execute function swallow();
         create trigger b_off before insert on t for each row execute function swallow(); alter table t disable trigger b_off;
         create trigger c_stmt after insert or update or delete on t for each statement execute function swallow(); alter table t enable always trigger c_stmt`,
      );
      const states = "select tgname, tgenabled from pg_trigger where not tgisinternal order by 1";
      const before = await shop.run(states);
      await shop.run(
        "alter table t disable trigger user; update t set v = 'x' where id = 1; delete from t where id = 2",
      );
      await shop.run("alter table t enable trigger a_row; alter table t enable always trigger c_stmt");

      await shop.rows({ where: "id in (1, 2)", mode });

      expect((await shop.run(ALL)).slice(0, 2)).toEqual([mode === "insert-missing" ? "1|x" : "1|v1", "2|v2"]);
      expect(await shop.run("select * from log")).toEqual([]);
      expect(await shop.run(states)).toEqual(before);
    },
  );

  test.each(["upsert", "insert-missing"] as const)(
    "says what to do about another row with the same unique value with %s",
    async (mode) => {
      await using shop = await openRowShop(
        major,
        "create table t (id int primary key, v text unique); insert into t values (1, 'a'), (2, 'b')",
      );
      await shop.run("delete from t where id = 1; update t set v = 'a' where id = 2");

      const restoring = shop.rows({ where: "id = 1", mode });

      await expect(restoring).rejects.toMatchObject({
        code: "23505",
        hint: expect.stringContaining("the same unique value"),
      });
      expect(await shop.run(ALL)).toEqual(["2|a"]);
    },
  );

  test("restores identities, leaves generated columns to the server and moves sequences on", async () => {
    await using shop = await openRowShop(
      major,
      `create table t (id int generated always as identity primary key, n int generated by default as identity, v text, up text generated always as (upper(v)) stored);
       insert into t (v) values ('a'), ('b'), ('c')`,
    );
    await shop.run(
      "delete from t where id in (2, 3); update t set v = 'x' where id = 1; alter sequence t_id_seq restart with 1",
    );

    await shop.rows({ where: "id <> 3", mode: "upsert" });
    await shop.rows({ where: "id = 3" });
    await shop.run("insert into t (v) values ('d')");

    expect(await shop.run(ALL)).toEqual(["1|1|a|A", "2|2|b|B", "3|3|c|C", "4|4|d|D"]);
  });

  test("updates an identity that is no key, and leaves it as strict as it was", async () => {
    await using shop = await openRowShop(
      major,
      "create table t (id text primary key, n int generated always as identity (start 5)); insert into t values ('a'), ('b')",
    );
    await shop.run("delete from t where id = 'a'; insert into t (id) values ('a')");

    await shop.rows({ where: "id = 'a'", mode: "upsert" });

    expect(await shop.run(ALL)).toEqual(["a|5", "b|6"]);
    expect(
      await shop.run("select attidentity from pg_attribute where attrelid = 't'::regclass and attname = 'n'"),
    ).toEqual(["a"]);
  });

  test.each(["replace", "upsert"] as const)(
    "goes through the root of a partitioned table with %s, whatever its partitions are now",
    async (mode) => {
      await using shop = await openRowShop(
        major,
        `create table t (i int, k text, v text, primary key (i, k)) partition by range (i);
       create table p1 partition of t for values from (0) to (10); create table p2 (v text, k text not null, i int not null);
       alter table t attach partition p2 for values from (10) to (20); insert into t values (1, 'a', 'x'), (2, 'b', 'x'), (11, 'c', 'x'), (12, 'd', 'x')`,
      );
      await shop.run(
        `update t set v = 'y'; delete from t where i = 12; alter table t detach partition p2; create table p3 partition of t default;
       insert into t select i, k, v from p2`,
      );

      await shop.rows({ where: "i in (2, 11, 12)", mode });

      expect(await shop.run(ALL)).toEqual(["1|a|y", "2|b|x", "11|c|x", "12|d|x"]);
    },
  );

  test("leaves the rows of inheriting tables alone", async () => {
    await using shop = await openRowShop(
      major,
      `${TEN}; create table child () inherits (t); insert into child values (1, 'child')`,
    );
    await shop.run("update only t set v = 'x'");

    await shop.rows({ where: "id = 1" });

    expect(await shop.run("select * from only t where id = 1 union all select * from child")).toEqual([
      "1|v1",
      "1|child",
    ]);
  });

  test("without a key, replaces what matches and refuses the modes that need one", async () => {
    await using shop = await openRowShop(
      major,
      "create table t (a int, v text); insert into t values (1, 'x'), (1, 'x'), (2, 'y')",
    );
    await shop.run("insert into t values (1, 'z'), (3, 'z')");

    const done = await shop.rows({ where: "a = 1" });

    expect(done.tables).toMatchObject([{ deleted: 3, inserted: 2 }]);
    expect(await shop.run(ALL)).toEqual(["1|x", "1|x", "2|y", "3|z"]);
    for (const mode of ["upsert", "insert-missing"] as const) {
      await expect(shop.rows({ where: "a = 1", mode })).rejects.toMatchObject({ kind: "refused", code: "no-key" });
    }
  });

  test("checks unique keys that are deferred before it says that it is done", async () => {
    await using shop = await openRowShop(
      major,
      `create table t (id int primary key, u int unique deferrable initially deferred, self int references t);
       insert into t values (1, 1, 1), (2, 2, 1)`,
    );
    await shop.run("update t set u = 20 where id = 2; insert into t values (3, 2, 3)");

    await expect(shop.rows({ where: "id = 2" })).rejects.toMatchObject({ kind: "database", code: "23505" });
    await shop.run("delete from t where id = 3");
    await shop.rows({ where: "id = 2" });

    expect(await shop.run(ALL)).toEqual(["1|1|1", "2|2|1"]);
  });

  test.each([
    ["unique value", "u int unique", "1", "2"],
    ["range", "u int4range, exclude using gist (u with &&)", "int4range '[1,5)'", "int4range '[5,9)'"],
  ])("updates rows between which a %s has changed places, and keeps what is not stored", async (_, u, one, two) => {
    await using shop = await openRowShop(
      major,
      `create table t (id int primary key, ${u}, n int generated always as identity unique, g int generated always as (id * 2) stored);
       create table c (id int references t on delete cascade); insert into t values (1, ${one}), (2, ${two}); insert into c values (1), (2)`,
    );
    const before = await shop.run("select id, u, n, g from t order by 1");
    await shop.run(
      `alter table t add later text default 'none'; update t set u = null; update t set u = case id when 1 then ${two} else ${one} end, later = 'kept'`,
    );

    const { tables } = await shop.rows({ mode: "upsert" });

    expect(tables).toMatchObject([{ deleted: 0, inserted: 0, updated: 2 }]);
    expect(await shop.run("select id, u, n, g from t order by 1")).toEqual(before);
    expect(await shop.run("select later from t")).toEqual(["kept", "kept"]);
    expect(await shop.run("select count(*) from c")).toEqual(["2"]);
  });

  test("refuses what has drifted", async () => {
    await using shop = await openRowShop(major, TEN);

    for (const [drift, reason] of DRIFTS) {
      await shop.run(drift);
      const restoring = shop.rows({ where: "id = 1" });
      await expect(restoring).rejects.toMatchObject({ kind: "refused", message: expect.stringContaining(reason) });
      await shop.run(`drop schema public cascade; create schema public; set search_path = public; ${TEN}`);
    }
  });

  test("refuses several tables and a condition that it cannot read", async () => {
    await using shop = await openRowShop(major, `${TEN}; create table t2 (id int)`);

    await expect(shop.rows({ tables: ["t*"], where: "id = 1" })).rejects.toMatchObject({ code: "several-tables" });
    await expect(shop.rows({ where: "id = 1; drop table t" })).rejects.toMatchObject({ code: "invalid-where" });
  });

  test("marks rows of a large table in pieces", async () => {
    await using shop = await openRowShop(
      major,
      "create table t (id int primary key, v text); insert into t select i, 'v' || i from generate_series(1, 5000) i",
    );
    await shop.run("update t set v = 'x' where id % 2 = 0");

    const done = await shop.rows({ where: "v = 'x' or id > 2500" });

    expect(done.tables).toMatchObject([{ deleted: 3750, inserted: 2500 }]);
    expect(await shop.run("select count(*), count(*) filter (where v = 'x') from t")).toEqual(["3750|0"]);
  });
});
