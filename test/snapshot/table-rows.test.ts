import fc from "fast-check";
import { expect, test } from "vitest";
import type { ChunkRef, StoredTable } from "../../src/snapshot/manifest.ts";
import type { SnapshotReader } from "../../src/snapshot/snapshot-reader.ts";
import { readTableRows } from "../../src/snapshot/table-rows.ts";

const signal = new AbortController().signal;

/** A table whose chunks of rows and lists of removed rows hold this text. */
function tableOf(rows: readonly string[], removed: readonly string[]) {
  const chunks = [...rows, ...removed].map(
    (text, offset) => ({ offset, rows: text.split("\n").length - 1 }) as ChunkRef,
  );
  const texts = [...rows, ...removed];
  const reader: Pick<SnapshotReader, "chunks"> = {
    async *chunks(refs) {
      for (const { offset } of refs) yield Buffer.from(texts[offset] ?? "");
    },
  };
  const lists = chunks.slice(rows.length);
  const gone = lists.reduce((sum, list) => sum + list.rows, 0);
  const table: Pick<StoredTable, "segments" | "removed"> = {
    segments: [{ chunks: chunks.slice(0, rows.length) }],
    removed: { rows: gone, chunks: lists },
  };
  return { table, reader: reader as SnapshotReader };
}

async function read(rows: readonly string[], removed: readonly string[]): Promise<string> {
  const { table, reader } = tableOf(rows, removed);
  const parts: Uint8Array[] = [];
  for await (const bytes of readTableRows(reader, table, { signal })) parts.push(bytes);
  return Buffer.concat(parts).toString();
}

test("rows that are gone are left out, wherever a chunk or a list ends", async () => {
  const rows = ["a\nb\nc\n", "d\n", "e\nf\n"];

  expect(await read(rows, ["1d\n3d\n", "4d\n6d\n"])).toBe("b\ne\n");
  expect(await read(rows, ["1d\n", "2d\n", "3d\n4d\n5d\n6d\n"])).toBe("");
  expect(await read(rows, ["2d\n5d\n"])).toBe("a\nc\nd\nf\n");
  expect(await read(["a\nlo", "ng\nc\n"], ["2d\n"])).toBe("a\nc\n");
});

/** Cuts what comes one behind the other into parts at these places. */
function cutAt<T extends string | readonly string[]>(whole: T, places: readonly number[]): readonly T[] {
  const cuts = [...new Set([0, ...places.map((place) => place % (whole.length + 1)), whole.length])];
  cuts.sort((left, right) => left - right);
  return cuts.slice(1).map((end, index) => whole.slice(cuts[index], end) as T);
}

test("chunks that are cut anywhere, within rows too, and lists that are cut anywhere give the rows that are left", async () => {
  const row = fc.record({ text: fc.stringMatching(/^[ab]{0,6}$/), isGone: fc.boolean() });
  const [places, listPlaces] = [fc.array(fc.nat(200), { maxLength: 12 }), fc.array(fc.nat(20), { maxLength: 4 })];
  await fc.assert(
    fc.asyncProperty(fc.array(row, { maxLength: 14 }), places, listPlaces, async (rows, cuts, listCuts) => {
      const text = rows.map((one) => `${one.text}\n`).join("");
      const removed = rows.flatMap(({ isGone }, index) => (isGone ? [`${index + 1}d\n`] : []));
      const lists = cutAt(removed, listCuts).map((list) => list.join(""));
      const left = rows.filter(({ isGone }) => !isGone).map((one) => `${one.text}\n`);

      expect(await read(cutAt(text, cuts), lists)).toBe(left.join(""));
    }),
    { numRuns: 1000 },
  );
});

test.each([
  ["2d\n1d\n"],
  ["1d\n1d\n"],
  ["0d\n"],
  ["1d"],
  ["1"],
  ["1\n"],
  ["d\n"],
  ["1d\n\n"],
  ["1dd\n"],
  ["-1d\n"],
  [" 1d\n"],
  ["1234567890123456d\n"],
  ["7d\n"],
])("a list of removed rows that is %j is refused", async (list) => {
  await expect(read(["a\nb\n"], [list])).rejects.toThrow("cannot read a list of removed rows");
});

test("a list whose second part goes back is refused", async () => {
  await expect(read(["a\nb\nc\n"], ["2d\n", "1d\n"])).rejects.toThrow("cannot read a list of removed rows");
});
