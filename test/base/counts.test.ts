import { expect, test } from "vitest";
import { formatPlural } from "../../src/base/counts.ts";

test.each([
  [0, "0 rows"],
  [1, "1 row"],
  [2, "2 rows"],
  [1_234_567, "1,234,567 rows"],
])("counts %i of a thing", (count, words) => {
  expect(formatPlural(count, "row")).toBe(words);
});

test("takes a plural that is made in another way", () => {
  expect([1, 2].map((count) => formatPlural(count, "file or folder", "files and folders"))).toEqual([
    "1 file or folder",
    "2 files and folders",
  ]);
});
