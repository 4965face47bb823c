import { writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { useCliPlace } from "../support/cli-place.ts";
import { createDatabase, type TestDatabase } from "../support/postgres.ts";

const place = useCliPlace();
const { cli } = place;

interface Listed {
  readonly id: string;
  readonly database: string;
}

/** A job with two databases of one server. */
async function writeJob(first: TestDatabase, second: TestDatabase): Promise<void> {
  await writeFile(
    place.file,
    `version: 1\nname: m\nsource: { url: "${first.url}" }\ndatabases: [${first.name}, ${second.name}]\ndestinations: [{ type: local, path: ./backups }]\n`,
  );
}

async function listed(): Promise<readonly Listed[]> {
  const { exitCode, last } = await cli("list", place.file, "--json");
  expect(exitCode).toBe(0);
  return last()["snapshots"] as readonly Listed[];
}

test("all snapshots of a job have ids of their own, also those of one second", async () => {
  await using shop = await createDatabase(18, "create table t (i int); insert into t values (1)");
  await using crm = await createDatabase(18, "create table t (i int); insert into t values (2)");
  await writeJob(shop, crm);

  const runs = [await cli("run", place.file), await cli("run", place.file), await cli("run", place.file)];

  expect(runs.map(({ exitCode }) => exitCode)).toEqual([0, 0, 0]);
  const ids = (await listed()).map(({ id }) => id);
  expect(ids).toHaveLength(6);
  expect(new Set(ids).size).toBe(6);
});
