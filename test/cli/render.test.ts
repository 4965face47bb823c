import { expect, test } from "vitest";
import { loadChalk } from "../../src/cli/colors.ts";
import { Output } from "../../src/cli/output.ts";
import { type ListedSnapshot, printSnapshots } from "../../src/cli/render/snapshots.ts";

async function shownBy(print: (output: Output) => void): Promise<readonly string[]> {
  let text = "";
  const stream = {
    write(piece: string | Uint8Array) {
      text += String(piece);
      return true;
    },
  };
  const paint = (await loadChalk())(false);
  const flags = { json: false, quiet: false, verbose: false, redact: (one: string) => one };
  print(new Output({ stdout: stream, stderr: stream, paint, paintErr: paint, ...flags }));
  return text.trimEnd().split("\n");
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
    printSnapshots(output, [snapshot(first), snapshot(second, { safetyOf: first })]);
  });

  expect(lines.map((line) => line.split(/ {2,}/)[1])).toEqual(["kind", "full", "safety", undefined]);
  expect(lines.at(-1)).toBe("consistency of all: snapshot");
});

test("list has a column of consistencies where they differ", async () => {
  const lines = await shownBy((output) => {
    printSnapshots(output, [snapshot(first), snapshot(second, { consistency: "per-table" })]);
  });

  expect(lines.map((line) => line.split(/ {2,}/)[2])).toEqual(["consistency", "snapshot", "per-table"]);
});
