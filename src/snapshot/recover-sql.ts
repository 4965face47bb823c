import { groupNumber } from "../archive/entry-name.ts";
import type { Definition, SequenceState, TableName } from "../drivers/driver.ts";
import { leaveUndefinedOut } from "./leave-undefined-out.ts";
import type { Manifest, StoredTable } from "./manifest.ts";
import { ownEncodingOf } from "./own-encoding.ts";

// Names stand in quoted identifiers and literals only, never in a comment: a newline in a name would end the comment and
// the rest of the name would be run.

const SECTION_START = [
  "SET search_path = '';",
  "SET check_function_bodies = off;",
  "SET client_min_messages = warning;",
];

/** Renders `schema.sql`. Its first line tells how many lines come before the rows; what follows comes after them. */
export function renderSchemaSql(definitions: readonly Definition[]): string {
  const part = (section: Definition["section"]) => [
    ...SECTION_START,
    ...definitions
      .filter(({ section: own, kind }) => own === section && kind !== "grant")
      .map(({ sql }) => `\n${endStatement(sql)}`),
  ];
  const before = `${["-- rowkeep: definitions before the rows", ...part("pre-data")].join("\n")}\n`;
  const after = `${["-- rowkeep: definitions after the rows", ...part("post-data")].join("\n")}\n`;
  const lines = before.split("\n").length;
  return `-- rowkeep: lines before the rows: ${lines}\n${before}${after}`;
}

function endStatement(sql: string): string {
  const text = sql.trimEnd();
  return text.endsWith(";") ? text : `${text}\n;`;
}

/** One entry for people in the last volume. */
export interface RecoverEntry {
  readonly name: string;
  readonly text: string;
}

/** Gives the SQL files that RECOVER.md speaks of. Table number N of the list must be group N of the chunks' entries. */
export function* recoverEntries(
  content: Pick<Manifest, "definitions" | "tables" | "sequences" | "largeObjects" | "settings">,
): Iterable<RecoverEntry> {
  const ownEncoding = ownEncodingOf(content);
  // Names are UTF-8 all the same.
  const settings = renderSettings(ownEncoding ? { ...content.settings, client_encoding: "UTF8" } : content.settings);
  for (const [index, table] of content.tables.entries()) {
    if (table.segments.every(({ chunks }) => chunks.length === 0)) continue;
    const name = `recover/${groupNumber(index + 1)}.${table.format}.sql`;
    yield { name, text: `${settings}${renderCopy(table, ownEncoding)}` };
  }
  // One that is not there would end the transaction of all.
  const { sequences } = leaveUndefinedOut(content).content;
  yield { name: "recover/sequences.sql", text: sequences.map(renderSetval).join("") };
  if (content.largeObjects.chunks.length > 0) {
    yield { name: "recover/large-objects.sql", text: `${settings}${LARGE_OBJECTS}` };
  }
}

function renderSettings(settings: Readonly<Record<string, string>>): string {
  return Object.entries(settings)
    .map(([name, value]) => `SET ${name} = ${literal(value)};\n`)
    .join("");
}

function renderCopy(table: StoredTable, encoding: string | undefined): string {
  const columns = table.columns.filter(({ generated }) => generated === undefined).map(({ name }) => identifier(name));
  const options = encoding === undefined ? "" : ` (ENCODING ${literal(encoding)})`;
  const format = table.format === "binary" ? " (FORMAT binary)" : options;
  // Rows of a partition go in through its root: the bounds of the partitions may have changed since.
  const list = columns.length > 0 ? ` (${columns.join(", ")})` : "";
  return `COPY ${qualified(table.partitionRoot ?? table)}${list} FROM STDIN${format};\n`;
}

function renderSetval(sequence: SequenceState): string {
  const name = literal(qualified(sequence));
  return `SELECT pg_catalog.setval(${name}::pg_catalog.regclass, ${sequence.lastValue}, ${sequence.isCalled});\n`;
}

const LARGE_OBJECTS = `CREATE TEMPORARY TABLE rowkeep_large_objects (loid oid, start bigint, bytes bytea);
COPY pg_temp.rowkeep_large_objects FROM STDIN;
SELECT count(pg_catalog.lo_create(loid)) FROM (SELECT DISTINCT loid FROM pg_temp.rowkeep_large_objects) AS every;
SELECT count(*) FROM (
  SELECT pg_catalog.lo_put(loid, start, bytes) FROM pg_temp.rowkeep_large_objects WHERE bytes <> '' OFFSET 0
) AS every;
`;

function qualified({ schema, name }: TableName): string {
  return `${identifier(schema)}.${identifier(name)}`;
}

function identifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** For `standard_conforming_strings = on`; a backslash switches to the form that means the same with it off. */
function literal(value: string): string {
  const quoted = `'${value.replaceAll("'", "''").replaceAll("\\", "\\\\")}'`;
  return value.includes("\\") ? `E${quoted}` : quoted;
}
