import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { Destination } from "../../src/destinations/destination.ts";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { findHome } from "../../src/job/home.ts";
import { readJob } from "../../src/job/read-job.ts";
import { openStateStore } from "../../src/job/state-store.ts";
import { readBrake } from "../../src/usecases/anomaly-brake.ts";
import { chooseBase } from "../../src/usecases/choose-base.ts";
import { openBaseKeeper } from "../../src/usecases/keep-base.ts";
import { pruneDatabase } from "../../src/usecases/prune-database.ts";
import { createFolder, never as signal, PREFIX as prefix, writeSample } from "../snapshot/sample-snapshot.ts";

const SNAPSHOTS = 100;

test("an incremental reads one manifest for the brake, each once for its base, and each once more to prune", async () => {
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
  const base = await readBy(() =>
    chooseBase({ destinations, prefix, lock: undefined, keys: undefined, keeper, signal }),
  );
  const prune = await readBy(() => pruneDatabase({ job, prefix, destinations, state, signal, ...pruning }));

  expect(brake).toBe(1);
  // Those that are tried as a base are opened besides.
  expect(base).toBeLessThanOrEqual(SNAPSHOTS + 10);
  expect(prune).toBe(SNAPSHOTS);
});
