import { OperationalError } from "../base/errors.ts";
import type { Connection, SequenceState, ServerIdentity, TableName } from "../drivers/driver.ts";
import { openReplacer } from "../drivers/open-driver.ts";
import type { Replacer, TargetTable } from "../drivers/replacer.ts";
import type { MergeMode } from "../drivers/row-merge.ts";
import { findDrift, planUnits, type RestoreUnit, storedColumnsOf } from "../plan/plan-restore.ts";
import { matchTables } from "../plan/table-patterns.ts";
import type { Manifest } from "../snapshot/manifest.ts";
import type { SnapshotReader } from "../snapshot/snapshot-reader.ts";
import { guardTarget } from "./guard-target.ts";
import type { Report } from "./progress.ts";
import { streamsOf } from "./table-streams.ts";

export interface RestoreOptions {
  readonly reader: SnapshotReader;
  readonly target: Connection;
  /** The target was named by itself (`--to <url>`), so it may be another database than the snapshot's. */
  readonly isNamed: boolean;
  /** What the person says the target database is called (`--target-db`). */
  readonly targetDb?: string | undefined;
  /** Patterns; undefined: all tables of the snapshot. */
  readonly tables?: readonly string[] | undefined;
  readonly planOnly: boolean;
  /** Asked once, with the plan; false stops before anything is changed. */
  readonly confirm: (plan: RestorePlan) => Promise<boolean>;
  /** Takes a snapshot of what is about to be replaced, and gives its id. Undefined: none is taken. */
  readonly takeSafetySnapshot?: ((tables: readonly TableName[], target: ServerIdentity) => Promise<string>) | undefined;
  readonly allowConversion: boolean;
  readonly ignoreMissing: boolean;
  readonly stallTimeoutMs: number;
  readonly signal: AbortSignal;
  readonly report: Report;
}

export interface RestoredTable {
  readonly schema: string;
  readonly name: string;
  readonly deleted: number;
  readonly inserted: number;
  /** Only where rows are merged. */
  readonly updated?: number | undefined;
}

export interface RestorePlan {
  readonly target: ServerIdentity;
  readonly source: ServerIdentity;
  readonly snapshot: string;
  readonly tables: readonly RestoredTable[];
  readonly foreignKeys: readonly string[];
  readonly triggers: readonly string[];
  readonly warnings: readonly string[];
  /** What the person may want to know and did not ask for: nothing is wrong. */
  readonly notes?: readonly string[] | undefined;
  /** Only where chosen rows are merged. */
  readonly mode?: MergeMode | undefined;
}

export interface RestoreResult {
  readonly target: ServerIdentity;
  readonly tables: readonly RestoredTable[];
  readonly safetySnapshot?: string | undefined;
  readonly warnings: readonly string[];
  readonly notes?: readonly string[] | undefined;
  /** Only where chosen rows were merged. */
  readonly mode?: MergeMode | undefined;
}

/**
 * Replaces the rows of existing tables with those of a snapshot, in one transaction: a failure, an abort or a kill leaves
 * the target as it was. Row counts are checked, and every byte's hash, before the commit.
 * Fails with kind `refused` (wrong target, drift, not confirmed), `usage`, `archive`, `database`.
 */
export async function restoreSnapshot(options: RestoreOptions): Promise<RestoreResult> {
  const { reader, report } = options;
  const { manifest } = reader;
  const chosen = options.tables ? matchTables(options.tables, manifest.tables) : manifest.tables;
  const units = planUnits(chosen, manifest.tables);
  report({ type: "phase", text: `looking at ${options.target.database}` });
  const plan = await lookAt(options, units);
  if (options.planOnly) return { target: plan.target, tables: plan.tables, warnings: plan.warnings };
  if (!(await options.confirm(plan))) {
    throw new OperationalError(`cannot restore ${manifest.id}: you said no`, {
      kind: "refused",
      code: "not-confirmed",
    });
  }
  const safetySnapshot = await takeSafety(options, plan);
  const { tables, warnings } = await replaceAll(options, units);
  return {
    target: plan.target,
    tables,
    ...(safetySnapshot ? { safetySnapshot } : {}),
    warnings: [...plan.warnings, ...warnings],
  };
}

/** Makes the plan, without locks and without changing anything. */
async function lookAt(options: RestoreOptions, units: readonly RestoreUnit[]): Promise<RestorePlan> {
  await using replacer = await openReplacer(options.target, options);
  guardTarget({ ...options, manifest: options.reader.manifest, target: replacer.identity });
  const found = await replacer.inspect(
    units.map(({ table }) => table),
    { lock: false },
  );
  const { targets, warnings } = checkUnits(options, units, found);
  return {
    target: replacer.identity,
    source: options.reader.manifest.source,
    snapshot: options.reader.manifest.id,
    tables: targets.map(({ unit, target }) => ({ ...unit.table, deleted: target.rows, inserted: unit.rows })),
    foreignKeys: [...new Set(targets.flatMap(({ target }) => target.foreignKeys))],
    triggers: targets.flatMap(({ target }) =>
      target.triggers.map((name) => `${target.schema}.${target.name}: ${name}`),
    ),
    warnings,
  };
}

export interface UnitTarget {
  readonly unit: RestoreUnit;
  readonly target: TargetTable;
  readonly missing: ReadonlySet<string>;
}

