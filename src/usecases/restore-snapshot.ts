import { formatCount, formatPlural } from "../base/counts.ts";
import { OperationalError } from "../base/errors.ts";
import type { Connection, Definition, SequenceState, ServerIdentity, TableName } from "../drivers/driver.ts";
import { openReplacer } from "../drivers/open-driver.ts";
import type { Replacer, TargetTable } from "../drivers/replacer.ts";
import type { MergeMode } from "../drivers/row-merge.ts";
import { findTypeDrift } from "../plan/find-type-drift.ts";
import { findDrift, planUnits, type RestoreUnit, storedColumnsOf } from "../plan/plan-restore.ts";
import { matchTables } from "../plan/table-patterns.ts";
import type { ChunkRef, Manifest, StoredTable } from "../snapshot/manifest.ts";
import type { SnapshotReader } from "../snapshot/snapshot-reader.ts";
import { ownEncodingOf } from "../snapshot/own-encoding.ts";
import { guardTarget } from "./guard-target.ts";
import { discardUnlessDone, type SafetyRequest, type SafetySnapshot } from "./safety-snapshot.ts";
import { streamsOf } from "./table-streams.ts";
import { findArchived, requestThaw, type ThawNeed, type ThawOptions, waitForThaw } from "./thaw-volumes.ts";

export interface RestoreOptions extends ThawOptions {
  readonly reader: SnapshotReader;
  readonly target: Connection;
  /** The target was named by itself (`--to <url>`), so it may be another database than the snapshot's. */
  readonly isNamed: boolean;
  /** It was named as the second site (`--to dr`), so it must not be the one that the snapshot was taken from. */
  readonly isDr?: boolean | undefined;
  /** What the person says the target database is called (`--target-db`). */
  readonly targetDb?: string | undefined;
  /** Patterns; undefined: all tables of the snapshot. */
  readonly tables?: readonly string[] | undefined;
  readonly planOnly: boolean;
  /** Asked once, with the plan; false stops before anything is changed. */
  readonly confirm: (plan: RestorePlan) => Promise<boolean>;
  /** Takes a snapshot of what is about to be replaced. Undefined: none is taken. */
  readonly takeSafetySnapshot?: ((request: SafetyRequest) => Promise<SafetySnapshot>) | undefined;
  /** Asked under the locks, before anything is changed; fails with what has come to speak against it since the question. */
  readonly checkAgain?: (() => Promise<void>) | undefined;
  readonly allowConversion: boolean;
  readonly ignoreMissing: boolean;
  /** Chunks that the caller reads afterwards: they must be readable too. */
  readonly alsoNeeded?: readonly ChunkRef[] | undefined;
  readonly stallTimeoutMs: number;
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
  /** When the snapshot was taken; ISO 8601. */
  readonly createdAt: string;
  readonly tables: readonly RestoredTable[];
  readonly foreignKeys: readonly string[];
  readonly triggers: readonly string[];
  readonly warnings: readonly string[];
  /** What the person may want to know and did not ask for: nothing is wrong. */
  readonly notes?: readonly string[] | undefined;
  /** Only where chosen rows are merged. */
  readonly mode?: MergeMode | undefined;
  /** What must be thawed first; left out when everything can be read. */
  readonly thaw?: ThawNeed | undefined;
}

export interface RestoreResult {
  readonly target: ServerIdentity;
  readonly tables: readonly RestoredTable[];
  readonly safetySnapshot?: string | undefined;
  readonly warnings: readonly string[];
  readonly notes?: readonly string[] | undefined;
  /** Only where chosen rows were merged. */
  readonly mode?: MergeMode | undefined;
  /** When that was all that was asked for: nothing was done. */
  readonly plan?: RestorePlan | undefined;
}

/**
 * Replaces the rows of existing tables with those of a snapshot, in one transaction: a failure, an abort or a kill leaves
 * the target as it was. Row counts are checked, and every byte's hash, before the commit.
 * What lies in an archive is thawed first, when that is wished: asked for before the question, waited for after it.
 * Fails with kind `refused` (wrong target, drift, archived, not confirmed), `usage`, `archive`, `database`.
 */
export async function restoreSnapshot(options: RestoreOptions): Promise<RestoreResult> {
  const { reader, report } = options;
  const { manifest } = reader;
  const chosen = options.tables ? matchTables(options.tables, manifest.tables) : manifest.tables;
  const units = planUnits(chosen, manifest.tables);
  report({ type: "phase", text: `looking at ${options.target.database}` });
  const looked = await lookAt(options, units);
  const { archived, thaw, warnings: doubts } = await findArchived(options, neededChunks(options, chosen));
  const plan = { ...looked, warnings: [...looked.warnings, ...doubts], ...(thaw ? { thaw } : {}) };
  if (options.planOnly) return { target: plan.target, tables: plan.tables, warnings: plan.warnings, plan };
  const thawing = await requestThaw(options, archived);
  if (!(await options.confirm(plan))) {
    throw new OperationalError(`cannot restore ${manifest.id}: you said no`, {
      kind: "refused",
      code: "not-confirmed",
    });
  }
  await waitForThaw(options, thawing);
  const { tables, warnings, safety } = await replaceAll(options, units);
  return {
    target: plan.target,
    tables,
    ...(safety?.id ? { safetySnapshot: safety.id } : {}),
    warnings: [...plan.warnings, ...(safety?.warnings ?? []), ...warnings],
  };
}

