import { formatBytes } from "../base/byte-size.ts";
import { formatPlural } from "../base/counts.ts";
import { codeOf, OperationalError } from "../base/errors.ts";
import type { ThawTier } from "../destinations/destination.ts";
import { type RetryClock, SYSTEM_CLOCK } from "../destinations/retry-attempts.ts";
import { type ArchivedVolume, eachOf } from "../snapshot/archived-volumes.ts";
import type { ChunkRef } from "../snapshot/manifest.ts";
import type { SnapshotReader } from "../snapshot/snapshot-reader.ts";
import type { Report } from "./progress.ts";

/** What a person wants done about volumes that lie in an archive. */
export interface ThawWish {
  /** Ask for them, to be readable for so many days; undefined: ask for nothing. */
  readonly request?: { readonly days: number; readonly tier?: ThawTier | undefined } | undefined;
  /** Wait until what is being thawed can be read, instead of failing with `thawing`. */
  readonly wait: boolean;
}

export interface ThawOptions {
  readonly reader: SnapshotReader;
  readonly thaw?: ThawWish | undefined;
  readonly clock?: Pick<RetryClock, "wait"> | undefined;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/** What must be thawed before a restore can read, as plans and `--json` give it. */
export interface ThawNeed {
  readonly volumes: readonly {
    readonly destination: string;
    readonly name: string;
    readonly size: number;
    readonly state: "archived" | "thawing";
  }[];
  readonly bytes: number;
}

export interface FoundArchived {
  readonly archived: readonly ArchivedVolume[];
  /** Undefined when everything can be read. */
  readonly thaw?: ThawNeed | undefined;
  readonly warnings: readonly string[];
}

const THAWS_AT_ONCE = 4;
const FIRST_POLL_MS = 60_000;
const MAX_POLL_MS = 15 * 60_000;
const SOON_MS = 24 * 3_600_000;

/** Looks whether these chunks can be read, without reading them. Asks for nothing. */
export async function findArchived(
  { reader, signal }: ThawOptions,
  refs: Iterable<ChunkRef>,
  now = new Date(),
): Promise<FoundArchived> {
  const { archived, readableUntil } = await reader.readStates(refs, { signal });
  const endsSoon = readableUntil !== undefined && readableUntil.getTime() - now.getTime() < SOON_MS;
  return {
    archived,
    ...(archived.length > 0 ? { thaw: needOf(archived) } : {}),
    warnings: endsSoon ? [`thawed volumes can be read only until ${readableUntil.toISOString()}`] : [],
  };
}

function needOf(archived: readonly ArchivedVolume[]): ThawNeed {
  const volumes = archived.map(({ destination, name, size, state }) => ({
    destination: destination.name,
    name,
    size,
    state,
  }));
  return { volumes, bytes: volumes.reduce((sum, { size }) => sum + size, 0) };
}

/**
 * Asks for volumes to be thawed, when that is wished. Gives those that still cannot be read, to be waited for.
 * Fails with kind `refused`: `archived` when it may not ask, `thawing` when it asked and may not wait; kind `destination`
 * when a destination does not take the request.
 */
export async function requestThaw(
  options: ThawOptions,
  archived: readonly ArchivedVolume[],
): Promise<readonly ArchivedVolume[]> {
  const { reader, thaw, signal, report } = options;
  const request = thaw?.request;
  if (archived.length === 0) return [];
  if (!request) {
    const isAsked = archived.every(({ state }) => state === "thawing");
    if (isAsked && thaw?.wait) return archived;
    throw isAsked ? stillThawing(reader, archived, undefined) : lieInArchive(reader, archived);
  }
  report({ type: "phase", text: `asking for ${nameOf(archived)} to be thawed` });
  const pending: ArchivedVolume[] = [];
  let withinHours: number | undefined;
  await eachOf(archived, THAWS_AT_ONCE, async (volume) => {
    const answer = await askFor(volume, { ...request, signal });
    if (answer?.state === "readable") return;
    pending.push(volume);
    if (answer?.withinHours !== undefined) withinHours = Math.max(withinHours ?? 0, answer.withinHours);
  });
  if (pending.length > 0 && !thaw.wait) throw stillThawing(reader, archived, withinHours);
  if (pending.length > 0) report({ type: "phase", text: `waiting until they are thawed${upTo(withinHours)}` });
  return pending;
}

/** Waits until these volumes can be read; an abort ends it at once. A destination that is away for a while is asked again. */
export async function waitForThaw(options: ThawOptions, volumes: readonly ArchivedVolume[]): Promise<void> {
  const { reader, thaw, clock = SYSTEM_CLOCK, signal, report } = options;
  let pending = volumes;
  for (let delayMs = FIRST_POLL_MS; pending.length > 0; delayMs = Math.min(MAX_POLL_MS, delayMs * 1.5)) {
    await clock.wait(delayMs, { signal });
    signal.throwIfAborted();
    const left: ArchivedVolume[] = [];
    await eachOf(pending, THAWS_AT_ONCE, async (volume) => {
      const state = await stateOf(volume, signal);
      if (state === undefined) return;
      left.push(volume);
      if (state !== "archived") return;
      // The request was lost, or its time is over already.
      if (!thaw?.request) throw lieInArchive(reader, [volume]);
      await askFor(volume, { ...thaw.request, signal });
    });
    if (left.length > 0 && left.length < pending.length) {
      report({ type: "phase", text: `waiting until ${nameOf(left)} can be read too` });
    }
    pending = left;
  }
}

async function askFor(
  { destination, key }: ArchivedVolume,
  request: Parameters<NonNullable<typeof destination.thaw>>[1],
) {
  return destination.thaw?.(key, request);
}

/** Undefined when it can be read, or is gone: reading tells. */
async function stateOf({ destination, key }: ArchivedVolume, signal: AbortSignal) {
  try {
    const info = await destination.stat(key, { signal });
    return info?.thaw === "thawed" ? undefined : info?.thaw;
  } catch (error) {
    signal.throwIfAborted();
    if (codeOf(error) === "unreachable" || codeOf(error) === "busy") return "thawing";
    throw error;
  }
}

function lieInArchive({ manifest }: SnapshotReader, archived: readonly ArchivedVolume[]): OperationalError {
  return new OperationalError(
    `cannot restore ${manifest.id}: ${nameOf(archived)} cannot be read before a thaw (${listOf(archived)})`,
    {
      kind: "refused",
      code: "archived",
      hint: "Ask for them with --thaw, which takes hours and may cost money; with --wait the restore goes on by itself.",
    },
  );
}

function stillThawing(
  { manifest }: SnapshotReader,
  archived: readonly ArchivedVolume[],
  withinHours: number | undefined,
): OperationalError {
  return new OperationalError(
    `cannot restore ${manifest.id} yet: ${nameOf(archived)} ${archived.length === 1 ? "is" : "are"} being thawed${upTo(withinHours)} (${listOf(archived)})`,
    {
      kind: "refused",
      code: "thawing",
      hint:
        withinHours === undefined
          ? "Run the same command again later, or let it wait with --wait."
          : `Run the same command again in ${formatPlural(withinHours, "hour")}, or let it wait with --wait.`,
    },
  );
}

function upTo(hours: number | undefined): string {
  return hours === undefined ? "" : `, which takes up to ${formatPlural(hours, "hour")}`;
}

function nameOf(volumes: readonly ArchivedVolume[]): string {
  const places = [...new Set(volumes.map(({ destination }) => destination.name))].join(", ");
  const bytes = formatBytes(needOf(volumes).bytes);
  return `${formatPlural(volumes.length, "archived volume")} (${bytes}) at ${places}`;
}

const LISTED = 10;

function listOf(volumes: readonly ArchivedVolume[]): string {
  const names = volumes.slice(0, LISTED).map(({ name }) => name);
  return [...names, ...(volumes.length > LISTED ? [`and ${volumes.length - LISTED} more`] : [])].join(", ");
}
