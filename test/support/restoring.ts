import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openDestination } from "../../src/destinations/open-destination.ts";
import { openSnapshotReader } from "../../src/snapshot/open-snapshot-reader.ts";
import type { SnapshotReader } from "../../src/snapshot/snapshot-reader.ts";
import { type BackUpOptions, backUp } from "../../src/usecases/back-up.ts";
import type { CreateOptions } from "../../src/usecases/restore-create.ts";
import type { RestoreOptions } from "../../src/usecases/restore-snapshot.ts";
import { backUpOptions } from "./back-up-options.ts";
import { connectionOfUrl } from "./connection.ts";
import { pgTool } from "./pg-tools.ts";
import { createDatabase, queryServer, type TestDatabase } from "./postgres.ts";
import type { AnyPostgres } from "./postgres-server.ts";

const signal = new AbortController().signal;

/** The text of a file of test/fixtures/sql. */
export function fixture(name: string): string {
  return readFileSync(new URL(`../fixtures/sql/${name}.sql`, import.meta.url), "utf8");
}

interface Snapshot extends AsyncDisposable {
  readonly reader: SnapshotReader;
}

/** Backs a database up into a folder that disposal removes. */
export async function snapshotOf(url: string, more: Partial<BackUpOptions> = {}): Promise<Snapshot> {
  const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  const destination = await openDestination({ type: "local", path: join(folder, "backups") }, { signal });
  const { manifest } = await backUp(backUpOptions(url, { folder, destinations: [destination] }, more));
  const reader = openSnapshotReader({ destinations: [destination], prefix: "shop/shop", manifest, signal });
  return { reader, [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }) };
}

/** An empty database whose owner is an ordinary role of its own. */
export async function emptyDatabase(major: AnyPostgres): Promise<TestDatabase & { readonly ownerUrl: string }> {
  const database = await createDatabase(major);
  const owner = `maker_${database.name}`;
  await database.query(`create role ${owner} login password 'pw'; alter database ${database.name} owner to ${owner}`);
  return {
    ...database,
    ownerUrl: database.urlFor(owner, "pw"),
    async [Symbol.asyncDispose]() {
      await database[Symbol.asyncDispose]();
      await queryServer(major, `drop role ${owner}`).catch(() => undefined);
    },
  };
}

/** Options that ask nobody and restore neither rights nor owners. */
export function optionsFor(url: string, reader: SnapshotReader, more: Partial<CreateOptions> = {}): CreateOptions {
  return {
    reader,
    target: connectionOfUrl(url),
    planOnly: false,
    confirm: async () => true,
    parallel: 2,
    grants: false,
    owners: false,
    stallTimeoutMs: 60_000,
    signal,
    report: () => undefined,
    ...more,
  };
}

const NO_ROLES = ["--no-owner", "--no-privileges"];

/** Options that replace the rows of a database's tables and ask nobody. */
export function inPlaceOptionsFor(
  url: string,
  reader: SnapshotReader,
  more: Partial<RestoreOptions> = {},
): RestoreOptions {
  return {
    reader,
    target: connectionOfUrl(url),
    isNamed: true,
    planOnly: false,
    confirm: async () => true,
    allowConversion: false,
    ignoreMissing: false,
    stallTimeoutMs: 60_000,
    signal,
    report: () => undefined,
    ...more,
  };
}

/** The whole dump, rows and definitions, without what is random. */
export function dump(major: 15 | 18, url: string, options: readonly string[] = NO_ROLES): string {
  const tool = pgTool("pg_dump", major);
  if (!tool) throw new Error("pg_dump is missing: run npm run services");
  const text = execFileSync(tool, [...options, url], { encoding: "utf8", maxBuffer: 256 << 20 });
  return text.replace(/^\\(un)?restrict .*$/gm, "").replace(/^-- (Name|Data for Name): [^;]*;/gm, "");
}
