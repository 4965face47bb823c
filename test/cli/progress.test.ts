import { expect, test } from "vitest";
import { ProgressState } from "../../src/cli/progress/progress-state.ts";
import { renderOverall, renderScreen, renderSummary } from "../../src/cli/progress/progress-text.ts";
import { widthOf } from "../../src/cli/text-table.ts";

function runningState(): ProgressState {
  const state = new ProgressState();
  state.apply({ type: "phase", text: "backing up" }, 0);
  const tables = [
    { table: "public.orders", estimatedRows: 1000, bytes: 1_000_000 },
    { table: "public.empty", estimatedRows: 0, bytes: 0 },
    { table: "public.items", estimatedRows: 1000, bytes: 1_000_000 },
  ];
  state.apply({ type: "plan", tables }, 0);
  state.apply({ type: "table-start", table: "public.orders" }, 0);
  state.apply({ type: "rows", table: "public.orders", rows: 1000, bytes: 500_000 }, 4000);
  state.apply({ type: "table-done", table: "public.orders", rows: 1000, storedBytes: 90_000 }, 4000);
  return state;
}

test("tells share, time left and speeds", () => {
  const text = renderOverall(runningState(), 4000);

  expect(text).toBe("backing up: 49 %, ETA 4.0 s, 1,000 rows, 500 kB, 250 rows/s, 125 kB/s");
});

test("never calls a running table complete, however wrong the estimate was", () => {
  const state = runningState();

  state.apply({ type: "rows", table: "public.items", rows: 5_000_000, bytes: 1 }, 5000);

  expect(state.share()).toBeLessThan(1);
});

test("reaches 100 % when every table is done, also the empty ones", () => {
  const state = runningState();

  for (const table of ["public.empty", "public.items"]) state.apply({ type: "table-done", table, rows: 0 }, 6000);

  expect(state.share()).toBe(1);
});

test("tells no time left in the first two seconds", () => {
  const state = new ProgressState();
  state.apply({ type: "plan", tables: [{ table: "a.b", estimatedRows: 100, bytes: 1 }] }, 0);

  state.apply({ type: "rows", table: "a.b", rows: 50, bytes: 1 }, 1000);

  expect(state.remainingMs(1000)).toBeUndefined();
});

test("starts anew at a second plan: a restore follows its safety snapshot", () => {
  const state = runningState();

  state.apply({ type: "plan", tables: [{ table: "a.b", estimatedRows: 100, bytes: 1 }] }, 9000);

  expect(state).toMatchObject({ rows: 0, bytes: 0, startedAt: 9000 });
  expect(state.share()).toBe(0);
});

test("keeps every line of the screen inside the terminal", () => {
  const state = runningState();
  state.apply({ type: "rows", table: `public.${"商".repeat(80)}\u001b[2J`, rows: 5, bytes: 5 }, 4100);

  const lines = renderScreen(state, 4200, 40).split("\n");

  expect(lines).toHaveLength(2);
  for (const line of lines) expect(widthOf(line)).toBeLessThanOrEqual(38);
  expect(lines.join()).not.toContain("\u001b");
});

test("sums the tables up at the end and counts those that it does not list", () => {
  const state = runningState();
  for (let i = 0; i < 40; i++) state.apply({ type: "table-done", table: `t.${i}`, rows: 1, storedBytes: 1000 }, 5000);

  const lines = renderSummary(state, 8000);

  expect(lines).toHaveLength(1 + 30 + 1 + 1);
  expect(lines.at(-2)).toContain("and 13 more");
  expect(lines.at(-1)).toMatch(/^total +1,040 +500 kB +130 kB +8\.0 s$/);
});
