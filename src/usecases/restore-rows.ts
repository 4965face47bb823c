import { formatCount, formatPlural } from "../base/counts.ts";
import { OperationalError } from "../base/errors.ts";
import { openReplacer } from "../drivers/open-driver.ts";
import type { Replacer, TargetTable } from "../drivers/replacer.ts";
import type { MergeCounts, MergeMode, RowMerge } from "../drivers/row-merge.ts";
import { type BoundCondition, bindCondition } from "../plan/bind-condition.ts";
import { chooseUnit } from "../plan/choose-unit.ts";
import { checkMerge } from "../plan/plan-merge.ts";
import { type RestoreUnit, storedColumnsOf } from "../plan/plan-restore.ts";
import { parseCondition, type RowCondition } from "../plan/row-condition.ts";
import { bytesOf } from "../plan/value-kinds.ts";
import type { StoredTable } from "../snapshot/manifest.ts";
import { ownEncodingOf } from "../snapshot/own-encoding.ts";
import { guardTarget } from "./guard-target.ts";
import {
  checkUnits,
  neededChunks,
  type RestoreOptions,
  type RestorePlan,
  type RestoreResult,
  sequencesOf,
  takeSafety,
} from "./restore-snapshot.ts";
import type { RowBuffer } from "./row-buffer.ts";
import { discardUnlessDone } from "./safety-snapshot.ts";
import { type SelectedRow, selectRows } from "./select-rows.ts";
import { findArchived, requestThaw, waitForThaw } from "./thaw-volumes.ts";

export interface RestoreRowsOptions extends Omit<RestoreOptions, "ignoreMissing" | "tables"> {
  /** Patterns that mean one table. */
  readonly tables: readonly string[];
  /** Undefined: every row. */
  readonly where?: string | undefined;
  readonly mode: MergeMode;
}

/** What was asked for, understood. */
interface Request extends RestoreRowsOptions {
  readonly unit: RestoreUnit;
  readonly condition: RowCondition | undefined;
  readonly parts: readonly { readonly part: StoredTable; readonly condition: BoundCondition | undefined }[];
}

const NEWLINE = Buffer.from("\n");

/**
 * Restores the rows of one table that fulfil a condition, in one transaction; all other rows stay as they are, and so does
 * the target after a failure, an abort or a kill. The safety snapshot holds the whole table.
 * Fails with kind `usage`, `refused` (wrong target, drift, no key, not confirmed), `archive`, `database`.
 */
export async function restoreRows(options: RestoreRowsOptions): Promise<RestoreResult> {
  const request = readRequest(options);
  const { id } = options.reader.manifest;
  const doubts = await makeReadable(request);
  options.report({ type: "phase", text: `looking at ${options.target.database}` });
  const looked = await lookAt(request);
  const plan = { ...looked, warnings: [...looked.warnings, ...doubts] };
  const { target, tables, warnings, mode } = plan;
  const isIdle = tables.every((table) => table.deleted + table.inserted + (table.updated ?? 0) === 0);
  if (options.planOnly) return { target, tables, warnings, mode, plan };
  if (isIdle) return { target, tables, warnings, mode };
  if (!(await options.confirm(plan))) {
    throw new OperationalError(`cannot restore ${id}: you said no`, { kind: "refused", code: "not-confirmed" });
  }
  const result = await mergeAll(request);
  return { ...result, warnings: [...doubts, ...result.warnings] };
}

function readRequest(options: RestoreRowsOptions): Request {
  const { manifest } = options.reader;
  const unit = chooseUnit(manifest, options.tables);
  const condition = options.where === undefined ? undefined : parseCondition(options.where);
  const { settings } = manifest;
  const parts = unit.parts.map((part) => ({
    part,
    condition: condition && bindCondition(condition, { columns: part.columns, settings }),
  }));
  return { ...options, unit, condition, parts };
}

/** The plan counts rows, so what lies in an archive is thawed before it, when that is wished. Gives warnings. */
async function makeReadable(request: Request): Promise<readonly string[]> {
  const { parts, reader, alsoNeeded, planOnly, thaw } = request;
  const chunks = neededChunks(
    { reader, tables: [], alsoNeeded },
    parts.map(({ part }) => part),
  );
  const { archived, warnings } = await findArchived(request, chunks);
  const pending = await requestThaw({ ...request, thaw: planOnly ? undefined : thaw }, archived);
  await waitForThaw(request, pending);
  return warnings;
}

/** Makes the plan without locks: what it stages ends with its transaction, which is never committed. */
async function lookAt(request: Request): Promise<RestorePlan> {
  await using replacer = await openReplacer(request.target, request);
  const { target, merge, warnings } = await stageAll(replacer, request, { lock: false });
  const { manifest } = request.reader;
  return {
    target: replacer.identity,
    source: manifest.source,
    snapshot: manifest.id,
    createdAt: manifest.createdAt,
    tables: [{ ...request.unit.table, ...(await merge.count(request.mode)) }],
    foreignKeys: target.foreignKeys,
    triggers: target.triggers.map((name) => `${labelOf(target)}: ${name}`),
    warnings,
    mode: request.mode,
  };
}

interface Staged {
  readonly target: TargetTable;
  readonly merge: RowMerge;
  readonly warnings: readonly string[];
}

