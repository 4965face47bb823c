import { describe, expect, test } from "vitest";
import { restoreSnapshot } from "../../src/usecases/restore-snapshot.ts";
import { createDatabase, postgresMajors, queryServer } from "../support/postgres.ts";
import { inPlaceOptionsFor, snapshotOf } from "../support/restoring.ts";

const PARENT_AND_CHILD = `create table parent (id int primary key); insert into parent values (1), (2);
  create table child (id int primary key, p int, constraint of_parent foreign key (p) references parent on delete cascade);
  insert into child values (1, 1), (2, 2)`;

const STATES = `select g.tgrelid::regclass::text, g.tgfoid::regproc::text, g.tgenabled, k.conname from pg_trigger g
  join pg_constraint k on k.oid = g.tgconstraint order by 1, 2, 4`;

const KEYS = `select conrelid::regclass::text, confrelid::regclass::text, conname, obj_description(oid, 'pg_constraint'), coninhcount,
  conislocal, convalidated from pg_constraint where contype = 'f' order by 1, 2, 3`;

describe.each(postgresMajors)("restoring rows under foreign keys of PostgreSQL %i", (major) => {
  test("gives their triggers the states that they had", async () => {
    await using database = await createDatabase(major, PARENT_AND_CHILD);
    await using snapshot = await snapshotOf(database.url);
    await database.query("alter table child disable trigger all; delete from parent where id = 2");
    await database.query(`do $$ declare t name; begin select tgname into t from pg_trigger
      where tgrelid = 'parent'::regclass and tgfoid = '"RI_FKey_noaction_upd"'::regproc;
      execute format('alter table parent enable always trigger %I', t); end $$`);
    const before = await database.query(STATES);

    await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader, { tables: ["parent"] }));

    expect(new Set(before.map(([, , enabled]) => enabled))).toEqual(new Set(["A", "D", "O"]));
    expect(await database.query(STATES)).toEqual(before);
    expect(await database.query("select count(*), (select count(*) from child) from parent")).toEqual([["2", "1"]]);
  });

  test("leaves one alone that is switched off at both ends, whatever its rows", async () => {
    await using database = await createDatabase(major, PARENT_AND_CHILD);
    await using snapshot = await snapshotOf(database.url);
    await database.query("alter table child disable trigger all; alter table parent disable trigger all");
    await database.query("insert into child values (3, 33); delete from parent");
    const states = `${STATES.replace("k.conname", "g.tgname")}`;
    const before = await database.query(states);

    const { tables } = await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader, { tables: ["parent"] }));

    expect(tables).toMatchObject([{ name: "parent", inserted: 2 }]);
    expect(await database.query(states)).toEqual(before);
    expect(await database.query("select count(*) from child")).toEqual([["3"]]);
  });

  test("is refused to who could not switch its triggers off again", async () => {
    const owner = `owner_${major}_${process.pid}`;
    await using database = await createDatabase(major, PARENT_AND_CHILD);
    await using snapshot = await snapshotOf(database.url);
    await database.query("alter table child disable trigger all; delete from parent where id = 2");
    await database.query(`create role ${owner} login password 'pw'; alter table parent owner to ${owner};
      alter table child owner to ${owner}; grant create on schema public to ${owner}`);
    try {
      const options = inPlaceOptionsFor(database.urlFor(owner, "pw"), snapshot.reader, { planOnly: true });

      await expect(restoreSnapshot(options)).rejects.toMatchObject({ kind: "refused", code: "key-triggers" });
    } finally {
      await database.query(`drop owned by ${owner} cascade`);
      await queryServer(major, `drop role ${owner}`);
    }
  });

  test("keeps the names, comments and states of what partitions have of them", async () => {
    await using database = await createDatabase(
      major,
      `create table parent (id int primary key) partition by list (id); create table parent1 partition of parent for values in (1);
       create table parent2 partition of parent for values in (2); insert into parent values (1), (2);
       create table t (id int, p int, q int) partition by list (id);
       create table leaf (id int, p int, q int, constraint "of leaf" foreign key (p) references parent, constraint fk_q foreign key (q) references parent);
       comment on constraint "of leaf" on leaf is 'its own'; comment on constraint fk_q on leaf is 'its other';
       alter table t add constraint fk_q foreign key (p) references parent; alter table t add constraint fk_p foreign key (q) references parent;
       comment on constraint fk_q on t is 'of all';
       alter table t attach partition leaf for values in (1); create table other partition of t for values in (2);
       alter table other rename constraint fk_p to renamed; alter table other rename constraint fk_q to fk_p; alter table other rename constraint renamed to fk_q;
       insert into t values (1, 1, 2), (2, 2, 1); alter table other disable trigger all`,
    );
    await using snapshot = await snapshotOf(database.url);
    const [keys, states] = [await database.query(KEYS), await database.query(STATES)];

    await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    expect(await database.query(KEYS)).toEqual(keys);
    expect(await database.query(STATES)).toEqual(states);
    expect(keys.filter(([child]) => child === "leaf").map((key) => key[3])).toContain("its own");
  });
});
