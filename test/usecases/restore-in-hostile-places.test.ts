import { describe, expect, test } from "vitest";
import { chooseTable } from "../../src/plan/table-patterns.ts";
import { readerWith } from "../../src/snapshot/snapshot-reader.ts";
import { restoreSnapshot } from "../../src/usecases/restore-snapshot.ts";
import { restoreIntoEmpty } from "../../src/usecases/restore-create.ts";
import { executeMeanwhile } from "../support/execute-meanwhile.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { emptyDatabase, inPlaceOptionsFor, optionsFor, snapshotOf } from "../support/restoring.ts";

describe.each(postgresMajors)("restoring rows into a PostgreSQL %i database with traps of its own", (major) => {
  test("reads NULL in an array as NULL although the role has array_nulls off", async () => {
    await using database = await createDatabase(major, "create table t (a text[]); insert into t values ('{x,NULL}')");
    await using snapshot = await snapshotOf(database.url);
    await database.query(`alter database ${database.name} set array_nulls = off`);

    await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    expect(await database.query("select a[2] is null from t")).toEqual([["t"]]);
  });

  test("keeps a trigger of a partition alone from changing rows", async () => {
    await using database = await createDatabase(
      major,
      `create table t (i int, changed text) partition by list (i); create table t1 partition of t for values in (1);
       create function touch() returns trigger language plpgsql as $$ begin new.changed = 'by trigger'; return new; end $$;
       insert into t values (1, 'by hand');
       create trigger touch before insert on t1 for each row execute function touch()`,
    );
    await using snapshot = await snapshotOf(database.url);

    await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    expect(await database.query("select * from t")).toEqual([["1", "by hand"]]);
    expect(await database.query("select tgenabled from pg_trigger where not tgisinternal")).toEqual([["O"]]);
  });

  test("leaves the rows of an extension's table that came with the extension", async () => {
    await using database = await createDatabase(
      major,
      `create table settings (name text primary key, own boolean); insert into settings values ('given', false), ('mine', true);
       alter extension plpgsql add table settings;
       update pg_extension set extconfig = array['settings'::regclass::oid], extcondition = array['WHERE own'] where extname = 'plpgsql'`,
    );
    await using snapshot = await snapshotOf(database.url);
    await database.query("delete from settings where own; insert into settings values ('later', true)");

    const result = await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    expect(result.tables).toMatchObject([{ name: "settings", deleted: 1, inserted: 1 }]);
    expect(await database.query("select name from settings order by name")).toEqual([["given"], ["mine"]]);
  });

  test("leaves the rows of a partition that the job leaves out", async () => {
    await using database = await createDatabase(
      major,
      `create table t (i int) partition by list (i); create table t1 partition of t for values in (1);
       create table t2 partition of t for values in (2); insert into t values (1), (2)`,
    );
    await using snapshot = await snapshotOf(database.url, { choose: chooseTable({ exclude: ["t2"] }) });

    await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    expect(await database.query("select * from t order by 1")).toEqual([["1"], ["2"]]);
  });

  test("leaves the rows of a partition whose definition alone is stored", async () => {
    await using database = await createDatabase(
      major,
      `create table t (i int) partition by list (i); create table t1 partition of t for values in (1);
       create table t2 partition of t for values in (2); insert into t values (1), (2)`,
    );
    await using snapshot = await snapshotOf(database.url, { choose: chooseTable({ schemaOnly: ["t2"] }) });

    await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    expect(await database.query("select * from t order by 1")).toEqual([["1"], ["2"]]);
  });

  test("leaves the rows of a partition that is a foreign table", async () => {
    await using database = await createDatabase(
      major,
      `create extension postgres_fdw; create table far (i int); insert into far values (2);
       create table t (i int) partition by list (i); create table t1 partition of t for values in (1); insert into t values (1)`,
    );
    const url = new URL(database.url);
    await database.query(
      `create server loop foreign data wrapper postgres_fdw options (host '${url.hostname}', port '${url.port}', dbname '${database.name}');
       create user mapping for current_user server loop options (user '${url.username}', password '${url.password}');
       create foreign table t2 partition of t for values in (2) server loop options (table_name 'far')`,
    );
    await using snapshot = await snapshotOf(database.url);

    await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader, { tables: ["t"] }));

    expect(await database.query("select * from t order by 1")).toEqual([["1"], ["2"]]);
  });

  test("refuses a root that has got a foreign table for a partition since", async () => {
    await using database = await createDatabase(
      major,
      `create extension postgres_fdw; create server far foreign data wrapper postgres_fdw;
       create table t (i int) partition by list (i); create table t1 partition of t for values in (1); insert into t values (1)`,
    );
    await using snapshot = await snapshotOf(database.url);
    await database.query("create foreign table t2 partition of t for values in (2) server far");

    const restored = restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    await expect(restored).rejects.toMatchObject({ kind: "refused", code: "foreign-partition" });
  });

  test("restores one partition alone without deleting what refers to its root, or changing rows by the root's trigger", async () => {
    await using database = await createDatabase(
      major,
      `create table t (i int primary key, changed text) partition by list (i); create table t1 partition of t for values in (1);
       create table t2 partition of t for values in (2); insert into t values (1, 'by hand'), (2, 'by hand');
       create table note (i int references t on delete cascade); insert into note values (1), (2);
       create function touch() returns trigger language plpgsql as $$ begin new.changed = 'by trigger'; return new; end $$;
       create trigger touch before insert on t for each row execute function touch()`,
    );
    await using snapshot = await snapshotOf(database.url);

    await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader, { tables: ["t1"] }));

    expect(await database.query("select * from note order by 1")).toEqual([["1"], ["2"]]);
    expect(await database.query("select * from t order by 1")).toEqual([
      ["1", "by hand"],
      ["2", "by hand"],
    ]);
    expect(await database.query("select distinct tgenabled from pg_trigger where not tgisinternal")).toEqual([["O"]]);
  });

  test("passes by a rule that would delete rows of other tables", async () => {
    await using database = await createDatabase(
      major,
      `create table t (i int); create table log (i int); insert into t values (1); insert into log values (1);
       create rule also as on delete to t do also delete from log where i = old.i`,
    );
    await using snapshot = await snapshotOf(database.url);

    await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader, { tables: ["t"] }));

    expect(await database.query("select * from log")).toEqual([["1"]]);
    expect(await database.query("select ev_enabled from pg_rewrite where rulename = 'also'")).toEqual([["O"]]);
  });

  test("lets event triggers find what they call by the search_path of the role, and tells what they write to", async () => {
    await using database = await createDatabase(
      major,
      `create table p (id int primary key); create table c (id int references p deferrable); insert into p values (1); insert into c values (1);
       create function note() returns trigger language plpgsql as $$ begin return new; end $$; create trigger note before insert on c for each row execute function note();
       create rule quiet as on delete to p do also nothing; create table log (tag text); create function write_down(text) returns void language sql as 'insert into log values ($1)';
       create function seen() returns event_trigger language plpgsql as $$ begin perform write_down(tg_tag); end $$;
       create event trigger at_start on ddl_command_start execute function seen(); create event trigger at_end on ddl_command_end execute function seen();
       create event trigger at_drop on sql_drop execute function seen()`,
    );
    await using snapshot = await snapshotOf(database.url);
    await database.query("delete from c");
    const options = inPlaceOptionsFor(database.url, snapshot.reader);

    const quiet = await restoreSnapshot({ ...options, tables: ["public.p", "public.c"] });
    const all = await restoreSnapshot(options);

    expect(await database.query("select id from c")).toEqual([["1"]]);
    expect(await database.query("select count(*) > 0 from log where tag = 'ALTER TABLE'")).toEqual([["t"]]);
    expect(quiet.warnings.join()).not.toMatch(/event trigger/);
    expect(all.warnings).toContain(
      "public.log differs from the snapshot: an event trigger has written to it meanwhile",
    );
  });

  test("calls no operator of people when it reads catalogs, however near its types are", async () => {
    await using database = await createDatabase(
      major,
      `create table p (id int primary key); create table c (id serial references p) partition by range (id);
       create table c1 partition of c for values from (0) to (9); insert into p values (1); insert into c values (1);
       create materialized view v as select id from c`,
    );
    await using snapshot = await snapshotOf(database.url);
    await database.query(
      `delete from c; refresh materialized view v;
       create function near(oid, regclass) returns bool language plpgsql as $$ begin raise exception 'called'; end $$;
       create operator = (leftarg = oid, rightarg = regclass, function = near)`,
    );

    const { warnings } = await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    expect(warnings).toEqual([]);
    expect(await database.query("select id from v")).toEqual([["1"]]);
  });

  test("refuses a composite type whose attributes stand in another order", async () => {
    await using database = await createDatabase(
      major,
      "create type place as (street text, city text); create table t (p place); insert into t values (row('Elm', 'Ulm'))",
    );
    await using snapshot = await snapshotOf(database.url);
    await database.query(
      "drop table t; drop type place; create type place as (city text, street text); create table t (p place)",
    );

    const restored = restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    await expect(restored).rejects.toMatchObject({ kind: "refused", code: "drift" });
  });

  test("refuses a domain over a narrower type", async () => {
    await using database = await createDatabase(
      major,
      "create domain price as numeric(10,2) default 0 check (value > 0); create table t (p price); insert into t values (1.25)",
    );
    await using snapshot = await snapshotOf(database.url);
    await database.query(
      "drop table t; drop domain price; create domain price as numeric(10,1); create table t (p price)",
    );

    const restored = restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    await expect(restored).rejects.toMatchObject({ kind: "refused", code: "drift" });
  });

  test("refuses a column that was computed in the snapshot and is stored in the target", async () => {
    await using database = await createDatabase(
      major,
      "create table t (i int, twice int generated always as (i * 2) stored); insert into t values (1)",
    );
    await using snapshot = await snapshotOf(database.url);
    await database.query("alter table t alter column twice drop expression");

    const restored = restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    await expect(restored).rejects.toMatchObject({ kind: "refused", code: "drift" });
  });

  test("takes a sequence that belongs to a column that holds no numbers", async () => {
    await using database = await createDatabase(
      major,
      `create sequence s; create table t (code text default 'A-' || nextval('s'), u uuid, n numeric);
       alter sequence s owned by t.code; insert into t default values;
       create table big (i bigint); create sequence b owned by big.i; insert into big values (9007199254740993);
       create sequence v owned by t.u; create sequence w owned by t.n; update t set u = gen_random_uuid(), n = 'NaN'; select nextval('v'), nextval('w')`,
    );
    await using snapshot = await snapshotOf(database.url);

    await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    expect(await database.query("select nextval('s'), nextval('b')")).toEqual([["2", "9007199254740994"]]);
  });

  test("keeps out who would write between the safety snapshot and the restore", async () => {
    await using database = await createDatabase(major, "create table t (i int); insert into t values (1)");
    await using snapshot = await snapshotOf(database.url);
    let written = "";
    const takeSafetySnapshot = async () => {
      written = await database.query("set lock_timeout = '100ms'; insert into t values (2)").then(
        () => "written",
        (error: Error) => error.message,
      );
      return { id: "safe", warnings: [], discard: async () => undefined };
    };

    await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader, { takeSafetySnapshot }));

    expect(written).toMatch(/lock timeout/);
  });

  test("takes a safety snapshot of empty tables too, or undo would put back what is older", async () => {
    await using database = await createDatabase(major, "create table t (i int); insert into t values (1)");
    await using snapshot = await snapshotOf(database.url);
    await database.query("delete from t");

    const result = await restoreSnapshot(
      inPlaceOptionsFor(database.url, snapshot.reader, {
        takeSafetySnapshot: async () => ({ id: "safe", warnings: [], discard: async () => undefined }),
      }),
    );

    expect(result.safetySnapshot).toBe("safe");
  });

  test("needs no default for a table that had no columns", async () => {
    await using database = await createDatabase(major, "create table t (); insert into t default values");
    await using snapshot = await snapshotOf(database.url);
    await database.query("alter table t add column a text default 'd'");

    await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    expect(await database.query("select a from t")).toEqual([["d"]]);
  });

  test("says how to allow writing where it is off by default, and is not misled by other settings", async () => {
    await using database = await createDatabase(major, "create table t (a text); insert into t values ('x')");
    await using snapshot = await snapshotOf(database.url);
    const set = (setting: string) => database.query(`alter database ${database.name} set ${setting}`);
    for (const setting of ["session_replication_role = replica", "search_path = nowhere"]) {
      await set(setting);
    }
    await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));
    await set("default_transaction_read_only = on");

    const restored = restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader));

    await expect(restored).rejects.toMatchObject({ code: "read-only", hint: expect.stringMatching(/read_only off/) });
  });
});

