import { formatBytes, formatCount, formatDuration, formatPlural, formatRate, formatRowRate } from "../format.ts";
import { plain, renderTable, widthOf } from "../text-table.ts";
import { type ProgressState, shareOf, type TableProgress } from "./progress-state.ts";

const MOST_TABLES = 4;
const MOST_SUMMARY_ROWS = 30;

/** Renders the overall line: `backing up: 42 %, ETA 6.1 s, 3,100,000 rows, 620 MB, 510,000 rows/s, 102 MB/s`. */
export function renderOverall(state: ProgressState, now: number): string {
  const phase = plain(state.phase || "working");
  if (state.startedAt === undefined) return phase;
  const elapsed = now - state.startedAt;
  const share = state.share();
  const remaining = state.remainingMs(now);
  return [
    share === undefined ? phase : `${phase}: ${Math.floor(share * 100)} %`,
    // In front, because a narrow terminal cuts the end.
    ...(remaining === undefined ? [] : [`ETA ${formatDuration(remaining)}`]),
    formatPlural(state.rows, "row"),
    formatBytes(state.bytes),
    ...(elapsed >= 500 ? [formatRowRate(state.rows, elapsed), formatRate(state.bytes, elapsed)] : []),
    ...(state.storedBytes > 0 ? [`${formatBytes(state.storedBytes)} stored`] : []),
  ].join(", ");
}

/** Renders the overall line and one line for each running table, none wider than the terminal. */
export function renderScreen(state: ProgressState, now: number, columns: number): string {
  const running = state.running;
  const lines = running.slice(0, MOST_TABLES).map(renderRunning);
  if (running.length > MOST_TABLES) lines.push(`  and ${running.length - MOST_TABLES} more`);
  // Two columns are the spinner's.
  return [renderOverall(state, now), ...lines].map((line) => cut(line, Math.max(20, columns) - 3)).join("\n");
}

/** Renders the table shown at the end of a run; the largest tables only when there are many. */
export function renderSummary(state: ProgressState, now: number): readonly string[] {
  const tables = state.tables;
  if (tables.length === 0) return [];
  const shown = [...tables].sort((a, b) => b.bytes - a.bytes || b.rows - a.rows).slice(0, MOST_SUMMARY_ROWS);
  const elapsed = now - (state.startedAt ?? now);
  const showStored = tables.some((table) => table.storedBytes !== undefined);
  const stored = (bytes: number | undefined) => (showStored ? [bytes === undefined ? "" : formatBytes(bytes)] : []);
  const rows = shown.map((table) => [
    plain(table.table),
    formatCount(table.rows),
    formatBytes(table.bytes),
    ...stored(table.storedBytes),
    table.endedAt === undefined || table.startedAt === undefined ? "" : formatDuration(table.endedAt - table.startedAt),
  ]);
  if (tables.length > shown.length) rows.push([`and ${formatCount(tables.length - shown.length)} more`]);
  const sum = (value: (table: TableProgress) => number) => tables.reduce((total, table) => total + value(table), 0);
  rows.push([
    "total",
    formatCount(sum((table) => table.rows)),
    formatBytes(sum((table) => table.bytes)),
    ...stored(sum((table) => table.storedBytes ?? 0)),
    formatDuration(elapsed),
  ]);
  const right = (title: string) => ({ title, align: "right" as const });
  return renderTable(
    [{ title: "table" }, right("rows"), right("raw"), ...(showStored ? [right("stored")] : []), right("time")],
    rows,
  );
}

/** Gives the fields of a `{"type":"progress",…}` line. */
export function progressRecordOf(state: ProgressState, now: number): Readonly<Record<string, unknown>> {
  const share = state.share();
  const remaining = state.remainingMs(now);
  return {
    type: "progress",
    phase: state.phase,
    rows: state.rows,
    rawBytes: state.bytes,
    storedBytes: state.storedBytes,
    elapsedMs: Math.round(now - (state.startedAt ?? now)),
    ...(share === undefined ? {} : { share: Math.round(share * 1000) / 1000 }),
    ...(remaining === undefined ? {} : { remainingMs: Math.round(remaining) }),
    tables: state.running.map((table) => ({ table: table.table, rows: table.rows, rawBytes: table.bytes })),
  };
}

function renderRunning(table: TableProgress): string {
  const share = table.estimatedRows > 0 ? ` ${Math.floor(shareOf(table) * 100)} %` : "";
  return `  ${plain(table.table)}${share}, ${formatPlural(table.rows, "row")}, ${formatBytes(table.bytes)}`;
}

function cut(text: string, width: number): string {
  if (widthOf(text) <= width) return text;
  let kept = "";
  let used = 0;
  for (const character of text) {
    used += widthOf(character);
    if (used > width - 1) break;
    kept += character;
  }
  return `${kept}…`;
}
