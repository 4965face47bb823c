import { expect, test } from "vitest";
import { offsetsOf } from "../../src/drivers/postgres/postgres-page-sql.ts";

test.each([
  ["", []],
  ["0001", [1]],
  ["000100020123", [1, 2, 291]],
  ["0003ffff0001", [1, 3, 65535]],
])("the line pointers of %j are %j", (hex, offsets) => {
  expect(Array.from(offsetsOf(hex))).toEqual(offsets);
});

test.each(["0", "0001000", "000100", "0001zzzz", "zz010002"])("%j is refused: a row would be taken for gone", (hex) => {
  expect(() => offsetsOf(hex)).toThrow(RangeError);
});
