import { describe, expect, test } from "vitest";
import { type CountedTable, findAnomalies, maxShrinkOf } from "../../src/plan/find-anomalies.ts";
import { chooseTable, type TablePatterns } from "../../src/plan/table-patterns.ts";

const table = (name: string, rows: number, root?: string): CountedTable => ({
  schema: "public",
  name,
  rows,
  ...(root ? { partitionRoot: { schema: "public", name: root } } : {}),
});

interface More {
  readonly patterns?: TablePatterns;
  readonly maxShrink?: number;
}

/** `name: before > after` of every anomaly. */
function found(before: readonly CountedTable[], after: readonly CountedTable[], more: More = {}): readonly string[] {
  const { patterns = {}, maxShrink = 0.5 } = more;
  return findAnomalies({ before, after, choose: chooseTable(patterns), maxShrink }).map(
    (one) => `${one.name} ${one.kind}: ${one.rowsBefore} > ${one.rows}`,
  );
}

describe("the anomaly brake", () => {
  test.each([
    ["a table that lost more than half", 1000, 499, ["t shrunk: 1000 > 499"]],
    ["a table that lost exactly half", 1000, 500, []],
    ["a table that was emptied", 1000, 0, ["t shrunk: 1000 > 0"]],
    ["a table that grew", 1000, 5000, []],
    ["a small table that lost most of its rows", 90, 1, ["t shrunk: 90 > 1"]],
    ["a small table that lost all its rows", 40, 0, ["t shrunk: 40 > 0"]],
    ["a table of 20 rows that lost most of them", 20, 9, ["t shrunk: 20 > 9"]],
    ["a tiny table that lost most of its rows", 19, 1, []],
    ["a tiny table that lost all its rows", 1, 0, ["t shrunk: 1 > 0"]],
    ["a table that was empty before", 0, 0, []],
  ])("judges %s", (_what, before, after, expected) => {
    expect(found([table("t", before)], [table("t", after)])).toEqual(expected);
  });

  test("names a table with rows that vanished, also a tiny one, and none that was empty", () => {
    const before = [table("tiny", 1), table("empty", 0), table("left", 5)];

    expect(found(before, [table("left", 5), table("new", 5)])).toEqual(["tiny vanished: 1 > 0"]);
  });

  test("does not miss tables whose rows the job no longer wants", () => {
    const before = [table("audit_log", 500), table("cache", 500), table("orders", 500)];
    const patterns = { exclude: ["audit_*"], schemaOnly: ["cache"] };

    expect(found(before, [table("orders", 500)], { patterns })).toEqual([]);
  });

  test("counts partitions with their root, so that dropping an old one is nothing", () => {
    const before = [table("m1", 1000, "measures"), table("m2", 1000, "measures"), table("m3", 1000, "measures")];

    expect(found(before, [table("m2", 1000, "measures"), table("m4", 800, "measures")])).toEqual([]);
    expect(found(before, [table("m4", 800, "measures")])).toEqual(["measures shrunk: 3000 > 800"]);
    expect(found(before, [])).toEqual(["measures vanished: 3000 > 0"]);
  });

  test("takes the job's share: none, all, or the default of half", () => {
    const [before, after] = [[table("t", 1000)], [table("t", 800)]];

    expect(found(before, after, { maxShrink: maxShrinkOf("10%") })).toHaveLength(1);
    expect(found(before, [table("t", 0)], { maxShrink: maxShrinkOf("100%") })).toEqual([]);
    expect(maxShrinkOf(undefined)).toBe(0.5);
  });
});
