import { describe, expect, test } from "vitest";
import type { SnapshotReader } from "../../src/snapshot/snapshot-reader.ts";
import { restoreIntoEmpty } from "../../src/usecases/restore-create.ts";
import { createDatabase, postgresMajors, type TestDatabase } from "../support/postgres.ts";
import { emptyDatabase, optionsFor, snapshotOf } from "../support/restoring.ts";

/** Without owners: each generation belongs to the role that made it. */
const definitionsOf = (reader: SnapshotReader) =>
  reader.manifest.definitions.map((definition) => ({ ...definition, owner: undefined }));

/** Restores a database into an empty one and backs that up; its definitions must be the same, with nothing to tell. */
async function restoreAnew(source: TestDatabase, target: { readonly url: string; readonly ownerUrl: string }) {
  await using snapshot = await snapshotOf(source.url);
  const { warnings } = await restoreIntoEmpty(optionsFor(target.ownerUrl, snapshot.reader));
  await using again = await snapshotOf(target.url);
  expect(warnings).toEqual([]);
  expect(definitionsOf(again.reader)).toEqual(definitionsOf(snapshot.reader));
}

describe.each(postgresMajors)("a database made anew in PostgreSQL %i", (major) => {
  test("has the names of what a domain demands, with comments", async () => {
    await using source = await createDatabase(
      major,
      `create domain d as int constraint given not null constraint pos check (value > 0); comment on constraint pos on domain d is 'of pos';
       create domain plain as text not null; create domain free as text; create table t (d d, p plain); insert into t values (1, '')`,
    );
    if (major >= 18) await source.query("comment on constraint given on domain d is 'of given'");
    await using target = await emptyDatabase(major);

    await restoreAnew(source, target);

    const constraints = `select conname, contypid::regtype, pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint')
                           from pg_constraint where contypid <> 0 and connamespace = 'public'::regnamespace order by contypid::regtype::text, conname`;
    expect(await target.query(constraints)).toEqual(await source.query(constraints));
    expect(await target.query(constraints)).toHaveLength(major >= 18 ? 3 : 1);
    await expect(target.query("insert into t (d) values (1)")).rejects.toThrow("plain does not allow null values");
  });
});
