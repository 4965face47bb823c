import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { SourceTable } from "../../src/drivers/driver.ts";
import { planBackup } from "../../src/plan/plan-backup.ts";

const MiB = 1024 * 1024;

function table(name: string, bytes: number): SourceTable {
  return { schema: "public", name, columns: [], primaryKey: [], estimatedRows: 0, bytes };
}

describe("the plan of a backup", () => {
  test("starts with the largest table and breaks ties by name", () => {
    const plan = planBackup([table("b", 5), table("c", 9), table("a", 5)], 2);

    expect(plan.map(({ table: { name } }) => name)).toEqual(["c", "a", "b"]);
  });

  test("divides the one large table of a database among the streams", () => {
    const [large] = planBackup([table("large", 4096 * MiB), table("small", MiB)], 2);

    expect(large?.pieces).toBe(16);
  });

  test("reads the tables that start first as a whole when others remain to balance the streams", () => {
    const plan = planBackup(
      [table("a", 500 * MiB), table("b", 500 * MiB), table("c", 420 * MiB), table("d", 170 * MiB)],
      2,
    );

    expect(plan.map(({ pieces }) => pieces)).toEqual([1, 1, 4, 2]);
  });

  test("keeps every table once, whatever the sizes", () => {
    const sizes = fc.array(fc.nat(10_000 * MiB), { maxLength: 30 });
    fc.assert(
      fc.property(sizes, fc.integer({ min: 1, max: 8 }), (bytes, streams) => {
        const tables = bytes.map((size, index) => table(`t${index}`, size));

        const plan = planBackup(tables, streams);

        expect(new Set(plan.map(({ table: { name } }) => name)).size).toBe(tables.length);
        expect(plan.every(({ pieces }) => Number.isInteger(pieces) && pieces >= 1)).toBe(true);
      }),
    );
  });
});