/** Pairs what is stored with what is there. Fails with kind `refused`, all reasons at once. */
export function checkUnits(
  options: RestoreOptions,
  units: readonly RestoreUnit[],
  found: readonly TargetTable[],
): { readonly targets: readonly UnitTarget[]; readonly warnings: readonly string[] } {
  const problems: string[] = [];
  const warnings: string[] = [];
  const targets: UnitTarget[] = [];
  for (const unit of units) {
    const { schema, name } = unit.table;
    const target = found.find((table) => table.schema === schema && table.name === name);
    if (!target) {
      (options.ignoreMissing ? warnings : problems).push(`the table ${schema}.${name} is missing in the target`);
      continue;
    }
    const drifts = unit.parts.map((part) => findDrift(part, target, options));
    problems.push(...new Set(drifts.flatMap((drift) => drift.problems)));
    warnings.push(...new Set(drifts.flatMap((drift) => drift.warnings)), ...target.warnings);
    targets.push({ unit, target, missing: new Set(drifts.flatMap((drift) => drift.missing)) });
  }
  const binary = targets.find(({ unit, missing }) => missing.size > 0 && unit.parts.some((part) => part.rows > 0));
  if (binary)
    problems.push(
      `rows of ${binary.unit.table.schema}.${binary.unit.table.name} cannot be loaded without the missing columns`,
    );
  if (problems.length > 0) throw refused(options.reader.manifest, problems);
  return { targets, warnings };
}

function refused(manifest: Manifest, problems: readonly string[]): OperationalError {
  const list = problems.length === 1 ? problems[0] : `\n${problems.map((problem) => `  ${problem}`).join("\n")}`;
  return new OperationalError(`cannot restore ${manifest.id}: ${list}`, {
    kind: "refused",
    code: "drift",
    hint: "Restore other tables with --tables, into an empty database with --create, or see --allow-conversion and --ignore-missing.",
  });
}

async function takeSafety(options: RestoreOptions, plan: RestorePlan): Promise<string | undefined> {
  const full = plan.tables.filter(({ deleted }) => deleted > 0);
  if (!options.takeSafetySnapshot || full.length === 0) return undefined;
  options.report({ type: "phase", text: "taking a safety snapshot of what will be replaced" });
  return options.takeSafetySnapshot(plan.tables, plan.target);
}

async function replaceAll(
  options: RestoreOptions,
  units: readonly RestoreUnit[],
): Promise<{ readonly tables: readonly RestoredTable[]; readonly warnings: readonly string[] }> {
  const { reader, report, signal } = options;
  const { manifest } = reader;
  await using replacer = await openReplacer(options.target, options);
  guardTarget({ ...options, manifest, target: replacer.identity });
  report({ type: "phase", text: "replacing rows" });
  const found = await replacer.inspect(
    units.map(({ table }) => table),
    { lock: true },
  );
  // The world may have changed since the plan: under the locks it is looked at again.
  const { targets } = checkUnits(options, units, found);
  report({
    type: "plan",
    tables: targets.map(({ unit }) => ({ table: labelOf(unit.table), estimatedRows: unit.rows, bytes: sizeOf(unit) })),
  });
  await replacer.open();
  const tables: RestoredTable[] = [];
  for (const { unit } of targets) tables.push(await replaceOne(replacer, reader, unit, options));
  if (options.tables === undefined && manifest.largeObjects.chunks.length > 0) {
    await replacer.loadLargeObjects(reader.chunks(manifest.largeObjects.chunks, { signal }));
  }
  report({ type: "phase", text: "checking foreign keys" });
  const restored = targets.map(({ unit }) => unit);
  const warnings = [...(await replacer.finish(sequencesOf(manifest, restored, options.tables === undefined)))];
  signal.throwIfAborted();
  warnings.push(...(await replacer.commit()));
  return { tables, warnings };
}

async function replaceOne(
  replacer: Replacer,
  reader: SnapshotReader,
  unit: RestoreUnit,
  { report, signal }: Pick<RestoreOptions, "report" | "signal">,
): Promise<RestoredTable> {
  const { table } = unit;
  const label = labelOf(table);
  report({ type: "table-start", table: label });
  const deleted = await replacer.clear(table);
  let inserted = 0;
  for (const part of unit.parts) {
    const rows = await replacer.load({
      table,
      columns: storedColumnsOf(part),
      format: part.format,
      streams: streamsOf(reader, part, signal, (bytes) => report({ type: "rows", table: label, rows: 0, bytes })),
    });
    if (rows !== part.rows) throw wrongCount(label, part.rows, rows);
    report({ type: "rows", table: label, rows, bytes: 0 });
    inserted += rows;
  }
  const counted = await replacer.countRows(table);
  if (counted !== inserted) throw wrongCount(label, inserted, counted);
  report({ type: "table-done", table: label, rows: inserted });
  return { ...table, deleted, inserted };
}

/** The sequences of the restored tables; those that belong to no table only when everything is restored. */
export function sequencesOf(
  manifest: Manifest,
  units: readonly RestoreUnit[],
  everything: boolean,
): readonly SequenceState[] {
  const names = new Set(units.flatMap(({ table, parts }) => [labelOf(table), ...parts.map(labelOf)]));
  return manifest.sequences.filter(({ ownedBy }) =>
    ownedBy ? names.has(labelOf({ schema: ownedBy.schema, name: ownedBy.table })) : everything,
  );
}

function wrongCount(table: string, expected: number, got: number): OperationalError {
  return new OperationalError(`cannot restore ${table}: ${got} rows arrived where the snapshot has ${expected}`, {
    kind: "database",
    code: "count-mismatch",
    hint: "Nothing was changed. Look for triggers or rules on the table that could swallow or add rows.",
  });
}

function labelOf({ schema, name }: TableName): string {
  return `${schema}.${name}`;
}

function sizeOf(unit: RestoreUnit): number {
  return unit.parts.reduce((sum, part) => sum + part.rawBytes, 0);
}
