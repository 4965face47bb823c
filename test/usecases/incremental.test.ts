import { describe, expect, test } from "vitest";
import { contentOf, methodsOf, openChain, truthOf } from "../support/increments.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";

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
