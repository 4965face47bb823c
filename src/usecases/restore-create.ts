import { OperationalError } from "../base/errors.ts";
import type { Creator } from "../drivers/creator.ts";
import type { Connection, ServerIdentity } from "../drivers/driver.ts";
import { openCreator } from "../drivers/open-driver.ts";
import { chooseContent } from "../plan/choose-content.ts";
import { type OwnerPlan, otherOwners, planOwners } from "../plan/plan-owners.ts";
import { leaveUndefinedOut } from "../snapshot/leave-undefined-out.ts";
import type { ChunkRef } from "../snapshot/manifest.ts";
import { readerWith } from "../snapshot/snapshot-reader.ts";
import { type FillOptions, fillDatabase } from "./fill-database.ts";
import { guardTarget } from "./guard-target.ts";
import { neededChunks, type RestorePlan, type RestoreResult } from "./restore-snapshot.ts";
import { findArchived, requestThaw, type ThawOptions, waitForThaw } from "./thaw-volumes.ts";

export interface CreateOptions extends FillOptions, ThawOptions {
  readonly target: Connection;
  readonly targetDb?: string | undefined;
  /** Patterns; undefined: everything. Chosen tables come with what they need. */
  readonly tables?: readonly string[] | undefined;
  readonly planOnly: boolean;
  readonly confirm: (plan: RestorePlan) => Promise<boolean>;
  /** Give objects to the owners that they had, where the target has them and lets it. */
  readonly owners: boolean;
  /** Chunks that the caller reads afterwards: they must be readable too. */
  readonly alsoNeeded?: readonly ChunkRef[] | undefined;
  readonly stallTimeoutMs: number;
}

/**
 * Makes a whole database from a snapshot: definitions, rows, then indexes and keys, several tables at a time. The target
 * must be empty. A failure or an abort empties it again; what a killed process left is recognised and removed by the next
 * restore. Fails with kind `refused` (not empty, wrong target, not confirmed), `archive`, `database`.
 */
export async function restoreIntoEmpty(all: CreateOptions): Promise<RestoreResult> {
  const { options, leftOut } = choose(all);
  const { manifest } = options.reader;
  // Nothing is held open while a person thinks, or an archive thaws for hours.
  const looked = await lookAt(options, leftOut);
  const { archived, thaw, warnings: doubts } = await findArchived(options, neededChunks(all, manifest.tables));
  const plan = { ...looked, warnings: [...looked.warnings, ...doubts], ...(thaw ? { thaw } : {}) };
  const { target, tables, notes } = plan;
  if (options.planOnly) return { target, tables, notes, warnings: plan.warnings, plan };
  const thawing = await requestThaw(options, archived);
  if (!(await options.confirm(plan))) {
    throw new OperationalError(`cannot restore ${manifest.id}: you said no`, {
      kind: "refused",
      code: "not-confirmed",
    });
  }
  await waitForThaw(options, thawing);
  await using creator = await openTarget(options);
  const owners = await readOwnerPlan(options, creator);
  await creator.clearInterrupted();
  await refuseContent(options, creator);
  try {
    const warnings = await fillDatabase(options, creator, owners.assign);
    return { target, tables, notes, warnings: [...plan.warnings, ...warnings] };
  } catch (error) {
    await abandon(options, creator);
    throw error;
  }
}

async function lookAt(options: CreateOptions, leftOut: readonly string[]): Promise<RestorePlan> {
  await using creator = await openTarget(options);
  // What was interrupted is cleared only when the person has said yes.
  const isInterrupted = await creator.isInterrupted();
  if (!isInterrupted) await refuseContent(options, creator);
  const removed = isInterrupted ? await creator.findContent() : [];
  const owners = await readOwnerPlan(options, creator);
  return makePlan(options, creator.identity, { owners, leftOut, removed });
}

async function openTarget(options: CreateOptions): Promise<Creator> {
  const creator = await openCreator(options.target, options);
  try {
    const { manifest } = options.reader;
    guardTarget({ manifest, target: creator.identity, isNamed: true, targetDb: options.targetDb });
    return creator;
  } catch (error) {
    await creator[Symbol.asyncDispose]();
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

/** Narrows the snapshot to chosen tables, and to what it can make. */
function choose(options: CreateOptions): { readonly options: CreateOptions; readonly leftOut: readonly string[] } {
  const { reader, tables } = options;
  const chosen = tables ? chooseContent(reader.manifest, tables) : { manifest: reader.manifest, warnings: [] };
  const { content: manifest, warnings } = leaveUndefinedOut(chosen.manifest);
  const leftOut = [...chosen.warnings, ...warnings];
  return { options: { ...options, reader: readerWith(reader, { manifest }) }, leftOut };
}

async function readOwnerPlan({ reader, owners: wanted }: CreateOptions, creator: Creator): Promise<OwnerPlan> {
  const { definitions, largeObjects } = reader.manifest;
  const { user } = creator.identity;
  const roles = await creator.readOwnerRoles(otherOwners(definitions, user));
  return planOwners({ definitions, roles, user, largeObjects: largeObjects.count, wanted });
}

interface PlanParts {
  readonly owners: OwnerPlan;
  readonly leftOut: readonly string[];
  /** What an interrupted restore left, and whatever came after it. */
  readonly removed: readonly string[];
}

function makePlan(
  { reader }: CreateOptions,
  target: ServerIdentity,
  { owners, leftOut, removed }: PlanParts,
): RestorePlan {
  const { manifest } = reader;
  return {
    target,
    source: manifest.source,
    snapshot: manifest.id,
    createdAt: manifest.createdAt,
    tables: manifest.tables.map(({ schema, name, rows }) => ({ schema, name, deleted: 0, inserted: rows })),
    foreignKeys: [],
    triggers: [],
    warnings: [...manifest.notCaptured, ...leftOut, ...owners.warnings],
    notes: [...(removed.length > 0 ? [removalNote(target.database, removed)] : []), ...owners.notes],
  };
}

function removalNote(database: string, content: readonly string[]): string {
  return `a restore into ${database} did not end: everything there is removed first (${shownContent(content)})`;
}

function shownContent(content: readonly string[]): string {
  const more = content.length - SHOWN_CONTENT;
  return [...content.slice(0, SHOWN_CONTENT), ...(more > 0 ? [`${more} more`] : [])].join(", ");
}

const SHOWN_CONTENT = 5;

async function refuseContent({ reader, target }: CreateOptions, creator: Creator): Promise<void> {
  const content = await creator.findContent();
  if (content.length === 0) return;
  throw new OperationalError(
    `cannot restore ${reader.manifest.id} into ${target.database}: it is not empty (${shownContent(content)})`,
    {
      kind: "refused",
      code: "not-empty",
      hint: "Create a new database for it, or restore rows into the existing tables without --create.",
    },
  );
}
