import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openObjectSink } from "../../src/archive/object-sink.ts";
import { openTarFileDestination } from "../../src/archive/tar-file-destination.ts";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { EXPORT_PREFIX, type ExportTo, exportDatabase, exportToFile } from "../../src/usecases/export-database.ts";
import { createFolder } from "../snapshot/sample-snapshot.ts";
import { connectionOfUrl } from "../support/connection.ts";
import { beginOnce, openSession, SOMEBODY_WAITS } from "../support/other-session.ts";
import { createDatabase } from "../support/postgres.ts";

const signal = new AbortController().signal;

/** As to a destination elsewhere. */
function exportToObject(folder: string): ExportTo {
  const open = async () => {
    const destination = await openLocalDestination({ type: "local", path: folder }, { signal });
    return openObjectSink({ destination, key: "shop.rowkeep", place: "shop.rowkeep", signal });
  };
  return { place: "shop.rowkeep", spoolParent: folder, open };
}

test.each(["file", "object"])(
  "an export that begins again leaves nothing of the first attempt in the %s",
  async (kind) => {
    await using database = await createDatabase(
      18,
      `create table a (t text); insert into a select gen_random_uuid()::text from generate_series(1, 100000);
     create table b (i int); insert into b values (1); analyze`,
    );
    await using folder = await createFolder();
    const path = join(folder.path, "shop.rowkeep");
    await using migration = await openSession(database.url);
    const altering = beginOnce(database.url, migration, "alter table b add column j int", SOMEBODY_WAITS);
    const ids: string[] = [];
    const more = {
      volumeBytes: 100_000,
      onBegin: (id: string) => {
        ids.push(id);
        altering.begin();
      },
    };

    const { manifest } = await exportDatabase({
      connection: connectionOfUrl(database.url),
      to: kind === "file" ? exportToFile(path) : exportToObject(folder.path),
      parallel: 1,
      stallTimeoutMs: 60_000,
      signal,
      report: () => undefined,
      ...more,
    });

    await altering.ended();
    expect(ids).toHaveLength(2);
    expect(manifest.tables.map(({ name, rows }) => [name, rows])).toEqual([
      ["a", 100_000],
      ["b", 1],
    ]);
    await using file = await openTarFileDestination({ path, prefix: EXPORT_PREFIX, signal });
    const keys: string[] = [];
    for await (const { key } of file.list("", { signal })) keys.push(key);
    expect(keys.filter((key) => key.includes("volume"))).toHaveLength(manifest.volumes.length);
    expect(await readdir(folder.path)).not.toEqual(expect.arrayContaining([expect.stringContaining("in-progress")]));
  },
);

test("an export refuses a pattern that matches no table, and leaves no file", async () => {
  await using database = await createDatabase(18, "create table a (i int); create table b (i int)");
  await using folder = await createFolder();
  const path = join(folder.path, "shop.rowkeep");

  const exporting = exportDatabase({
    connection: connectionOfUrl(database.url),
    to: exportToFile(path),
    tables: ["a", "bb"],
    parallel: 1,
    stallTimeoutMs: 60_000,
    signal,
    report: () => undefined,
  });

  await expect(exporting).rejects.toMatchObject({ kind: "usage", message: expect.stringContaining("bb") });
  expect(await readdir(folder.path)).toEqual(["store"]);
});
