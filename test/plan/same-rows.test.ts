import { expect, test } from "vitest";
import { takeOutShared } from "../../src/plan/same-rows.ts";
import type { ChunkRef, Manifest, StoredTable } from "../../src/snapshot/manifest.ts";

const chunk = { volume: 0, offset: 512, size: 10, sha256: "a".repeat(64), rawSize: 20, rows: 2 };
const table: StoredTable = {
  schema: "public",
  name: "t",
  columns: [{ name: "id", type: "integer", notNull: true }],
  primaryKey: ["id"],
  format: "text",
  rows: 2,
  rawBytes: 20,
  storedBytes: 10,
  method: "full",
  segments: [{ chunks: [chunk] }],
};

/** Only what decides about rows is looked at. */
function manifestOf(more: Partial<StoredTable> = {}, codec: "zstd" | "none" = "zstd"): Manifest {
  const tables = [{ ...table, ...more }];
  return { tables, compression: { codec, level: 2 }, largeObjects: { count: 0, chunks: [] } } as unknown as Manifest;
}

const isShared = (left: Manifest, right: Manifest) => takeOutShared(left, right).tables.length === 1;
const chunksOf = (...chunks: ChunkRef[]) => ({ segments: [{ chunks }] });

test("the same bytes at another place are the same rows", () => {
  const moved = { ...chunksOf({ ...chunk, volume: 3, offset: 99_328 }), method: "unchanged" as const, storedBytes: 0 };

  expect(isShared(manifestOf(), manifestOf(moved))).toBe(true);
});

test("the same raw bytes are the same rows, however they are stored", () => {
  const rawSha256 = "b".repeat(64);
  const left = manifestOf(chunksOf({ ...chunk, rawSha256 } as ChunkRef));

  expect(
    isShared(left, manifestOf(chunksOf({ ...chunk, rawSha256, sha256: "c".repeat(64), size: 9 } as ChunkRef))),
  ).toBe(true);
  expect(isShared(left, manifestOf(chunksOf({ ...chunk, rawSha256: "d".repeat(64) } as ChunkRef)))).toBe(false);
  expect(isShared(left, manifestOf())).toBe(false);
});

test.each<[string, Partial<StoredTable>]>([
  ["other bytes", chunksOf({ ...chunk, sha256: "c".repeat(64) })],
  ["another order of chunks", chunksOf(chunk, { ...chunk, sha256: "c".repeat(64) })],
  ["a column of another name", { columns: [{ name: "key", type: "integer", notNull: true }] }],
  ["another form", { format: "binary" }],
  ["a condition", { condition: "id > 1" }],
  ["anything that this version does not know", { removed: { rows: 1, chunks: [] } } as Partial<StoredTable>],
])("%s: the rows are read", (_, more) => {
  expect(isShared(manifestOf(), manifestOf(more))).toBe(false);
});

test("the same bytes under another compression are not known to be the same", () => {
  expect(isShared(manifestOf(), manifestOf({}, "none"))).toBe(false);
});
