import { describe, expect, test } from "vitest";
import { restoreIntoEmpty } from "../../src/usecases/restore-create.ts";
import { createDatabase, postgresMajors, type TestDatabase } from "../support/postgres.ts";
import { emptyDatabase, fixture, optionsFor, snapshotOf } from "../support/restoring.ts";

async function relations(database: TestDatabase, kinds: string): Promise<readonly string[]> {
  const rows = await database.query(
    `select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where strpos($1, c.relkind::text) > 0 and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'`,
    [kinds],
  );
  return rows.map(([name]) => name ?? "").toSorted((left, right) => (left < right ? -1 : 1));
}

describe.each(postgresMajors)("restoring chosen tables into an empty PostgreSQL %i database", (major) => {
  test("makes them with what they need, and names what is left out", async () => {
    await using source = await createDatabase(major, fixture("rental-store"));
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const result = await restoreIntoEmpty(
      optionsFor(target.ownerUrl, snapshot.reader, { tables: ["store.film", "store.genre", "store.film_genre"] }),
    );

    expect(result.warnings).toEqual([
      "foreign-key film_dubbed_in_fkey of store.film is not restored: it needs store.language",
      "foreign-key film_language_fkey of store.film is not restored: it needs store.language",
    ]);
    expect(await relations(target, "rpvm")).toEqual(["store.film", "store.film_genre", "store.genre"]);
    expect(await relations(target, "S")).toEqual(["store.film_number"]);
    expect(
      await target.query(
        "select count(*), nextval('store.film_number'), (select count(*) from store.film_genre), (select count(*) from pg_trigger where not tgisinternal) from store.film",
      ),
    ).toEqual(await source.query("select 500, nextval('store.film_number'), 500, 2"));
    await target.query("insert into store.film (title, language) values ('A new harbour', 'eng')");
    const found = "select title from store.film where found_by @@ to_tsquery('english', 'harbour & new')";
    expect(await target.query(found)).toEqual([["A new harbour"]]);
    expect(await target.query("select obj_description('store.age_rating'::regtype)")).toEqual([
      ["as printed on the case"],
    ]);
  });

  test("makes a partition with the partitioned table above it", async () => {
    await using source = await createDatabase(major, fixture("rental-store"));
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const result = await restoreIntoEmpty(
      optionsFor(target.ownerUrl, snapshot.reader, { tables: ["store.payment_2024_04"] }),
    );

    expect(await relations(target, "rp")).toEqual(["store.payment", "store.payment_2024_04"]);
    expect(result.tables.map(({ name }) => name)).toEqual(["payment_2024_04"]);
    const content = "select count(*), sum(amount) from store.payment_2024_04";
    expect(await target.query(content)).toEqual(await source.query(content));
    expect(await relations(target, "iI")).toEqual([
      "store.payment_2024_04_customer_id_idx",
      "store.payment_2024_04_pkey",
      "store.payment_april_amount",
      "store.payment_of_customer",
      "store.payment_pkey",
    ]);
  });

  test("brings the extension, the domain and the function that a table uses, and nothing else", async () => {
    await using source = await createDatabase(
      major,
      `create extension citext; create extension hstore; create schema tools; create domain tools.code as citext; create domain tools.unused as text;
       create function tools.is_good(v tools.code) returns boolean language sql immutable as 'select true'; create function tools.other() returns int language sql as 'select 1';
       create table parent (id int); create table t (c tools.code check (tools.is_good(c)), n int generated always as identity) inherits (parent);
       create table u (i int primary key); alter table t add u int references u; create view v as select * from t;
       create index on t (c); insert into u values (1); insert into t (c, u) values ('A', 1)`,
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader, { tables: ["t"] }));

    expect(warnings).toEqual([
      "foreign-key t_u_fkey of public.t is not restored: it needs public.u",
      "table public.parent is made without rows: a chosen table needs it",
    ]);
    expect(await relations(target, "rvS")).toEqual(["parent", "t", "t_n_seq"]);
    expect(await target.query("select extname from pg_extension where extname <> 'plpgsql'")).toEqual([["citext"]]);
    expect(await target.query("select proname from pg_proc where pronamespace = 'tools'::regnamespace")).toEqual([
      ["is_good"],
    ]);
    expect(await target.query("select count(*) from t where c = 'a'")).toEqual([["1"]]);
  });

  test("refuses a pattern that matches nothing, before anything is made", async () => {
    await using source = await createDatabase(major, "create table orders (i int)");
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);

    const restoring = restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader, { tables: ["ordres"] }));

    await expect(restoring).rejects.toMatchObject({ kind: "usage", code: "unknown-table" });
    expect(await relations(target, "rS")).toEqual([]);
  });
});