/** Brings the chosen rows beside the table, and finds those of the table that they replace. */
async function stageAll(replacer: Replacer, request: Request, options: { readonly lock: boolean }): Promise<Staged> {
  const { unit, condition, mode, reader } = request;
  const { identity } = replacer;
  guardTarget({ ...request, manifest: reader.manifest, target: identity });
  const found = await replacer.inspect([unit.table], options);
  const { targets, warnings } = checkUnits({ ...request, ignoreMissing: false }, [unit], {
    tables: found,
    types: await replacer.readTypes(),
  });
  const [checked] = targets;
  if (!checked) throw new RangeError("a table that is missing is refused");
  const { target } = checked;
  const columns = unit.parts[0] ? storedColumnsOf(unit.parts[0]) : [];
  const merge = await replacer.openMerge(unit.table, columns);
  checkMerge(unit, merge, mode);
  request.report({ type: "phase", text: `reading rows of ${labelOf(unit.table)} in the snapshot` });
  for (const part of request.parts) await stagePart(merge, part, request);
  if (mode === "replace") {
    const bound = condition && bindThere(condition, target, identity.encoding);
    await merge.mark({
      columns: bound?.columns ?? [],
      matches: (values) => bound?.matches(values.map((value) => value && bytesOf(value))) ?? true,
    });
  }
  return { target, merge, warnings };
}

async function stagePart(
  merge: RowMerge,
  { part, condition }: Request["parts"][number],
  { reader, signal, report, unit }: Request,
): Promise<void> {
  let selected = 0;
  async function* stream(): AsyncIterable<Uint8Array> {
    const render = ({ bytes }: SelectedRow, out: RowBuffer) => {
      out.append(bytes);
      out.append(NEWLINE);
    };
    for await (const { bytes, rows } of selectRows(reader, part, { condition, columns: [], render, signal })) {
      selected += rows;
      yield bytes;
    }
  }
  const encoding = ownEncodingOf(reader.manifest);
  const columns = storedColumnsOf(part);
  const staged = await merge.stage({ table: unit.table, columns, encoding, streams: [stream()] });
  if (staged !== selected) {
    throw new OperationalError(
      `cannot restore rows of ${labelOf(part)}: ${formatPlural(staged, "row")} arrived where ${formatCount(selected)} were sent`,
      { kind: "database", code: "count-mismatch", hint: "Nothing was changed. Run it again." },
    );
  }
  report({ type: "rows", table: labelOf(unit.table), rows: selected, bytes: 0 });
}

/** The same condition for the rows that are there: its types are those of the target, under the same pinned settings. */
function bindThere(condition: RowCondition, target: TargetTable, encoding: string): BoundCondition {
  if (encoding === "SQL_ASCII") {
    throw new OperationalError(`cannot choose rows of ${labelOf(target)}: the encoding of the database is SQL_ASCII`, {
      kind: "refused",
      code: "no-encoding",
      hint: "Restore the whole table, or use --mode upsert.",
    });
  }
  const columns = target.columns.map(({ name, type, generated }) => ({
    name,
    type,
    generated: generated ? ("stored" as const) : undefined,
  }));
  return bindCondition(condition, { columns, settings: { datestyle: "ISO", timezone: "UTC" } });
}

async function mergeAll(request: Request): Promise<RestoreResult> {
  const { unit, mode, report, signal } = request;
  const { manifest } = request.reader;
  const label = labelOf(unit.table);
  await using replacer = await openReplacer(request.target, request);
  // The world may have changed since the plan: under the locks it is looked at again.
  const { target, merge, warnings } = await stageAll(replacer, request, { lock: true });
  const { deleted, inserted, updated } = await merge.count(mode);
  const isIdle = deleted + inserted + updated === 0;
  const safety = await takeSafety(request, replacer, isIdle ? [] : [unit.table]);
  report({ type: "phase", text: `restoring rows of ${label}` });
  return await discardUnlessDone(safety, async () => {
    await replacer.open();
    const counts = await applyAll(replacer, merge, request);
    const after = await replacer.countRows(unit.table);
    if (after !== target.rows - counts.deleted + counts.inserted) {
      throw new OperationalError(
        `cannot restore rows of ${label}: it has ${formatPlural(after, "row")}, which is another number than planned`,
        {
          kind: "database",
          code: "count-mismatch",
          hint: "Nothing was changed. Look for triggers or rules on the table that could swallow or add rows.",
        },
      );
    }
    report({ type: "phase", text: "checking foreign keys" });
    const more = [...(await replacer.finish(sequencesOf(manifest, [{ unit, target }], false)))];
    signal.throwIfAborted();
    more.push(...(await replacer.commit()));
    return {
      target: replacer.identity,
      tables: [{ ...unit.table, ...counts }],
      ...(safety?.id ? { safetySnapshot: safety.id } : {}),
      warnings: [...warnings, ...(safety?.warnings ?? []), ...more],
      mode,
    };
  });
}

/** Merges the rows, whatever today's checks say, where they were the same when the snapshot was taken. */
async function applyAll(replacer: Replacer, merge: RowMerge, { unit, mode, reader }: Request): Promise<MergeCounts> {
  for (;;) {
    try {
      return await merge.apply(mode);
    } catch (error) {
      await replacer.takeOffCheck(error, unit.table, reader.manifest.definitions);
    }
  }
}

function labelOf({ schema, name }: { readonly schema: string; readonly name: string }): string {
  return `${schema}.${name}`;
}
