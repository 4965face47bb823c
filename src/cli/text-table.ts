import { stripVTControlCharacters } from "node:util";

export interface TableColumn {
  readonly title: string;
  readonly align?: "left" | "right";
  /** Where the terminal is too narrow, columns that have this go, the lowest first. */
  readonly goesAt?: number;
}

/**
 * Renders rows under titles, aligned by spaces. Control characters of names (they come from databases and archives)
 * are shown as `?`, so that none can move the cursor or forge a line; colours of our own stay.
 */
export function renderTable(columns: readonly TableColumn[], rows: readonly (readonly string[])[]): string[] {
  const cells = rows.map((row) => columns.map((_, index) => row[index] ?? ""));
  const widths = widthsOf(columns, cells);
  const render = (row: readonly string[]) =>
    columns
      .map((column, index) => pad(row[index] ?? "", widths[index] ?? 0, column.align ?? "left"))
      .join("  ")
      .trimEnd();
  return [render(columns.map((column) => column.title)), ...cells.map(render)];
}

function pad(text: string, width: number, align: "left" | "right"): string {
  const space = " ".repeat(Math.max(0, width - widthOf(text)));
  return align === "right" ? space + text : text + space;
}

/** Leaves out columns that have `goesAt` until the table is as narrow as `maxWidth`, as far as that can be done. */
export function fitTable(columns: readonly TableColumn[], rows: readonly (readonly string[])[], maxWidth: number) {
  const widths = widthsOf(columns, rows);
  const going = columns.filter(({ goesAt }) => goesAt !== undefined);
  going.sort((a, b) => (a.goesAt ?? 0) - (b.goesAt ?? 0));
  const gone = new Set<TableColumn>();
  const stays = (_: unknown, index: number) => !gone.has(columns[index] as TableColumn);
  for (const column of going) {
    if (widths.filter(stays).reduce((sum, width) => sum + width + 2, -2) <= maxWidth) break;
    gone.add(column);
  }
  const leftOut = [...gone].map(({ title }) => title);
  return { columns: columns.filter(stays), rows: rows.map((row) => row.filter(stays)), leftOut };
}

function widthsOf(columns: readonly TableColumn[], rows: readonly (readonly string[])[]): number[] {
  return columns.map(({ title }, index) => Math.max(widthOf(title), ...rows.map((row) => widthOf(row[index] ?? ""))));
}

/** Columns that a text takes in a terminal: colours take none, East Asian wide characters and emoji take two. */
export function widthOf(text: string): number {
  if (/^[ -~]*$/.test(text)) return text.length;
  let width = 0;
  for (const character of stripVTControlCharacters(text)) {
    if (/\p{Mark}/u.test(character)) continue;
    width += /[ᄀ-ᅟ⺀-꓏가-힣豈-﫿︰-﹯＀-｠￠-￦]|\p{Emoji_Presentation}/u.test(character) ? 2 : 1;
  }
  return width;
}

/** Shows control characters as `?`. For every name that comes from a database or an archive. */
export function plain(text: string): string {
  // oxlint-disable-next-line no-control-regex -- finding control characters is what this is for
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, "?");
}
