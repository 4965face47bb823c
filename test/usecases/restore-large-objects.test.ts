import { describe, expect, test } from "vitest";
import { restoreIntoEmpty } from "../../src/usecases/restore-create.ts";
import { restoreSnapshot } from "../../src/usecases/restore-snapshot.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { inPlaceOptionsFor, optionsFor, snapshotOf } from "../support/restoring.ts";

const STATE = `select oid, lomowner::regrole, lomacl, obj_description(oid, 'pg_largeobject'), md5(lo_get(oid))
                 from pg_largeobject_metadata order by 1`;

describe.each(postgresMajors)("restoring large objects of PostgreSQL %i in place", (major) => {
  test("gives them their bytes again, and leaves those that are there their owner, rights and comment", async () => {
    await using database = await createDatabase(major);
    const [app, writer] = [`app_${database.name}`, `writer_${database.name}`];
    try {
      await database.query(
        `create role ${app}; create role ${writer} login password 'pw'; select lo_from_bytea(78, decode(repeat('cd', 9000), 'hex')), lo_create(79), lo_from_bytea(80, 'gone');
         alter large object 78 owner to ${app}; grant select, update on large object 78, 79 to ${writer}; comment on large object 78 is 'of 78'`,
      );
      await using snapshot = await snapshotOf(database.url);
      const before = await database.query(STATE);
      await database.query(
        "select lo_put(78, 20000, 'more'), lo_put(78, 5, 'other'), lo_put(79, 0, 'some'), lo_unlink(80)",
      );

      await restoreSnapshot(inPlaceOptionsFor(database.urlFor(writer, "pw"), snapshot.reader));

      const last = before.at(-1)?.with(1, writer);
      expect(await database.query(STATE)).toEqual(before.with(-1, last ?? []));
    } finally {
      await database.query(`drop owned by ${app}, ${writer}; drop role ${app}, ${writer}`);
    }
  });

  test("names them where owners come back in a new database, as theirs are in no snapshot", async () => {
    await using source = await createDatabase(major, "select lo_create(78), lo_create(79); create table t ()");
    const app = `app_${source.name}`;
    await source.query(`create role ${app}; alter table t owner to ${app}`);
    try {
      await using snapshot = await snapshotOf(source.url);
      await using target = await createDatabase(major);

      const { warnings } = await restoreIntoEmpty(optionsFor(target.url, snapshot.reader, { owners: true }));

      expect(warnings).toEqual([
        expect.stringMatching(/^2 large objects belong to \w+ now: a snapshot does not hold their owners$/),
      ]);
      await target.query(`drop owned by ${app}`);
    } finally {
      await source.query(`drop owned by ${app}; drop role ${app}`);
    }
  });
});
