import { expect, test } from "vitest";
import { planUnits } from "../../src/plan/plan-restore.ts";
import { diffSnapshots } from "../../src/usecases/diff-snapshots.ts";
import { restoreRows } from "../../src/usecases/restore-rows.ts";
import { connectionOfUrl } from "../support/connection.ts";
import { createDatabase, postgresMajors } from "../support/postgres.ts";
import { fixture, snapshotOf } from "../support/restoring.ts";

const signal = new AbortController().signal;
const report = () => undefined;

test.each(postgresMajors)("chosen rows of every type come back as they were to PostgreSQL %i", async (major) => {
  await using database = await createDatabase(major, fixture("every-type"));
  await using before = await snapshotOf(database.url);
  const { manifest } = before.reader;
  const units = planUnits(manifest.tables, manifest.tables).filter(({ parts }) => parts[0]?.format === "text");
  const options = {
    reader: before.reader,
    target: connectionOfUrl(database.url),
    isNamed: false,
    planOnly: false,
    confirm: async () => true,
    allowConversion: false,
    stallTimeoutMs: 60_000,
    signal,
    report,
  };

  let merged = 0;
  for (const { table, parts } of units) {
    const tables = [`"${table.schema}"."${table.name.replaceAll('"', '""')}"`];
    const key = parts[0]?.primaryKey.length ?? 0;
    await restoreRows({ ...options, tables, mode: key > 0 ? "upsert" : "replace" });
    await database.query(`delete from "${table.schema}"."${table.name.replaceAll('"', '""')}"`);
    const { tables: done } = await restoreRows({ ...options, tables, mode: "replace" });
    merged += done[0]?.inserted ?? 0;
  }

  await using after = await snapshotOf(database.url);
  const left = before.reader;
  const result = await diffSnapshots({ left, right: after.reader, rows: true, parallel: 2, signal, report });
  expect(merged).toBeGreaterThan(20);
  expect(result.tables.filter(({ equal }) => !equal)).toEqual([]);
});
