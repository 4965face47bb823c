import { formatCount, formatPlural } from "../base/counts.ts";
import type { Definition, SequenceState, Source, SourceTable, TableName } from "../drivers/driver.ts";
import type { Manifest, StoredTable } from "../snapshot/manifest.ts";
import type { Report } from "./progress.ts";
import { RowDigest } from "./row-digest.ts";

export interface DrillProblem {
  /** `public.orders`, `sequence public.orders_id_seq`, `index orders_pkey`. */
  readonly object: string;
  readonly problem: string;
}

export interface CompareRestoredOptions {
  readonly manifest: Manifest;
  /** What was restored. */
  readonly source: Source;
  /** What the snapshot holds, by `keyOf` of the table, and `LARGE_OBJECTS`. */
  readonly wanted: ReadonlyMap<string, RowDigest>;
  /** Whether the definitions must be the same; otherwise a difference is only a warning. */
  readonly areDefinitionsExact: boolean;
  readonly warn: (message: string) => void;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/** Name under which the large objects of a database are counted; no table has it. */
export const LARGE_OBJECTS = "large objects";

const BATCH_BYTES = 1024 * 1024;
/** Ranges of pages keep every statement short; the source makes fewer for small tables. */
const MOST_SEGMENTS = 16;
const MOST_DIFFERENCES = 20;

/** Reads a restored database and tells how it differs from the manifest; nothing when it is the same. */
export async function compareRestored(options: CompareRestoredOptions): Promise<readonly DrillProblem[]> {
  const { manifest, source, signal } = options;
  const { definitions } = await source.describe({ signal });
  const found = new Map(source.tables.map((table) => [keyOf(table), table]));
  const problems: DrillProblem[] = [];
  reportPlan(options);
  const queue = manifest.tables.toSorted((left, right) => left.rawBytes - right.rawBytes);
  const work = async () => {
    for (let table = queue.pop(); table; table = queue.pop()) {
      const problem = await compareTable(options, table, found.get(keyOf(table)));
      if (problem !== undefined) problems.push({ object: labelOf(table), problem });
    }
  };
  await Promise.all(Array.from({ length: source.concurrency }, work));
  problems.push(...(await compareLargeObjects(options)));
  problems.push(...compareSequences(manifest.sequences, await source.sequences({ signal })));
  const differences = compareDefinitions(manifest.definitions, definitions);
  if (options.areDefinitionsExact) return [...problems, ...differences];
  for (const { object, problem } of differences) options.warn(`${object}: ${problem}`);
  return problems;
}

function reportPlan({ manifest, report }: CompareRestoredOptions): void {
  report({
    type: "plan",
    tables: manifest.tables.map((table) => ({
      table: labelOf(table),
      estimatedRows: table.rows,
      bytes: table.rawBytes,
    })),
  });
}

async function compareTable(
  options: CompareRestoredOptions,
  stored: StoredTable,
  table: SourceTable | undefined,
): Promise<string | undefined> {
  if (!table) return "it is missing after the restore";
  const names = new Set(table.columns.map((column) => column.name));
  const lost = stored.columns.find((column) => !names.has(column.name));
  if (lost) return `its column ${lost.name} is missing after the restore`;
  const digest = await digestOf(options, stored, table);
  if (digest.rows !== stored.rows)
    return `${formatPlural(digest.rows, "row")} came back, the snapshot has ${formatCount(stored.rows)}`;
  const wanted = options.wanted.get(keyOf(stored)) ?? new RowDigest();
  return digest.equals(wanted) ? undefined : "its rows came back with other values";
}

async function digestOf(
  { source, signal, report }: CompareRestoredOptions,
  stored: StoredTable,
  table: SourceTable,
): Promise<RowDigest> {
  const label = labelOf(stored);
  report({ type: "table-start", table: label });
  const digest = new RowDigest();
  const { format } = stored;
  // With the snapshot's order of columns, whatever the order in which the server has them now.
  const asStored = { ...table, columns: stored.columns };
  for (const segment of source.segments(asStored, MOST_SEGMENTS)) {
    const sink = digest.open(format);
    for await (const { bytes, rows } of source.rows(asStored, segment, { format, batchBytes: BATCH_BYTES, signal })) {
      sink.push(bytes);
      report({ type: "rows", table: label, rows, bytes: bytes.length });
    }
    sink.end();
  }
  report({ type: "table-done", table: label, rows: digest.rows });
  return digest;
}

async function compareLargeObjects({
  manifest,
  source,
  wanted,
  signal,
}: CompareRestoredOptions): Promise<readonly DrillProblem[]> {
  if (manifest.largeObjects.chunks.length === 0) return [];
  const digest = new RowDigest();
  const sink = digest.open("text");
  for await (const { bytes } of source.largeObjects({ batchBytes: BATCH_BYTES, signal })) sink.push(bytes);
  sink.end();
  if (digest.equals(wanted.get(LARGE_OBJECTS) ?? new RowDigest())) return [];
  return [{ object: LARGE_OBJECTS, problem: "they came back otherwise" }];
}

/** A sequence may stand further than it did (rows can be ahead of it), never behind: it would give a value out twice. */
function compareSequences(
  stored: readonly SequenceState[],
  restored: readonly SequenceState[],
): readonly DrillProblem[] {
  const found = new Map(restored.map((sequence) => [keyOf(sequence), sequence]));
  return stored.flatMap((sequence) => {
    const object = `sequence ${labelOf(sequence)}`;
    const now = found.get(keyOf(sequence));
    if (!now) return [{ object, problem: "it is missing after the restore" }];
    const ahead = (nextOf(now) - nextOf(sequence)) * (BigInt(sequence.increment) > 0n ? 1n : -1n);
    return ahead < 0n ? [{ object, problem: "it stands behind where it stood" }] : [];
  });
}

function nextOf({ lastValue, isCalled, increment }: SequenceState): bigint {
  return BigInt(lastValue) + (isCalled ? BigInt(increment) : 0n);
}

/** What `admitOwner` takes away. */
const FORCED_SECURITY = /^ALTER TABLE ONLY .* FORCE ROW LEVEL SECURITY;$/m;

/** The definitions that a drill restores: no rights, and no row security that binds the owner. */
function comparable(definitions: readonly Definition[]): readonly Definition[] {
  return definitions
    .filter(({ kind }) => kind !== "grant")
    .map((definition) => ({ ...definition, sql: definition.sql.replace(FORCED_SECURITY, "").trim() }))
    .filter(({ sql }) => sql !== "");
}

function compareDefinitions(stored: readonly Definition[], restored: readonly Definition[]): readonly DrillProblem[] {
  const before = comparable(stored);
  const after = comparable(restored);
  const sqlBefore = new Set(before.map(({ sql }) => sql));
  const sqlAfter = new Set(after.map(({ sql }) => sql));
  const problems = [
    ...before.filter(({ sql }) => !sqlAfter.has(sql)).map((one) => problemOf(one, "its definition did not come back")),
    ...after
      .filter(({ sql }) => !sqlBefore.has(sql))
      .map((one) => problemOf(one, "the snapshot has no such definition")),
  ];
  const more = problems.length - MOST_DIFFERENCES;
  if (more <= 0) return problems;
  return [
    ...problems.slice(0, MOST_DIFFERENCES),
    { object: "", problem: formatPlural(more, "further definition differs", "further definitions differ") },
  ];
}

function problemOf({ kind, schema, name }: Definition, problem: string): DrillProblem {
  return { object: `${kind} ${schema === undefined ? "" : `${schema}.`}${name}`, problem };
}

function labelOf({ schema, name }: TableName): string {
  return `${schema}.${name}`;
}

/** Tells apart what a label cannot: names may hold dots. */
export function keyOf({ schema, name }: TableName): string {
  return JSON.stringify([schema, name]);
}
