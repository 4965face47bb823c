import { keyIdOf, type Lock } from "../archive/age-keys.ts";
import { isAbort, OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import { areSameVolumes, findLostReference } from "../snapshot/find-missing-reference.ts";
import type { Manifest, SnapshotReference } from "../snapshot/manifest.ts";
import { type OpenedManifest, readEnvelope } from "../snapshot/open-manifest.ts";
import { openSnapshotReader } from "../snapshot/open-snapshot-reader.ts";
import { chunksOf } from "../snapshot/parse-manifest.ts";
import { openRepository, type SummaryCache } from "../snapshot/repository.ts";
import { compareIdTexts } from "../snapshot/snapshot-id.ts";
import type { KeyRing } from "../snapshot/snapshot-key.ts";
import type { SnapshotSummary } from "../snapshot/snapshot-summary.ts";
import type { DestinationFate } from "../snapshot/snapshot-writer.ts";
import type { BaseKeeper } from "./keep-base.ts";
import { type BaseSnapshot, baseOf } from "./reuse-chunks.ts";

export interface ChooseBaseOptions {
  /** Those that the incremental goes to. */
  readonly destinations: readonly Destination[];
  readonly prefix: string;
  /** What the incremental will be encrypted to. */
  readonly lock: Lock | undefined;
  readonly keys: KeyRing | undefined;
  /** What this machine remembers of snapshots that it cannot open. */
  readonly keeper: BaseKeeper;
  /** What this machine remembers of manifests: with it only those that the incremental will need are read. */
  readonly cache?: SummaryCache | undefined;
  /** A manifest that was read just before: it is not read again. */
  readonly read?: ReadManifest | undefined;
  readonly signal: AbortSignal;
}

export interface ChosenBase {
  readonly base?: BaseSnapshot | undefined;
  /** Why there is no base. */
  readonly reason?: string | undefined;
  /** All that can be opened, at each destination: those that the base refers to are among them. */
  readonly earlier: readonly SnapshotSummary[];
  /** Those that the snapshot can go to. */
  readonly destinations: readonly Destination[];
  /** Those that could not be asked what they have: they get nothing this time. */
  readonly unread: readonly DestinationFate[];
}

/** A base further back would make an incremental as large as a full. */
const MAX_CANDIDATES = 10;

/**
 * Chooses the newest snapshot that an incremental can build on: every destination has it, and all that it refers to, whole.
 * Fails with kind `destination` when none can be read.
 */
export async function chooseBase(options: ChooseBaseOptions): Promise<ChosenBase> {
  const { places, unread } = await listPlaces(options);
  const destinations = places.map(({ destination }) => destination);
  const earlier = places.flatMap(({ summaries }) => summaries);
  // Of the newest one: that one should have been it.
  let reason: string | undefined;
  for (const id of candidatesOf(places).slice(0, MAX_CANDIDATES)) {
    try {
      const base = await openBase(id, places, options);
      if (typeof base !== "string") return { base, earlier, destinations, unread };
      reason ??= base;
    } catch (error) {
      options.signal.throwIfAborted();
      if (!(error instanceof OperationalError) || isAbort(error)) throw error;
      // One that is closed hides none: a run that was killed behind its manifest left the one before in this machine's memory.
      reason ??= `${id} cannot be used: ${error.message}`;
    }
  }
  const none = reason ?? "there is no earlier snapshot that every destination has";
  return { reason: none, earlier, destinations, unread };
}

interface Place {
  readonly destination: Destination;
  /** Snapshots, safety snapshots left out. */
  readonly ids: ReadonlySet<string>;
  /** Those that are not: parts are missing, or `verify` found damage. */
  readonly spoiled: ReadonlySet<string>;
  /** Of those that can be opened. */
  readonly summaries: readonly SnapshotSummary[];
}

async function listPlaces(options: ChooseBaseOptions) {
  const places: Place[] = [];
  const unread: (DestinationFate & { readonly error: OperationalError })[] = [];
  for (const destination of options.destinations) {
    try {
      const { keys, cache } = options;
      const { snapshots, locked } = await openRepository(destination, options.prefix, { keys, cache }).list(options);
      const own = snapshots.filter(({ safetyOf }) => safetyOf === undefined);
      const all = [...own, ...locked];
      const spoiled = new Set(all.filter(({ isIncomplete }) => isIncomplete).map(({ id }) => id));
      places.push({ destination, ids: new Set(all.map(({ id }) => id)), spoiled, summaries: own });
    } catch (error) {
      options.signal.throwIfAborted();
      if (!(error instanceof OperationalError)) throw error;
      unread.push({ name: destination.name, status: "failed", error });
    }
  }
  if (places.length === 0 && unread[0]) throw unread[0].error;
  return { places, unread };
}

/** Ids that all have, the newest first. */
function candidatesOf([first, ...others]: readonly Place[]): readonly string[] {
  return [...(first?.ids ?? [])]
    .filter((id) => others.every(({ ids }) => ids.has(id)))
    .sort((left, right) => compareIdTexts(right, left));
}

/** Opens a snapshot as a base; a text says why it can be none. */
async function openBase(
  id: string,
  places: readonly Place[],
  options: ChooseBaseOptions,
): Promise<BaseSnapshot | string> {
  const { prefix, lock, keys, keeper, signal } = options;
  const destinations = places.map(({ destination }) => destination);
  const kept = lock ? await keeper.find(id) : undefined;
  const { readAt, ...opened }: ReadManifest = kept
    ? { manifest: kept.manifest }
    : await openAnywhere(id, places, options);
  const { manifest } = opened;
  if (manifest.safetyOf) return `${id} holds only what a restore replaced`;
  if (!manifest.trust && !isHashed(manifest))
    return `${id} does not tell what an incremental needs: a run with --incremental notes it`;
  if ((manifest.encryption !== undefined) !== (lock !== undefined)) return `${id} is not encrypted as the job is now`;
  for (const place of places) {
    const problem =
      (await findGap(place, manifest, options)) ??
      (await findDamage(place.destination, { manifest, readAt }, options)) ??
      (await findOtherKey(place.destination, manifest, options));
    if (problem) return `${id} cannot be used: ${problem}`;
  }
  if (kept) return baseOf(kept, { isRemembered: true });
  return baseOf(openSnapshotReader({ destinations, prefix, ...opened, keys, signal }));
}

/** Then what is read again and equal is not stored again, even where row headers prove nothing. */
function isHashed(manifest: Manifest): boolean {
  for (const { rawSha256 } of chunksOf(manifest)) return rawSha256 !== undefined;
  return true;
}

export interface ReadManifest extends OpenedManifest {
  /** Where it was read just now; undefined: it is what this machine remembers. */
  readonly readAt?: Destination | undefined;
}

async function openAnywhere(id: string, places: readonly Place[], options: ChooseBaseOptions): Promise<ReadManifest> {
  let failure: unknown;
  for (const { destination } of places) {
    const { read } = options;
    if (read?.manifest.id === id && read.readAt === destination) return read;
    try {
      const opened = await openRepository(destination, options.prefix, options).open(id, options);
      return { ...opened, readAt: destination };
    } catch (error) {
      options.signal.throwIfAborted();
      if (!(error instanceof OperationalError)) throw error;
      failure ??= error;
    }
  }
  throw failure;
}

/** Says what a destination lacks of a snapshot and of those that it refers to. Sizes only: hashes come below, verify reads the bytes. */
async function findGap(place: Place, manifest: Manifest, options: ChooseBaseOptions): Promise<string | undefined> {
  const needed: readonly Pick<SnapshotReference, "id" | "volumes">[] = [manifest, ...(manifest.references ?? [])];
  const absent = needed.find(({ id }) => !place.ids.has(id));
  if (absent) return `${place.destination.name} does not have ${absent.id}`;
  const spoiled = needed.find(({ id }) => place.spoiled.has(id));
  if (spoiled) return `${spoiled.id} at ${place.destination.name} is damaged or lacks volumes`;
  const { prefix, signal } = options;
  return findLostReference({ destination: place.destination, prefix, references: needed, signal });
}

/** Reads what a list may only have remembered: a manifest that rots keeps its size and time. */
async function findDamage(
  destination: Destination,
  { manifest, readAt }: ReadManifest,
  options: ChooseBaseOptions,
): Promise<string | undefined> {
  if (!options.cache) return undefined;
  // Of encrypted ones nothing is remembered.
  if (manifest.encryption) return undefined;
  const { references = [] } = manifest;
  for (const { id, volumes } of destination === readAt ? references : [manifest, ...references]) {
    try {
      const opened = await openRepository(destination, options.prefix).open(id, options);
      if (!areSameVolumes(opened.manifest.volumes, volumes)) return otherSnapshot(destination, id);
    } catch (error) {
      if (error instanceof OperationalError && error.kind === "archive") return error.message;
      throw error;
    }
  }
  return undefined;
}

/** Who can open the incremental must be able to open what it refers to, and find there what was taken over. */
async function findOtherKey(
  destination: Destination,
  manifest: Manifest,
  { prefix, lock, signal }: ChooseBaseOptions,
): Promise<string | undefined> {
  if (!lock) return undefined;
  for (const { id, volumes } of [manifest, ...(manifest.references ?? [])]) {
    const envelope = await readEnvelope({ destination, prefix, id, signal });
    if (!envelope) return `nobody can tell who opens ${id}`;
    if (!areSameVolumes(envelope.volumes, volumes)) return otherSnapshot(destination, id);
    const wanted = "recipients" in lock ? lock.recipients.map(keyIdOf) : [];
    const isSame =
      envelope.passphrase === "passphrase" in lock &&
      JSON.stringify(envelope.keyIds.toSorted()) === JSON.stringify(wanted.toSorted());
    if (!isSame) return `${id} is encrypted to other keys than the job's are now`;
  }
  return undefined;
}

/** What was taken over would lie there among bytes that are not its own. */
function otherSnapshot({ name }: Destination, id: string): string {
  return `${name} has another snapshot with the id ${id}`;
}
