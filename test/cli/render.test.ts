import { expect, test } from "vitest";
import type { Output } from "../../src/cli/output.ts";
import { printJobs } from "../../src/cli/render/jobs.ts";
import { printRemoved, printRetention } from "../../src/cli/render/retention.ts";
import { type ListedSnapshot, printSnapshots } from "../../src/cli/render/snapshots.ts";
import type { JobStatus } from "../../src/usecases/job-states.ts";
import { openShownOutput } from "../support/shown-output.ts";

async function shownBy(print: (output: Output) => void, columns?: number): Promise<readonly string[]> {
  const { output, shown } = await openShownOutput(columns === undefined ? undefined : { columns });
  print(output);
  return shown().trimEnd().split("\n");
}

const snapshot = (id: string, more: Partial<ListedSnapshot> = {}): ListedSnapshot => ({
  id,
  job: "shop",
  database: "shop",
  kind: "full",
  createdAt: "2026-11-01T02:00:00.000Z",
  consistency: "snapshot",
  tables: 120,
  rows: 1_234_567,
  storedBytes: 476_000_000,
  destinations: ["near"],
  pinned: false,
  ...more,
});

const [first, second] = ["20261101T020000Z-full", "20261102T020000Z-full"] as const;

test("list tells safety snapshots from fulls, and one consistency of all in a line of its own", async () => {
  const lines = await shownBy((output) => {
    printSnapshots(output, [
      snapshot(first),
      snapshot(second, { createdAt: "2026-11-02T02:00:00.000Z", safetyOf: first }),
    ]);
  });

  expect(lines.map((line) => line.split(/ {2,}/)[1])).toEqual(["kind", "full", "safety", undefined]);
  expect(lines.at(-1)).toBe("consistency of all: snapshot");
});

test("list has a column of consistencies where they differ", async () => {
  const lines = await shownBy((output) => {
    printSnapshots(output, [snapshot(first), snapshot(second, { consistency: "per-table" })]);
  });

  expect(lines.map((line) => line.split(/ {2,}/)[1])).toEqual(["consistency", "snapshot", "per-table"]);
});

test("list fits 80 columns for ids that tell kind and time, and tells both where an id does not", async () => {
  const incremental = { kind: "incremental", createdAt: "2026-11-02T02:00:00.700Z" };
  const usual = [
    snapshot(first, { verifiedAt: "2026-11-05T02:00:00.000Z" }),
    snapshot("20261102T020000Z-incremental", incremental),
  ];
  const narrow = await shownBy((output) => printSnapshots(output, usual));
  const wide = await shownBy((output) => printSnapshots(output, [snapshot(second), snapshot("20261102T020000Z-x")]));

  expect(narrow[0]?.split(/ {2,}/)).toEqual(["snapshot", "tables", "rows", "size", "verified", "where"]);
  expect(narrow[1]?.split(/ {2,}/).at(-2)).toBe("2026-11-05");
  expect(Math.max(...narrow.map((line) => line.length))).toBeLessThanOrEqual(80);
  expect(wide[0]?.split(/ {2,}/).slice(0, 3)).toEqual(["snapshot", "kind", "time"]);
});

test.each([
  [120, ["job", "state", "last full", "last incremental", "last good", "age", "next run", "node"]],
  [80, ["job", "state", "last full", "age", "next run"]],
  [40, ["job", "state", "age"]],
  [0, ["job", "state", "last full", "last incremental", "last good", "age", "next run", "node"]],
  [undefined, ["job", "state", "last full", "last incremental", "last good", "age", "next run", "node"]],
])("status fits a terminal of %s columns and names what it leaves out", async (columns, titles) => {
  const at = "2026-11-02T02:00:00.000Z";
  const job: JobStatus = {
    name: "shop",
    enabled: true,
    state: "ok",
    lastFull: at,
    lastIncremental: at,
    lastSuccess: at,
    nextRun: at,
    failuresInARow: 0,
    node: "backup-1",
  };

  const lines = await shownBy((output) => printJobs(output, [job], new Date(at)), columns);

  expect(lines[0]?.split(/ {2,}/)).toEqual(titles);
  expect(lines[1]?.split(/ {2,}/)).toHaveLength(titles.length);
  if (columns === 80) expect(lines[2]).toBe("too wide for here: node, last good, last incremental");
  if (columns) expect(lines[0]?.length).toBeLessThanOrEqual(columns);
});

const place = (id: string, destination: string) => ({ id, database: "shop", destination });
const everywhere = (id: string) => ["near", "far", "s3"].map((destination) => place(id, destination));

test("prune shows a snapshot once that has the same fate at all destinations", async () => {
  const kept = everywhere(second).map((one) => ({ ...one, reasons: ["last good", "last"] }));
  const removed = everywhere(first).map((one) => ({ ...one, reason: "no rule keeps it" }));

  const lines = await shownBy((output) => printRetention(output, { kept, removed, dryRun: false }));

  expect(lines.map((line) => line.replace(/ +/g, " "))).toEqual([
    "shop at near, far, s3:",
    "snapshot what why",
    `${first} removed no rule keeps it`,
    `${second} kept last good, last`,
    "1 snapshot removed, 1 kept",
  ]);
});

test("prune names the destinations of what has another fate there", async () => {
  const kept = [
    { ...place(first, "far"), reasons: ["an incremental needs it"], bytesForOthers: 5 },
    ...everywhere(second).map((one) => ({ ...one, reasons: ["last"] })),
  ];
  const removed = ["near", "s3"].map((destination) => ({ ...place(first, destination), reason: "no rule keeps it" }));

  const lines = await shownBy((output) => printRetention(output, { kept, removed, dryRun: true }));

  expect(lines.slice(2).map((line) => line.replace(/ +/g, " "))).toEqual([
    `${first} kept an incremental needs it (at far)`,
    `${first} would go no rule keeps it (at near, s3)`,
    `${second} kept last`,
    "1 snapshot would be removed; nothing was, 2 kept",
    "of these 1 (5 B) only because later ones refer to them, and as long as those stay",
  ]);
});

test("a run tells a snapshot that it pruned once, with all places", async () => {
  const removed = everywhere(first).map((one) => ({ ...one, reason: "no rule keeps it" }));

  const lines = await shownBy((output) => printRemoved(output, removed));

  expect(lines).toEqual([`pruned: ${first} at near, far, s3`]);
});