/** What the restore of these tables reads. */
export function* neededChunks(
  { reader, tables, alsoNeeded = [] }: Pick<RestoreOptions, "reader" | "tables" | "alsoNeeded">,
  chosen: readonly StoredTable[],
): Iterable<ChunkRef> {
  for (const { segments, removed } of chosen) {
    for (const { chunks } of segments) yield* chunks;
    if (removed) yield* removed.chunks;
  }
  if (tables === undefined) yield* reader.manifest.largeObjects.chunks;
  yield* alsoNeeded;
}

/** Makes the plan, without locks and without changing anything. */
async function lookAt(options: RestoreOptions, units: readonly RestoreUnit[]): Promise<RestorePlan> {
  await using replacer = await openReplacer(options.target, options);
  guardTarget({ ...options, manifest: options.reader.manifest, target: replacer.identity });
  const found = await replacer.inspect(
    units.map(({ table }) => table),
    { lock: false },
  );
  const { targets, warnings } = checkUnits(options, units, { tables: found, types: await replacer.readTypes() });
  return {
    target: replacer.identity,
    source: options.reader.manifest.source,
    snapshot: options.reader.manifest.id,
    createdAt: options.reader.manifest.createdAt,
    tables: targets.map(plannedTable),
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

function plannedTable({ unit, target }: UnitTarget): RestoredTable {
  return { ...unit.table, deleted: target.rows, inserted: unit.rows };
}

/** Pairs what is stored with what is there. Fails with kind `refused`, all reasons at once. */
export function checkUnits(
  options: RestoreOptions,
  units: readonly RestoreUnit[],
  found: { readonly tables: readonly TargetTable[]; readonly types: readonly Definition[] },
): { readonly targets: readonly UnitTarget[]; readonly warnings: readonly string[] } {
  const problems: string[] = [];
  const warnings: string[] = [];
  const targets: UnitTarget[] = [];
  for (const unit of units) {
    const { schema, name } = unit.table;
    const target = found.tables.find((table) => table.schema === schema && table.name === name);
    if (!target) {
      (options.ignoreMissing ? warnings : problems).push(`the table ${schema}.${name} is missing in the target`);
      continue;
    }
    const drifts = unit.parts.map((part) => findDrift(part, target, options));
    const { definitions } = options.reader.manifest;
    const typeDrifts = unit.parts.map((part) => findTypeDrift(part, definitions, found.types, options));
    const all = [...drifts, ...typeDrifts];
    problems.push(...new Set(all.flatMap((drift) => drift.problems)));
    warnings.push(...new Set(all.flatMap((drift) => drift.warnings)), ...target.warnings);
    targets.push({ unit, target, missing: new Set(drifts.flatMap((drift) => drift.missing)) });
  }
  problems.push(...findNested(targets.map(({ target }) => target)));
  const binary = targets.find(({ unit, missing }) => missing.size > 0 && unit.parts.some((part) => part.rows > 0));
  if (binary)
    problems.push(
      `rows of ${binary.unit.table.schema}.${binary.unit.table.name} cannot be loaded without the missing columns`,
    );
  if (problems.length > 0) throw refused(options.reader.manifest, problems);
  return { targets, warnings };
}

/** What was attached since the snapshot: one table after the other, the rows of the first would be deleted with those of the second. */
function findNested(targets: readonly TargetTable[]): readonly string[] {
  const labels = new Set(targets.map((target) => JSON.stringify([target.schema, target.name])));
  return targets.flatMap((target) =>
    target.partitionOf
      .filter(({ schema, name }) => labels.has(JSON.stringify([schema, name])))
      .map(
        (root) =>
          `${labelOf(target)} is a partition of ${labelOf(root)} there, but not in the snapshot: detach it, or restore them one by one with --tables`,
      ),
  );
}

function refused(manifest: Manifest, problems: readonly string[]): OperationalError {
  const list = problems.length === 1 ? problems[0] : `\n${problems.map((problem) => `  ${problem}`).join("\n")}`;
  return new OperationalError(`cannot restore ${manifest.id}: ${list}`, {
    kind: "refused",
    code: "drift",
    hint: "Restore other tables with --tables, into an empty database with --create, or see --allow-conversion and --ignore-missing.",
  });
}

/**
 * Under the locks, before anything is altered: it holds exactly what is about to be changed. Of empty tables too: what `undo` puts
 * back is what the last restore replaced, never what an older one did.
 */
export async function takeSafety(
  { takeSafetySnapshot }: Pick<RestoreOptions, "takeSafetySnapshot">,
  replacer: Replacer,
  tables: readonly TableName[],
): Promise<SafetySnapshot | undefined> {
  if (!takeSafetySnapshot || tables.length === 0) return undefined;
  return takeSafetySnapshot({ tables, target: replacer.identity, transaction: await replacer.transaction() });
}

interface Replaced {
  readonly tables: readonly RestoredTable[];
  readonly safety: SafetySnapshot | undefined;
  readonly warnings: readonly string[];
}

async function replaceAll(options: RestoreOptions, units: readonly RestoreUnit[]): Promise<Replaced> {
  const { reader, report, signal } = options;
  const { manifest } = reader;
  await using replacer = await openReplacer(options.target, options);
  guardTarget({ ...options, manifest, target: replacer.identity });
  const found = await replacer.inspect(
    units.map(({ table }) => table),
    { lock: true },
  );
  // The world may have changed since the plan: under the locks it is looked at again.
  const { targets } = checkUnits(options, units, { tables: found, types: await replacer.readTypes() });
  await options.checkAgain?.();
  const safety = await takeSafety(
    options,
    replacer,
    targets.map(({ unit }) => unit.table),
  );
  report({ type: "phase", text: "replacing rows" });
  report({
    type: "plan",
    tables: targets.map(({ unit }) => ({ table: labelOf(unit.table), estimatedRows: unit.rows, bytes: sizeOf(unit) })),
  });
  return await discardUnlessDone(safety, async () => {
    await replacer.open();
    const tables: RestoredTable[] = [];
    for (const { unit } of targets) tables.push(await replaceOne(replacer, unit, options));
    if (options.tables === undefined && manifest.largeObjects.chunks.length > 0) {
      await replacer.loadLargeObjects(reader.chunks(manifest.largeObjects.chunks, { signal }));
    }
    report({ type: "phase", text: "checking foreign keys" });
    const warnings = [...(await replacer.finish(sequencesOf(manifest, targets, options.tables === undefined)))];
    signal.throwIfAborted();
    warnings.push(...(await replacer.commit()));
    return { tables, warnings, safety };
  });
}

async function replaceOne(replacer: Replacer, unit: RestoreUnit, options: RestoreOptions): Promise<RestoredTable> {
  const { table } = unit;
  const label = labelOf(table);
  options.report({ type: "table-start", table: label });
  const deleted = await replacer.clear(table);
  let inserted = 0;
  for (const part of unit.parts) {
    const rows = await loadPart(replacer, { table, part }, options);
    if (rows !== part.rows) throw wrongCount(label, part.rows, rows);
    options.report({ type: "rows", table: label, rows, bytes: 0 });
    inserted += rows;
  }
  const counted = await replacer.countRows(table);
  if (counted !== inserted) throw wrongCount(label, inserted, counted);
  options.report({ type: "table-done", table: label, rows: inserted });
  return { ...table, deleted, inserted };
}

/** Loads the rows of one stored table, whatever today's checks say, where they were the same when the snapshot was taken. */
async function loadPart(
  replacer: Replacer,
  { table, part }: { readonly table: TableName; readonly part: StoredTable },
  { reader, report, signal }: RestoreOptions,
): Promise<number> {
  const label = labelOf(table);
  for (;;) {
    try {
      return await replacer.load({
        table,
        columns: storedColumnsOf(part),
        format: part.format,
        encoding: ownEncodingOf(reader.manifest),
        streams: streamsOf(reader, part, signal, (bytes) => report({ type: "rows", table: label, rows: 0, bytes })),
      });
    } catch (error) {
      await replacer.takeOffCheck(error, table, reader.manifest.definitions);
    }
  }
}

/** The sequences that restored tables own or use; those that belong to no table all when everything is restored. */
export function sequencesOf(
  manifest: Manifest,
  restored: readonly Pick<UnitTarget, "unit" | "target">[],
  everything: boolean,
): readonly SequenceState[] {
  const tables = new Set(restored.flatMap(({ unit }) => [unit.table, ...unit.parts].map(labelOf)));
  const used = new Set(restored.flatMap(({ target }) => target.sequences.map(labelOf)));
  return manifest.sequences.filter((sequence) => {
    const { ownedBy } = sequence;
    const isOwn = ownedBy ? tables.has(labelOf({ schema: ownedBy.schema, name: ownedBy.table })) : everything;
    return isOwn || used.has(labelOf(sequence));
  });
}

function wrongCount(table: string, expected: number, got: number): OperationalError {
  return new OperationalError(
    `cannot restore ${table}: ${formatPlural(got, "row")} arrived where the snapshot has ${formatCount(expected)}`,
    {
      kind: "database",
      code: "count-mismatch",
      hint: "Nothing was changed. Look for triggers or rules on the table that could swallow or add rows.",
    },
  );
}

function labelOf({ schema, name }: TableName): string {
  return `${schema}.${name}`;
}

function sizeOf(unit: RestoreUnit): number {
  return unit.parts.reduce((sum, part) => sum + part.rawBytes, 0);
}
