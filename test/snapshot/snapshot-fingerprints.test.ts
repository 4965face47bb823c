import { expect, test } from "vitest";
import { makeRowForm } from "../../src/drivers/row-form.ts";
import { type RowHash, RowHasher } from "../../src/drivers/row-hash.ts";
import { CopyTextRows } from "../../src/snapshot/copy-text-rows.ts";
import type { StoredTable } from "../../src/snapshot/manifest.ts";
import { SnapshotFingerprints } from "../../src/snapshot/snapshot-fingerprints.ts";
import type { SnapshotReader } from "../../src/snapshot/snapshot-reader.ts";

const signal = new AbortController().signal;
const hash: RowHash = { method: "lookup3", seeds: [3n, 5n], salt: "s" };
const table: StoredTable = {
  schema: "public",
  name: "t",
  columns: [{ name: "v", type: "text", notNull: true }],
  primaryKey: [],
  format: "text",
  rows: 0,
  rawBytes: 0,
  storedBytes: 0,
  method: "full",
  segments: [],
};

/** A reader is a fake here: no server makes millions of equal rows in the time of a test. */
function readerOf(...chunks: readonly Buffer[]): SnapshotReader {
  return {
    manifest: undefined as unknown as SnapshotReader["manifest"],
    passedOver: [],
    async *chunks() {
      yield* chunks;
    },
    readStates: () => Promise.reject(new Error("nobody asks")),
    [Symbol.asyncDispose]: async () => undefined,
  };
}

const form = makeRowForm([table], { hash, rows: 1, majors: [15, 15], isLive: false });

test("sums of millions of equal rows in one bucket are exact", async () => {
  const rows = 3_000_000;
  const fingerprints = new SnapshotFingerprints(readerOf(Buffer.from("7\n".repeat(rows))));
  const hasher = new RowHasher(hash);
  hasher.update(Buffer.from("7"), 1);

  const sums = await fingerprints.sums(table, { form, signal });

  expect([...sums.values()]).toEqual([
    { rows, first: hasher.first * BigInt(rows), second: hasher.second * BigInt(rows) },
  ]);
});

test("fails when the rows of a snapshot are cut off or have other columns", async () => {
  const sumsOf = (text: string) => new SnapshotFingerprints(readerOf(Buffer.from(text))).sums(table, { form, signal });

  await expect(sumsOf("a\nb")).rejects.toMatchObject({ kind: "archive" });
  await expect(sumsOf("a\tb\n")).rejects.toMatchObject({ kind: "archive" });
});

test("rows are cut at newlines wherever chunks end", () => {
  const text = "one\tx\n\ntwo\n\\n three\n";
  for (let at = 0; at <= text.length; at += 1) {
    const rows: string[] = [];
    const cutter = new CopyTextRows((bytes, start, end) => rows.push(bytes.toString("utf8", start, end)));

    cutter.push(Buffer.from(text.slice(0, at)));
    cutter.push(Buffer.from(text.slice(at)));
    cutter.finish();

    expect(rows).toEqual(["one\tx", "", "two", "\\n three"]);
  }
});