describe.each(postgresMajors)("making a PostgreSQL %i database with traps of its own", (major) => {
  test("does not delete a database because one of its schemas has the marker's name", async () => {
    await using source = await createDatabase(major, "create table t (i int)");
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);
    const { default: pg } = await import("pg");
    const client = new pg.Client({ connectionString: target.ownerUrl });
    await client.connect();
    await client.query("create table precious (i int); insert into precious values (1); create schema rowkeep_restore");
    await client.end();

    const restored = restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

    await expect(restored).rejects.toMatchObject({ kind: "refused" });
    expect(await target.query("select * from precious")).toEqual([["1"]]);
  });

  test("refuses a database that another restore is filling, and leaves that one alone", async () => {
    await using source = await createDatabase(major, "create table t (i int); insert into t values (1), (2)");
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);
    const { reader } = snapshot;
    let other: Promise<unknown> | undefined;
    // Its rows wait until the other one has ended: a small table would be there before that one has connected.
    const waiting = readerWith(reader, {
      async *chunks(refs, how) {
        other ??= restoreIntoEmpty(optionsFor(target.ownerUrl, reader)).catch((error: unknown) => error);
        await other;
        yield* reader.chunks(refs, how);
      },
    });

    await restoreIntoEmpty(optionsFor(target.ownerUrl, waiting));

    expect(await other).toMatchObject({ kind: "refused", code: "busy" });
    expect(await target.query("select count(*) from t")).toEqual([["2"]]);
  });

  test("names the error that ended it although the server is gone, and says that the target is not empty", async () => {
    await using source = await createDatabase(major, "create table t (i int); insert into t values (1)");
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);
    const warnings: string[] = [];

    const restored = restoreIntoEmpty(
      optionsFor(target.ownerUrl, snapshot.reader, {
        report: (event) => {
          if (event.type === "warning") warnings.push(event.message);
          if (event.type !== "table-start") return;
          executeMeanwhile(
            target.url,
            `alter role maker_${target.name} nologin; select pg_terminate_backend(pid) from pg_stat_activity where usename = 'maker_${target.name}'`,
          );
          throw new Error("the first error");
        },
      }),
    );

    await expect(restored).rejects.toThrow("the first error");
    expect(warnings.join()).toMatch(/could not be emptied again/);
  });

  test("outlives an idle_session_timeout", async () => {
    await using source = await createDatabase(
      major,
      "create table t (i int); insert into t select generate_series(1, 300000)",
    );
    await using snapshot = await snapshotOf(source.url);
    await using target = await emptyDatabase(major);
    await target.query(`alter database ${target.name} set idle_session_timeout = '30ms'`);

    await restoreIntoEmpty(
      optionsFor(target.ownerUrl, snapshot.reader, {
        confirm: async () => {
          await new Promise((r) => setTimeout(r, 300));
          return true;
        },
      }),
    );
    expect(await target.query("select count(*) from t")).toEqual([["300000"]]);
  });
});
