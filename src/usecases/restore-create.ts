import { OperationalError } from "../base/errors.ts";
import type { Creator } from "../drivers/creator.ts";
import type { Connection, Definition, ServerIdentity, TableName } from "../drivers/driver.ts";
import { openCreator } from "../drivers/open-driver.ts";
import { chooseContent } from "../plan/choose-content.ts";
import { type OwnerPlan, otherOwners, planOwners, renderOwnerFailures } from "../plan/plan-owners.ts";
import { storedColumnsOf } from "../plan/plan-restore.ts";
import type { Manifest, StoredTable } from "../snapshot/manifest.ts";
import type { SnapshotReader } from "../snapshot/snapshot-reader.ts";
import { guardTarget } from "./guard-target.ts";
import type { Report } from "./progress.ts";
import type { RestorePlan, RestoreResult } from "./restore-snapshot.ts";
import { streamsOf } from "./table-streams.ts";

export interface CreateOptions {
  readonly reader: SnapshotReader;
  readonly target: Connection;
  readonly targetDb?: string | undefined;
  /** Patterns; undefined: everything. Chosen tables come with what they need. */
  readonly tables?: readonly string[] | undefined;
  readonly planOnly: boolean;
  readonly confirm: (plan: RestorePlan) => Promise<boolean>;
  /** Connections that write rows and build indexes. */
  readonly parallel: number;
  /** Execute the rights too; the roles that they name must be there. */
  readonly grants: boolean;
  /** Give objects to the owners that they had, where the target has them and lets it. */
  readonly owners: boolean;
  readonly stallTimeoutMs: number;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/**
 * Makes a whole database from a snapshot: definitions, rows, then indexes and keys, several tables at a time. The target
 * must be empty. A failure or an abort empties it again; what a killed process left is recognised and removed by the next
 * restore. Fails with kind `refused` (not empty, wrong target, not confirmed), `archive`, `database`.
 */
export async function restoreIntoEmpty(all: CreateOptions): Promise<RestoreResult> {
  const { options, leftOut } = choose(all);
  const { manifest } = options.reader;
  await using creator = await openCreator(options.target, options);
  guardTarget({ manifest, target: creator.identity, isNamed: true, targetDb: options.targetDb });
  const owners = await readOwnerPlan(options, creator);
  const plan = makePlan(options, creator.identity, { owners, leftOut });
  const { target, tables, notes } = plan;
  if (options.planOnly) return { target, tables, notes, warnings: plan.warnings };
  if (!(await options.confirm(plan))) {
    throw new OperationalError(`cannot restore ${manifest.id}: you said no`, {
      kind: "refused",
      code: "not-confirmed",
    });
  }
  await creator.clearInterrupted();
  await refuseContent(options, creator);
  try {
    const warnings = await fill(options, creator, owners);
    return { target, tables, notes, warnings: [...plan.warnings, ...warnings] };
  } catch (error) {
    await abandon(options, creator);
    throw error;
  }
}

/** Empties the target again. Why the restore failed is what the person must read, not that this failed too. */
async function abandon({ report, target }: CreateOptions, creator: Creator): Promise<void> {
  try {
    await creator.abandon();
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    const message = `${target.database} could not be emptied again: ${error.message}; the next restore --create into it removes what is there`;
    report({ type: "warning", message });
  }
}

/** Narrows the snapshot to chosen tables. */
function choose(options: CreateOptions): { readonly options: CreateOptions; readonly leftOut: readonly string[] } {
  const { reader, tables } = options;
  if (!tables) return { options, leftOut: [] };
  const { manifest, warnings } = chooseContent(reader.manifest, tables);
  const narrowed: SnapshotReader = {
    manifest,
    chunks: (refs, how) => reader.chunks(refs, how),
    [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose](),
  };
  return { options: { ...options, reader: narrowed }, leftOut: warnings };
}

async function readOwnerPlan({ reader, owners: wanted }: CreateOptions, creator: Creator): Promise<OwnerPlan> {
  const { definitions } = reader.manifest;
  const { user } = creator.identity;
  const roles = await creator.readOwnerRoles(otherOwners(definitions, user));
  return planOwners({ definitions, roles, user, wanted });
}

interface PlanParts {
  readonly owners: OwnerPlan;
  readonly leftOut: readonly string[];
}

function makePlan({ reader }: CreateOptions, target: ServerIdentity, { owners, leftOut }: PlanParts): RestorePlan {
  const { manifest } = reader;
  return {
    target,
    source: manifest.source,
    snapshot: manifest.id,
    tables: manifest.tables.map(({ schema, name, rows }) => ({ schema, name, deleted: 0, inserted: rows })),
    foreignKeys: [],
    triggers: [],
    warnings: [...manifest.notCaptured, ...leftOut, ...owners.warnings],
    notes: owners.notes,
  };
}

async function refuseContent({ reader, target }: CreateOptions, creator: Creator): Promise<void> {
  const content = await creator.findContent();
  if (content.length === 0) return;
  const shown = content.slice(0, 5).join(", ");
  throw new OperationalError(
    `cannot restore ${reader.manifest.id} into ${target.database}: it is not empty (${shown})`,
    {
      kind: "refused",
      code: "not-empty",
      hint: "Create a new database for it, or restore rows into the existing tables without --create.",
    },
  );
}

async function fill(options: CreateOptions, creator: Creator, owners: OwnerPlan): Promise<readonly string[]> {
  const { reader, report, signal } = options;
  const { manifest } = reader;
  report({ type: "phase", text: "creating definitions" });
  const refusedBefore = await creator.begin(manifest.id, manifest.definitions.filter(isBefore));
  const tables = manifest.tables.toSorted((left, right) => right.rawBytes - left.rawBytes);
  report({
    type: "plan",
    tables: tables.map((table) => ({ table: labelOf(table), estimatedRows: table.rows, bytes: table.rawBytes })),
  });
  await inParallel(jobsOf(options, creator, tables), options.parallel);
  if (manifest.largeObjects.chunks.length > 0) {
    await creator.loadLargeObjects(reader.chunks(manifest.largeObjects.chunks, { signal }));
  }
  report({ type: "phase", text: "creating foreign keys, triggers and the rest" });
  for (const { sql } of manifest.definitions.filter((definition) => isLast(definition, manifest))) {
    signal.throwIfAborted();
    await creator.execute(sql);
  }
  const refused = [...refusedBefore, ...(await createOptional(options, creator))];
  report({ type: "phase", text: "analysing" });
  const { warnings, ownerFailures } = await creator.finish(manifest.sequences, owners.assign);
  return [...refused, ...warnings, ...renderOwnerFailures(ownerFailures, creator.identity.user)];
}

/** Publications and rights name what the target may lack or forbid: that is told, and the rest goes on. */
async function createOptional({ reader, signal, grants }: CreateOptions, creator: Creator): Promise<readonly string[]> {
  const warnings: string[] = [];
  for (const definition of reader.manifest.definitions) {
    if (!isOptional(definition) || (isRights(definition.kind) && !grants)) continue;
    signal.throwIfAborted();
    const warning = await creator.tryDefinition(definition);
    if (warning) warnings.push(warning);
  }
  return warnings;
}

type Work = () => Promise<void>;

/** Each table's rows, then its keys and indexes, the largest first: one stream sorts an index while another one loads. */
function jobsOf(options: CreateOptions, creator: Creator, tables: readonly StoredTable[]): Work[] {
  const { manifest } = options.reader;
  const jobs: Work[] = [];
  for (const table of tables) {
    jobs.push(async () => {
      await loadTable(options, creator, table);
      const indexes = manifest.definitions.filter((definition) => isIndexOf(definition, table));
      jobs.unshift(
        ...indexes.map(
          ({ sql }) =>
            () =>
              creator.execute(sql),
        ),
      );
    });
  }
  return jobs;
}

/** Works the list off with several workers; a job may add further ones. The first failure ends all. */
async function inParallel(jobs: Work[], workers: number): Promise<void> {
  let running = 0;
  let failure: { error: unknown } | undefined;
  const worker = async () => {
    while (!failure) {
      const job = jobs.shift();
      if (!job) {
        if (running === 0) return;
        // Another worker's job may still add some.
        await new Promise((resolve) => setTimeout(resolve, 5));
        continue;
      }
      running += 1;
      try {
        await job();
      } catch (error) {
        failure ??= { error };
      } finally {
        running -= 1;
      }
    }
  };
  await Promise.all(Array.from({ length: workers }, worker));
  if (failure) throw failure.error;
}

async function loadTable(
  { reader, report, signal }: CreateOptions,
  creator: Creator,
  table: StoredTable,
): Promise<void> {
  signal.throwIfAborted();
  const label = labelOf(table);
  report({ type: "table-start", table: label });
  const rows = await creator.load({
    table,
    columns: storedColumnsOf(table),
    format: table.format,
    streams: streamsOf(reader, table, signal, (bytes) => report({ type: "rows", table: label, rows: 0, bytes })),
    isWhole: table.condition === undefined,
  });
  if (rows !== table.rows) {
    throw new OperationalError(`cannot restore ${label}: ${rows} rows arrived where the snapshot has ${table.rows}`, {
      kind: "database",
      code: "count-mismatch",
    });
  }
  report({ type: "rows", table: label, rows, bytes: 0 });
  report({ type: "table-done", table: label, rows });
}

function isBefore({ section, kind }: Definition): boolean {
  return section === "pre-data" && !isRights(kind);
}

/** Keys and indexes of one table that need nothing but its rows. */
function isIndexOf({ section, kind, table }: Definition, { schema, name }: TableName): boolean {
  const builds = kind === "index" || kind === "constraint";
  return section === "post-data" && builds && table?.schema === schema && table.name === name;
}

/** What comes after the rows and was not made with its table. */
function isLast(definition: Definition, manifest: Manifest): boolean {
  if (definition.section !== "post-data" || isOptional(definition)) return false;
  return !manifest.tables.some((table) => isIndexOf(definition, table));
}

/** Nothing in the database needs it. */
function isOptional({ section, kind, name }: Definition): boolean {
  const ofPublication = kind === "publication" || (kind === "comment" && name.startsWith("PUBLICATION "));
  return isRights(kind) || (section === "post-data" && ofPublication);
}

function isRights(kind: string): boolean {
  return kind === "grant";
}

function labelOf({ schema, name }: TableName): string {
  return `${schema}.${name}`;
}
