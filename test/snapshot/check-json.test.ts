import { describe, expect, test } from "vitest";
import { checkJson } from "../../src/snapshot/check-json.ts";

const TWICE = "a key stands twice in one object";

/** An object with so many keys, and these behind them. */
const many = (count: number, ...last: readonly string[]) =>
  `{${[...Array.from({ length: count }, (_, index) => `"key ${index}"`), ...last].map((key) => `${key}:1`).join(",")}}`;

describe("the check of JSON before it is parsed", () => {
  test.each([
    ['{"a":1,"b":{"a":1},"c":[{"a":1},{"a":1}]}'],
    ['[{"a":{"b":1}},{"b":{"a":1}},{"a":"a","b":"b"}]'],
    ['{"a":"\\"a\\":1","b":["a","a"]}'],
    ['{"ab":1,"ba":1,"":1,"a":1}'],
    ['{"\\u0061":1,"b":1}'],
    [many(32)],
    [many(33)],
    [many(500)],
  ])("finds nothing wrong with %s", (text) => {
    expect(checkJson(text, 3)).toBeUndefined();
  });

  test.each([
    ['{"a":1,"a":1}', TWICE],
    ['{"":1,"":1}', TWICE],
    ['{"a":{"b":1},"a":{"b":1}}', TWICE],
    ['[{"a":1},{"a":{"b":1,"c":1},"b":1,"a":1}]', TWICE],
    ['{"a":1,"\\u0061":1}', TWICE],
    ['{"\\u0061":1,"a":1}', TWICE],
    ['{"b":1,"a":1,"\\u0063":1,"b":1}', TWICE],
    [many(32, '"key 0"'), TWICE],
    [many(31, '"key 30"'), TWICE],
    [many(500, '"key 499"'), TWICE],
    [many(500, '"key \\u0030"'), TWICE],
    ['{"a":{"__proto__":1}}', "a key is not allowed"],
    ['{"\\u005f_proto__":1}', "a key is not allowed"],
    [many(40, '"__proto__"'), "a key is not allowed"],
    ['{"\\x":1}', "a key is not valid"],
    ['{"a', "a text does not end"],
    ["[[[[1]]]]", "it is nested deeper than 3 levels"],
    ['{"a":{"a":{"a":{}}}}', "it is nested deeper than 3 levels"],
  ])("says what is wrong with %s", (text, problem) => {
    expect(checkJson(text, 3)).toBe(problem);
  });

  test("tells keys apart that a hash could not", () => {
    const letters = ["A", "a", "B", "b", "C", "c", "!"];
    const keys = letters.flatMap((one) => letters.map((other) => `${one}${other}`));
    const objects = keys.flatMap((one) => keys.map((other) => [one, other] as const));

    const wrong = objects.filter(
      ([one, other]) => (checkJson(`{"${one}":1,"${other}":1}`, 1) === TWICE) !== (one === other),
    );

    expect(wrong).toEqual([]);
  });
});
