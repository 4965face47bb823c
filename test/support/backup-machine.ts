import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateKeyPair } from "../../src/archive/age-keys.ts";
import { openDestination } from "../../src/destinations/open-destination.ts";
import { findHome } from "../../src/job/home.ts";
import { readJob } from "../../src/job/read-job.ts";
import { openSnapshotReader } from "../../src/snapshot/open-snapshot-reader.ts";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { openRepository } from "../../src/snapshot/repository.ts";
import { createKeyRing } from "../../src/snapshot/snapshot-key.ts";
import { acknowledgeAnomalies } from "../../src/usecases/anomaly-brake.ts";
import type { RunResult } from "../../src/usecases/run-databases.ts";
import { runJob } from "../../src/usecases/run-job.ts";
import { type Content, contentOf } from "./increments.ts";

const never = new AbortController().signal;
const PREFIX = "shop/postgres";

/** A machine that runs a job of the database `postgres`, and one beside it that has the secret key. */
export interface BackupMachine extends AsyncDisposable {
  /** Runs the job; `keepLast` is its retention at this time. */
  run(
    kind: "full" | "incremental",
    more?: { readonly keepLast?: number | undefined; readonly signal?: AbortSignal | undefined },
  ): Promise<RunResult>;
  /** Ids of all snapshots that can be listed, the oldest first. */
  ids(): Promise<readonly string[]>;
  manifestOf(id: string): Promise<Manifest>;
  contentOf(id: string): Promise<Content>;
  /** Leaves what a run leaves that was killed while it stored this snapshot. */
  leaveRemains(id: string): Promise<void>;
  /** Forgets what only this machine knows. */
  forget(): Promise<void>;
}

export async function openMachine(url: string, isEncrypted: boolean): Promise<BackupMachine> {
  const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  const backups = join(folder, "backups");
  const home = findHome({ homeFlag: join(folder, "home"), env: {} });
  const destination = await openDestination({ type: "local", path: backups }, { signal: never });
  const { identity, recipient } = await generateKeyPair();
  const keys = isEncrypted ? createKeyRing({ identities: [identity] }) : undefined;
  // One with one connection, one with several.
  const encryption = isEncrypted ? `parallel: 1\nencryption: { recipients: ["${recipient}"] }\n` : "";
  const repository = openRepository(destination, PREFIX, { keys });
  const readJobWith = async (keepLast: number | undefined) => {
    const path = join(folder, "shop.yaml");
    await writeFile(
      path,
      `version: 1\nname: shop\nsource: { url: "${url}" }\ndestinations: [{ type: local, path: "${backups}" }]\n` +
        `schedule: { full: "0 2 * * sun", incremental: "0 * * * *" }\n${encryption}` +
        (keepLast === undefined ? "" : `retention: { keepLast: ${keepLast} }\n`),
    );
    return readJob(path, home, { cwd: folder });
  };
  const quiet = { env: {}, node: "test", now: () => new Date(), report: () => undefined, stallTimeoutMs: 60_000 };
  return {
    async run(kind, { keepLast, signal = never } = {}) {
      const job = await readJobWith(keepLast);
      if (keepLast !== undefined) {
        // The histories empty and drop tables: nobody is asked about it before a prune.
        const looked = { job, prefix: PREFIX, destinations: [destination], keys, now: new Date(), signal: never };
        await acknowledgeAnomalies({ ...looked, warn: () => undefined });
      }
      return runJob({ ...quiet, job, kind, home, signal });
    },
    ids: () => repository.ids({ signal: never }),
    manifestOf: async (id) => (await repository.open(id, { signal: never })).manifest,
    async contentOf(id) {
      const opened = await repository.open(id, { signal: never });
      await using reader = openSnapshotReader({
        destinations: [destination],
        prefix: PREFIX,
        ...opened,
        keys,
        signal: never,
      });
      return await contentOf(reader);
    },
    async leaveRemains(id) {
      const place = join(backups, PREFIX, id);
      await mkdir(place, { recursive: true });
      await writeFile(join(place, "volume-0001.tar"), "half a volume");
    },
    async forget() {
      // Before the first run there is nothing to forget.
      await rm(join(home.state, "bases"), { recursive: true, force: true });
    },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}
