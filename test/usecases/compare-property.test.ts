import fc from "fast-check";
import { expect, test } from "vitest";
import type { TableComparison } from "../../src/usecases/compare-sites.ts";
import { openPair, type Pair } from "./compare-setup.ts";

type Row = readonly (string | null)[];

interface Case {
  /** How many of the columns are the key; 0: none. */
  readonly keyColumns: 0 | 1 | 2;
  /** The key is an integer. */
  readonly isInteger: boolean;
  readonly left: readonly Row[];
  readonly right: readonly Row[];
}

const COLUMNS = 4;

/** Values on which framing, escaping and marks could fail. */
const value = fc.oneof(
  fc.constantFrom(
    "",
    "\\N",
    "~1",
    "~0",
    ".",
    "|",
    "||",
    "|",
    "a|",
    "\t",
    "\n",
    "\\",
    "\\\\t",
    "a",
    "b",
    "é",
    "😀",
    "'",
    '"',
  ),
  fc.string({ maxLength: 4 }).map((text) => text.replaceAll("\u0000", "")),
);
const nullable = fc.option(value, { freq: 4 });

const edit = fc.record({
  kind: fc.constantFrom("change", "delete", "insert", "swap-rows", "swap-columns", "duplicate", "null", "shift"),
  row: fc.nat(50),
  other: fc.nat(50),
  column: fc.nat(COLUMNS - 1),
  value: nullable,
});

const anyCase = fc
  .record({
    keyColumns: fc.constantFrom(0 as const, 1 as const, 2 as const),
    isInteger: fc.boolean(),
    rows: fc.array(fc.tuple(nullable, nullable, nullable, nullable), { maxLength: 30 }),
    edits: fc.array(edit, { maxLength: 6 }),
  })
  .map(({ keyColumns, isInteger, rows, edits }): Case => {
    const typed = (row: Row, index: number): Row =>
      isInteger ? [String((index - 7) * 1_000_003), ...row.slice(1)] : row;
    const left = keyed(rows.map(typed), keyColumns);
    const right = left.map((row) => [...row]);
    for (const { kind, row, other, column, value: text } of edits) {
      const [one, two] = [right[row % (right.length || 1)], right[other % (right.length || 1)]];
      if (!one || !two) continue;
      const isKey = column < keyColumns || (isInteger && column === 0);
      if (kind === "delete") right.splice(right.indexOf(one), 1);
      if (kind === "duplicate") right.push([...one]);
      if (kind === "insert") right.push([isInteger ? String(row * 17 + 5) : text, text, "new", null]);
      if (kind === "change" && !isKey) one[column] = text;
      if (kind === "null" && !isKey) one[column] = null;
      if (kind === "swap-rows" && !isKey) [one[column], two[column]] = [two[column] ?? null, one[column] ?? null];
      // The same letters, cut elsewhere.
      if (kind === "shift") [one[2], one[3]] = [(one[2] ?? "").slice(0, -1), (one[2] ?? "").slice(-1) + (one[3] ?? "")];
      if (kind === "swap-columns") [one[2], one[3]] = [one[3] ?? null, one[2] ?? null];
    }
    return { keyColumns, isInteger, left, right: keyed(right, keyColumns) };
  });

/** Keeps the first row of each key, and none whose key holds NULL. */
function keyed(rows: readonly Row[], keyColumns: number): Row[] {
  if (keyColumns === 0) return [...rows];
  const seen = new Set<string>();
  return rows.filter((row) => {
    const key = keyOf(row, keyColumns);
    if (row.slice(0, keyColumns).includes(null) || seen.has(key)) return false;
    seen.add(key);
    return true;
  });
}

function keyOf(row: Row, keyColumns: number): string {
  return JSON.stringify(row.slice(0, keyColumns));
}

/** What a comparison of all rows in memory says: how many are only left, only right, and changed. */
function compareInMemory({ keyColumns, left, right }: Case): readonly [number, number, number] {
  if (keyColumns > 0) {
    const [one, other] = [left, right].map(
      (rows) => new Map(rows.map((row) => [keyOf(row, keyColumns), JSON.stringify(row)])),
    ) as [Map<string, string>, Map<string, string>];
    const changed = [...one].filter(([key, row]) => other.has(key) && other.get(key) !== row).length;
    return [
      [...one.keys()].filter((key) => !other.has(key)).length,
      [...other.keys()].filter((key) => !one.has(key)).length,
      changed,
    ];
  }
  const counts = new Map<string, number>();
  for (const row of left) counts.set(JSON.stringify(row), (counts.get(JSON.stringify(row)) ?? 0) + 1);
  for (const row of right) counts.set(JSON.stringify(row), (counts.get(JSON.stringify(row)) ?? 0) - 1);
  const sum = (sign: number) => [...counts.values()].reduce((total, count) => total + Math.max(0, sign * count), 0);
  return [sum(1), sum(-1), 0];
}

function renderTable(name: string, { keyColumns, isInteger }: Case, rows: readonly Row[]): string {
  const columns = Array.from(
    { length: COLUMNS },
    (_, index) => `c${index} ${isInteger && index === 0 ? "int" : "text"}`,
  );
  const key = Array.from({ length: keyColumns }, (_, index) => `c${index}`);
  const create = `create table ${name} (${[...columns, ...(key.length > 0 ? [`primary key (${key.join(", ")})`] : [])].join(", ")})`;
  const literal = (text: string | null) =>
    text === null ? "null" : `E'${text.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`;
  const values = rows.map((row) => `(${row.map(literal).join(", ")})`);
  return values.length > 0 ? `${create}; insert into ${name} values ${values.join(", ")}` : create;
}

function countsOf(table: TableComparison | undefined): readonly (number | undefined)[] {
  if (table?.equal) return [0, 0, 0];
  return [table?.onlyLeft, table?.onlyRight, table?.changed];
}

const PAIRS: readonly Pair[] = [
  { left: 15, right: 18, pairing: "live with live" },
  { left: 18, right: 18, pairing: "live with live" },
  { left: 18, right: 15, pairing: "live with snapshot" },
];

test.each(PAIRS)(
  "finds of random edits exactly what a comparison in memory finds: PostgreSQL $left and $right, $pairing",
  async (pair) => {
    await using open = await openPair(pair);

    // Many tables at once: a comparison of one small table is nearly all connecting.
    const cases = fc.array(anyCase, { minLength: 60, maxLength: 60 });
    await fc.assert(
      fc.asyncProperty(cases, async (tables) => {
        const render = (side: "left" | "right") =>
          tables.map((one, index) => renderTable(`t${index}`, one, one[side])).join("; ");

        const result = await open.compare({ left: render("left"), right: render("right") });

        const found = tables.map((_, index) => countsOf(result.tables.find(({ name }) => name === `t${index}`)));
        expect(found).toEqual(tables.map(compareInMemory));
      }),
      { numRuns: Number(process.env.ROWKEEP_COMPARE_RUNS ?? 3), endOnFailure: true },
    );
  },
);
