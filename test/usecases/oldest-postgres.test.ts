import { describe, expect, test } from "vitest";
import { readDefinitions } from "../../src/drivers/postgres/definitions/read-definitions.ts";
import { restoreIntoEmpty } from "../../src/usecases/restore-create.ts";
import { restoreSnapshot } from "../../src/usecases/restore-snapshot.ts";
import { openLeader } from "../support/leader.ts";
import { createDatabase } from "../support/postgres.ts";
import { hasOldest } from "../support/postgres-server.ts";
import { failInCi } from "../support/services.ts";
import { emptyDatabase, fixture, inPlaceOptionsFor, optionsFor, snapshotOf } from "../support/restoring.ts";

const TOUCHED = `
  create table t (i int primary key, changed text) partition by list (i);
  create table t1 partition of t for values in (1); create table t2 partition of t for values in (2);
  insert into t values (1, 'by hand'), (2, 'by hand');
  create function touch() returns trigger language plpgsql as $$ begin new.changed = 'by trigger'; return new; end $$;
  create trigger touch before insert on t for each row execute function touch();
  create trigger off before insert on t for each row execute function touch(); alter table t1 disable trigger off`;
const STATES = "select tgrelid::regclass::text, tgname, tgenabled from pg_trigger where tgconstraint = 0 order by 1, 2";

if (!hasOldest) failInCi("needs PostgreSQL 13: npm run services");

describe.runIf(hasOldest)("PostgreSQL 13, the oldest version", () => {
  test("restores a partition without the trigger that it has from its root, and leaves all of them as they were", async () => {
    await using database = await createDatabase(13, TOUCHED);
    await using snapshot = await snapshotOf(database.url);
    const before = await database.query(STATES);

    await restoreSnapshot(inPlaceOptionsFor(database.url, snapshot.reader, { tables: ["t1"] }));

    expect(await database.query("select * from t order by 1")).toEqual([
      ["1", "by hand"],
      ["2", "by hand"],
    ]);
    expect(await database.query(STATES)).toEqual(before);
  });

  test.each(["music-store", "triggers"])(
    "makes a database from the definitions and rows of another one: %s",
    async (name) => {
      await using source = await createDatabase(13, name === "triggers" ? TOUCHED : fixture(name));
      await using snapshot = await snapshotOf(source.url);
      await using target = await emptyDatabase(13);

      await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));

      await using again = await snapshotOf(target.ownerUrl);
      const texts = [snapshot, again].map(({ reader }) => reader.manifest.definitions.map(({ sql }) => sql));
      const rows = [snapshot, again].map(({ reader }) =>
        reader.manifest.tables.map((table) => [table.name, table.rows]),
      );
      expect(texts[1]).toEqual(texts[0]);
      expect(rows[1]).toEqual(rows[0]);
      expect(await target.query(STATES)).toEqual(await source.query(STATES));
    },
  );

  test.each(["drop function f(int)", "drop aggregate ag(int)", "drop operator <<|>> (int, int)", "drop view v"])(
    "finds out what is gone when definitions are read: %s",
    async (change) => {
      await using database = await createDatabase(
        13,
        `create function f(int) returns int language sql as 'select 1'; create aggregate ag(int) (sfunc = int4pl, stype = int);
         create operator <<|>> (function = int4pl, leftarg = int, rightarg = int); create view v as select 1 as one`,
      );
      await using client = await openLeader(database.url);
      await client.query("select 1");
      await database.query(change);

      const reading = readDefinitions((sql, values) => client.query(sql, values), {
        serverVersion: client.serverVersion,
        excluded: new Set(),
      });

      await expect(reading).rejects.toMatchObject({ code: "schema-changed" });
    },
  );
});
