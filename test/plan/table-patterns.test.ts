import { describe, expect, test } from "vitest";
import { chooseTable, matchTables } from "../../src/plan/table-patterns.ts";

const tables = [
  { schema: "public", name: "orders" },
  { schema: "public", name: "audit_2024" },
  { schema: "crm", name: "orders" },
  { schema: "crm", name: "Orders" },
  { schema: "crm", name: 'We"ird.T*' },
  { schema: "public", name: "sales_1", partitionRoot: { schema: "public", name: "sales" } },
];

describe("table patterns", () => {
  test.each([
    ["orders", ["public.orders", "crm.orders"]],
    ["public.orders", ["public.orders"]],
    ["*.audit_*", ["public.audit_2024"]],
    ["crm.*", ["crm.orders", "crm.Orders", 'crm.We"ird.T*']],
    ['crm."We""ird.T*"', ['crm.We"ird.T*']],
    ["sales", ["public.sales_1"]],
  ])("%s matches what it says, letter by letter", (pattern, expected) => {
    expect(matchTables([pattern], tables).map(({ schema, name }) => `${schema}.${name}`)).toEqual(expected);
  });

  test("names the nearest table when a pattern matches nothing", () => {
    expect(() => matchTables(["public.order"], tables)).toThrow(
      expect.objectContaining({ kind: "usage", code: "unknown-table", hint: "Did you mean public.orders?" }),
    );
  });

  test.each(["a.b.c", "", "a.", '"open', "a..b"])("refuses %j, which is not schema.table", (pattern) => {
    expect(() => matchTables([pattern], tables)).toThrow(expect.objectContaining({ code: "invalid-pattern" }));
  });

  test("a job's include, exclude and schemaOnly decide together, for partitions also by their root", () => {
    const choose = chooseTable({ include: ["public.*"], exclude: ["*.audit_*"], schemaOnly: ["public.sales"] });

    expect(tables.map(choose)).toEqual(["rows", "excluded", "excluded", "excluded", "excluded", "schema-only"]);
  });
});
