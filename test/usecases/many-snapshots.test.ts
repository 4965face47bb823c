import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findHome } from "../../src/job/home.ts";
import { openSummaryStore } from "../../src/job/summary-store.ts";
import { renderSnapshotId } from "../../src/snapshot/snapshot-id.ts";
import { listSnapshots } from "../../src/usecases/list-snapshots.ts";
import { never, PREFIX, type TestFolder } from "../snapshot/sample-snapshot.ts";
import { makeYear, NEWEST } from "../snapshot/year-of-snapshots.ts";

/** One every four hours for a year: enough of them to fill the small heap below several times, were they all kept. */
const COUNT = 2190;
const STEP_MS = 4 * 3_600_000;

const cliEntry = fileURLToPath(new URL("../support/rowkeep-process.ts", import.meta.url));

let folder: TestFolder;

beforeAll(async () => {
  folder = await makeYear({ count: COUNT, stepMs: STEP_MS });
});

afterAll(() => folder[Symbol.asyncDispose]());

async function list(options: { readonly reads?: "all"; readonly home?: string } = {}) {
  const home = findHome({ homeFlag: join(folder.path, options.home ?? "home"), env: {} });
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

  test("is listed without those that are damaged or of another snapshot, which are named", async () => {
    const ids = [7, 700].map((steps) => renderSnapshotId(new Date(NEWEST - steps * STEP_MS), "full"));
    const [flipped = "", strange = ""] = ids.map((id) => join(folder.path, "store", PREFIX, id, "manifest.json"));
    const bytes = readFileSync(flipped);
    const others = readFileSync(strange);
    writeFileSync(flipped, bytes.with(40, (bytes[40] ?? 0) ^ 1));
    writeFileSync(strange, bytes);

    const { snapshots, warnings } = await list({ home: "another-home" });

    writeFileSync(flipped, bytes);
    writeFileSync(strange, others);
    expect(snapshots).toHaveLength(COUNT - 2);
    expect(warnings.filter((warning) => ids.some((id) => warning.startsWith(id)))).toHaveLength(2);
    expect(warnings).toHaveLength(2);
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
