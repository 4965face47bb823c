import { spawnSync } from "node:child_process";
import { linkSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findHome } from "../../src/job/home.ts";
import { openSummaryStore } from "../../src/job/summary-store.ts";
import { renderManifest } from "../../src/snapshot/manifest-text.ts";
import { renderSnapshotId } from "../../src/snapshot/snapshot-id.ts";
import { listSnapshots } from "../../src/usecases/list-snapshots.ts";
import { createFolder, never, PREFIX, type TestFolder, writeSample } from "../snapshot/sample-snapshot.ts";

/** One every four hours for a year: enough of them to fill the small heap below several times, were they all kept. */
const COUNT = 2190;
const STEP_MS = 4 * 3_600_000;
const NEWEST = Date.parse("2026-11-21T02:00:00Z");

const cliEntry = fileURLToPath(new URL("../support/rowkeep-process.ts", import.meta.url));

let folder: TestFolder;

beforeAll(async () => {
  folder = await createFolder();
  const sample = await writeSample({ destinations: [folder.destination], spoolFolder: folder.spool });
  for (let index = 1; index < COUNT; index++) {
    const at = new Date(NEWEST - index * STEP_MS);
    const id = renderSnapshotId(at, "full");
    const path = join(folder.path, "store", "shop", "shop", id);
    mkdirSync(path);
    linkSync(join(path, "..", sample.id, "volume-0001.tar"), join(path, "volume-0001.tar"));
    writeFileSync(join(path, "manifest.json"), renderManifest({ ...sample, id, createdAt: at.toISOString() }));
  }
  writeFileSync(
    join(folder.path, "shop.yaml"),
    `version: 1\nname: shop\nsource: { url: "postgres://u@h/shop" }\ndestinations: [{ type: local, path: store }]\n` +
      `retention: { keepHourly: 24, keepDaily: 7, keepWeekly: 4, keepMonthly: 12 }\nschedule: { timezone: Europe/Paris }\n`,
  );
});

afterAll(() => folder[Symbol.asyncDispose]());

async function list(options: { readonly reads?: "all" } = {}) {
  const home = findHome({ homeFlag: join(folder.path, "home"), env: {} });
  using cache = options.reads === "all" ? undefined : await openSummaryStore(home);
  const destinations = [folder.destination];
  return await listSnapshots({ destinations, prefix: PREFIX, cache, signal: never, report: () => undefined });
}

describe("a year of snapshots", () => {
  test("is listed in less than half a second of work once it has been listed before", async () => {
    const first = await list();

    const before = process.cpuUsage();
    const second = await list();
    const { user, system } = process.cpuUsage(before);

    expect(second).toEqual(first);
    expect(second.snapshots).toHaveLength(COUNT);
    expect(second.snapshots.at(-1)?.createdAt).toBe(new Date(NEWEST).toISOString());
    // Time of the processor: other work on the machine makes nobody's list slower than it is.
    expect((user + system) / 1000).toBeLessThan(500);
  });

  test("shows the same, whether it reads what a list shows or all of every manifest", async () => {
    const shown = await list();

    const read = await list({ reads: "all" });

    expect(read).toEqual(shown);
  });

  test("is pruned in a small heap", () => {
    const prune = spawnSync(
      process.execPath,
      ["--max-old-space-size=64", cliEntry, "prune", join(folder.path, "shop.yaml"), "--dry-run", "--json"],
      {
        env: { ...process.env, ROWKEEP_HOME: join(folder.path, "home") },
        encoding: "utf8",
        maxBuffer: 64 * 1024 * 1024,
      },
    );

    const result = JSON.parse(prune.stdout) as { kept: unknown[]; removed: unknown[] };
    expect(prune.status).toBe(0);
    expect(result.kept.length + result.removed.length).toBe(COUNT);
    expect(result.kept.length).toBeLessThan(24 + 7 + 4 + 12);
  });
});
