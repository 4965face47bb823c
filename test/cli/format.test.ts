import { expect, test } from "vitest";
import { formatBytes, formatCount, formatDuration, formatRate, formatTime } from "../../src/cli/format.ts";
import { plain, renderTable, widthOf } from "../../src/cli/text-table.ts";

test.each([
  [0, "0 B"],
  [999, "999 B"],
  [1000, "1.00 kB"],
  [1536, "1.54 kB"],
  [99_949, "99.9 kB"],
  [999_499, "999 kB"],
  [999_500, "1.00 MB"],
  [476_000_000, "476 MB"],
  [1.6e9, "1.60 GB"],
  [5e18, "5000 PB"],
])("renders %d bytes as %s", (bytes, expected) => {
  expect(formatBytes(bytes)).toBe(expected);
});

test.each([
  [0, "0 ms"],
  [999, "999 ms"],
  [11_234, "11.2 s"],
  [59_949, "59.9 s"],
  [59_999, "1 min 00 s"],
  [185_000, "3 min 05 s"],
  [3_599_600, "1 h 00 min"],
  [7_380_000, "2 h 03 min"],
  [90_000_000, "1 d 01 h"],
])("renders %d ms as %s", (ms, expected) => {
  expect(formatDuration(ms)).toBe(expected);
});

test("renders counts, rates and times alike in every locale", () => {
  expect(formatCount(7_312_004)).toBe("7,312,004");
  expect(formatCount(999)).toBe("999");
  expect(formatRate(1_000_000, 0)).toBe("0 B/s");
  expect(formatRate(240_000_000, 2000)).toBe("120 MB/s");
  expect(formatTime("2026-11-21T02:00:00.500+01:00")).toBe("2026-11-21 01:00:00Z");
});

test("aligns columns by what a terminal shows, not by characters", () => {
  const lines = renderTable(
    [{ title: "table" }, { title: "rows", align: "right" }],
    [
      ["商品", "5"],
      ["e\u0301te", "12345"],
      ["\u001b[31mred\u001b[39m", "7"],
    ],
  );

  expect(lines.map(widthOf)).toEqual([12, 12, 12, 12]);
});

test("shows control characters of names as question marks", () => {
  expect(plain("a\u001b[2Jb\nc\u202ed")).toBe("a?[2Jb?c?d");
});
