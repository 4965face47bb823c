import { expect, test } from "vitest";
import { smallTogether } from "../../src/usecases/check-volume.ts";

const MIB = 1024 * 1024;

function batches(sizes: readonly number[]): readonly (readonly number[])[] {
  const checks = sizes.map((size) => ({ volume: { name: "volume", size } }));
  return Array.from(smallTogether(checks), (batch) => batch.map(({ volume }) => volume.size));
}

test("small volumes are read at once, in their order, and never more than eight or 4 MiB of them", () => {
  const ten = Array.from({ length: 10 }, (_, index) => index + 1);

  expect(batches(ten)).toEqual([ten.slice(0, 8), ten.slice(8)]);
  expect(batches([3 * MIB, MIB, 1, 2])).toEqual([
    [3 * MIB, MIB],
    [1, 2],
  ]);
});

test("a large volume is read alone", () => {
  expect(batches([1, 128 * MIB, 2, 3, 5 * MIB])).toEqual([[1], [128 * MIB], [2, 3], [5 * MIB]]);
  expect(batches([])).toEqual([]);
});
