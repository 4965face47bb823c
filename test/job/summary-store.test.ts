import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { findHome, type Home } from "../../src/job/home.ts";
import { openSummaryStore } from "../../src/job/summary-store.ts";
import type { SnapshotSummary } from "../../src/snapshot/snapshot-summary.ts";

let folder: string;
let home: Home;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  home = findHome({ homeFlag: folder, env: {} });
});

afterEach(() => rm(folder, { recursive: true, force: true }));

const summary = { id: "20261101T020000Z-full", tables: 3 } as SnapshotSummary;
const at = new Date("2026-11-01T02:00:00.123Z");

async function remember(key: string): Promise<void> {
  using store = await openSummaryStore(home);
  await store?.put(key, 10, at, summary);
}

async function recall(key: string, size = 10, modifiedAt = at): Promise<SnapshotSummary | undefined> {
  using store = await openSummaryStore(home);
  return await store?.get(key, size, modifiedAt);
}

test("remembers a summary until the object has another size or time", async () => {
  await remember("a");

  expect(await recall("a")).toEqual(summary);
  expect(await recall("a", 11)).toBeUndefined();
  expect(await recall("a", 10, new Date(at.getTime() + 1))).toBeUndefined();
  expect(await recall("b")).toBeUndefined();
});

test("serves two lists at once", async () => {
  using first = await openSummaryStore(home);
  using second = await openSummaryStore(home);

  await first?.put("a", 10, at, summary);
  await second?.get("a", 10, at);
  for (let index = 0; index < 600; index++) {
    await first?.put(`first ${index}`, 10, at, summary);
    await second?.put(`second ${index}`, 10, at, summary);
  }

  expect(await recall("first 0")).toEqual(summary);
  expect(await recall("second 0")).toEqual(summary);
});

test("begins anew when its file is damaged", async () => {
  await remember("a");
  await writeFile(join(home.state, "summaries.sqlite"), "not a database ".repeat(1000));

  expect(await recall("a")).toBeUndefined();
  await remember("a");
  expect(await recall("a")).toEqual(summary);
});

test("is done without where it cannot be opened", async () => {
  await mkdir(join(home.state, "summaries.sqlite"), { recursive: true });

  expect(await openSummaryStore(home)).toBeUndefined();
});
