import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openDestination } from "../../src/destinations/open-destination.ts";
import { openSnapshotReader } from "../../src/snapshot/open-snapshot-reader.ts";
import { openRepository } from "../../src/snapshot/repository.ts";
import type { SnapshotReader } from "../../src/snapshot/snapshot-reader.ts";
import { backUp } from "../../src/usecases/back-up.ts";
import { restoreRows, type RestoreRowsOptions } from "../../src/usecases/restore-rows.ts";
import { type RestoreResult, restoreSnapshot } from "../../src/usecases/restore-snapshot.ts";
import { takeSafetySnapshot } from "../../src/usecases/safety-snapshot.ts";
import { connectionOfUrl } from "../support/connection.ts";
import { createDatabase, queryServer, type TestDatabase } from "../support/postgres.ts";

const signal = new AbortController().signal;
const report = () => undefined;
const stallTimeoutMs = 60_000;

/** A database of an ordinary login that owns it, with one snapshot of it. */
export interface RowShop extends AsyncDisposable {
  readonly database: TestDatabase;
  /** Runs SQL as the owner and gives rows as text. */
  run(sql: string): Promise<string[]>;
  rows(options: Partial<RestoreRowsOptions>): Promise<RestoreResult>;
  undo(result: RestoreResult): Promise<unknown>;
}

/** Opens such a database and backs it up once. */
export async function openRowShop(major: 15 | 18, sql: string): Promise<RowShop> {
  const database = await createDatabase(major);
  const owner = `owner_${database.name}`;
  await database.query(
    `create role ${owner} login password 'pw'; alter database ${database.name} owner to ${owner};
     alter schema public owner to ${owner}`,
  );
  const connection = connectionOfUrl(database.urlFor(owner, "pw"));
  const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  const destination = await openDestination({ type: "local", path: join(folder, "backups") }, { signal });
  const run = async (text: string) =>
    (await database.query(`set role ${owner}; ${text}`)).map((row) => row.map((value) => value ?? "NULL").join("|"));
  await run(sql);
  const prefix = "shop/shop";
  const place = { destinations: [destination], prefix, stallTimeoutMs, signal, report };
  const common = { ...place, connection, job: "shop", spoolFolder: join(folder, "spool") };
  const { manifest } = await backUp({
    ...common,
    choose: () => "rows",
    parallel: 2,
    compression: { codec: "zstd", level: 2 },
    files: [],
  });
  const base = { target: connection, isNamed: false, planOnly: false, confirm: async () => true, ...place };
  const reader = openSnapshotReader({ ...place, manifest });
  const manifests = new Map<string, SnapshotReader>();
  return {
    database,
    run,
    rows: (options) =>
      restoreRows({
        ...base,
        reader,
        tables: ["t"],
        mode: "replace",
        allowConversion: false,
        takeSafetySnapshot: async (request) => {
          const safety = { ...common, restoredSnapshot: manifest.id, largeObjects: false };
          const taken = await takeSafetySnapshot(safety, request);
          const kept = await openRepository(destination, prefix).readManifest(taken.id, { signal });
          manifests.set(taken.id, openSnapshotReader({ ...place, manifest: kept }));
          return taken;
        },
        ...options,
      }),
    undo: (result) => {
      const kept = manifests.get(result.safetySnapshot ?? "");
      if (!kept) throw new Error("no safety snapshot was taken");
      return restoreSnapshot({ ...base, reader: kept, allowConversion: false, ignoreMissing: false });
    },
    async [Symbol.asyncDispose]() {
      await rm(folder, { recursive: true, force: true });
      await database[Symbol.asyncDispose]();
      await queryServer(major, `drop role ${owner}`).catch(() => undefined);
    },
  };
}
