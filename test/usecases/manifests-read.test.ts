import { readFile, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { Destination } from "../../src/destinations/destination.ts";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { findHome } from "../../src/job/home.ts";
import { readJob } from "../../src/job/read-job.ts";
import { openStateStore } from "../../src/job/state-store.ts";
import { openSummaryStore } from "../../src/job/summary-store.ts";
import { readBrake } from "../../src/usecases/anomaly-brake.ts";
import { chooseBase } from "../../src/usecases/choose-base.ts";
import { openBaseKeeper } from "../../src/usecases/keep-base.ts";
import { pruneDatabase } from "../../src/usecases/prune-database.ts";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { parseSnapshotId } from "../../src/snapshot/snapshot-id.ts";
import { createFolder, never as signal, PREFIX as prefix, writeSample } from "../snapshot/sample-snapshot.ts";

const SNAPSHOTS = 100;
const TRUST = {
  systemIdentifier: "7",
  databaseOid: "5",
  timeline: "00000001",
  startedAt: "1.5",
  major: 18,
  snapshot: "9:9:",
  xmin: "9",
  lsn: "1",
};

test("an incremental reads one manifest for the brake, for its base those that are new, and each once to prune", async () => {
  await using folder = await createFolder();
  const near = await openLocalDestination({ type: "local", name: "near", path: join(folder.path, "near") }, { signal });
  for (let index = 0; index < SNAPSHOTS; index += 1) {
    const takenAt = new Date(Date.UTC(2026, 9, 1, index));
    const id = `${takenAt.toISOString().replaceAll(/[-:]|\.\d+/g, "")}-full`;
    const manifest = { createdAt: takenAt.toISOString() };
    await writeSample({ destinations: [near], spoolFolder: folder.spool, id, manifest });
  }
  const path = join(folder.path, "shop.yaml");
  await writeFile(
    path,
    'version: 1\nname: shop\nsource: { url: "postgres://u@h/shop" }\ndestinations: [{ type: local, name: near, path: near }]\nretention: { keepLast: 200 }\n',
  );
  const home = findHome({ homeFlag: folder.path, env: {} });
  const job = await readJob(path, home, { cwd: folder.path });
  using state = await openStateStore(home, () => undefined);
  const reads: string[] = [];
  const counting: Destination = {
    name: near.name,
    put: (...args) => near.put(...args),
    get: (...args) => {
      reads.push(args[0]);
      return near.get(...args);
    },
    stat: (...args) => near.stat(...args),
    list: (...args) => near.list(...args),
    remove: (...args) => near.remove(...args),
    [Symbol.asyncDispose]: async () => undefined,
  };
  const readBy = async (act: () => Promise<unknown>) => {
    reads.length = 0;
    await act();
    return reads.length;
  };
  const destinations = [counting];
  const keeper = openBaseKeeper(join(folder.path, "bases"));
  const pruning = { home, now: new Date("2026-11-03"), dryRun: false, acceptMissing: false, report: () => undefined };

  const brake = await readBy(() => readBrake({ job, prefix, destinations, state, signal }));
  const { read } = await readBrake({ job, prefix, destinations, state, signal });
  const choose = async (known?: typeof read) => {
    using cache = await openSummaryStore(home);
    const memory = { keeper, cache, read: known };
    return await chooseBase({ destinations, prefix, lock: undefined, keys: undefined, ...memory, signal });
  };
  const first = await readBy(choose);
  const second = await readBy(choose);
  const third = await readBy(() => choose(read));
  const prune = await readBy(() => pruneDatabase({ job, prefix, destinations, state, signal, ...pruning }));

  expect(brake).toBe(1);
  // Those that are tried as a base are opened, twice.
  expect(first).toBeLessThanOrEqual(SNAPSHOTS + 20);
  expect(second).toBeLessThanOrEqual(20);
  expect(third).toBe(second - 1);
  expect(prune).toBe(SNAPSHOTS);
});

test("a manifest that rotted is no base, nor one that refers to it, though what it said is remembered", async () => {
  await using folder = await createFolder();
  const near = await openLocalDestination({ type: "local", name: "near", path: join(folder.path, "near") }, { signal });
  const home = findHome({ homeFlag: folder.path, env: {} });
  const write = (id: string, base?: Manifest) =>
    writeSample({
      destinations: [near],
      spoolFolder: folder.spool,
      id,
      manifest: {
        createdAt: parseSnapshotId(id)?.takenAt.toISOString() ?? "",
        kind: base ? "incremental" : "full",
        trust: TRUST,
      },
      ...(base ? { base, adopts: () => true } : {}),
    });
  const full = await write("20261001T000000Z-full");
  await write("20261002T000000Z-incremental", full);
  const choose = async () => {
    using cache = await openSummaryStore(home);
    const keeper = openBaseKeeper(join(folder.path, "bases"));
    const options = { destinations: [near], prefix, lock: undefined, keys: undefined, keeper, cache, signal };
    return await chooseBase(options);
  };
  const before = await choose();
  const path = join(folder.path, "near", prefix, full.id, "manifest.json");
  const { atime, mtime } = await stat(path);
  const text = await readFile(path, "utf8");
  await writeFile(path, text.replace("orders", "0rders"));
  await utimes(path, atime, mtime);

  const after = await choose();

  expect(before.base?.reader.manifest.id).toBe("20261002T000000Z-incremental");
  expect(after.base).toBeUndefined();
  expect(after.reason).toMatch(/^20261002T000000Z-incremental cannot be used: .*20261001T000000Z-full/);
});
