import { isDeepStrictEqual } from "node:util";
import { archiveError } from "../archive/archive-error.ts";
import { formatPlural } from "../base/counts.ts";
import { OperationalError } from "../base/errors.ts";
import { sideBySide } from "../base/side-by-side.ts";
import type { Destination } from "../destinations/destination.ts";
import { ENVELOPE_NAME } from "../snapshot/envelope-text.ts";
import type { Manifest } from "../snapshot/manifest.ts";
import { byVolume, type ChunkPlace, chunkPlacesOf } from "../snapshot/chunk-places.ts";
import { findMissingReference } from "../snapshot/find-missing-reference.ts";
import { findSnapshot, noSnapshot } from "../snapshot/find-snapshot.ts";
import type { UnopenedDestination } from "../snapshot/locate-snapshot.ts";
import { ENCRYPTED_MANIFEST_NAME, MANIFEST_NAME, MANIFEST_NAMES } from "../snapshot/manifest-text.ts";
import { type OpenedManifest, readEnvelope } from "../snapshot/open-manifest.ts";
import { codingOf } from "../snapshot/open-snapshot-reader.ts";
import { retentionFactsOf } from "../snapshot/retention-facts.ts";
import { openRepository, type Repository } from "../snapshot/repository.ts";
import { KEY_NAME, type KeyRing } from "../snapshot/snapshot-key.ts";
import { neededOf } from "../snapshot/snapshot-parts.ts";
import type { Marks } from "../snapshot/snapshot-summary.ts";
import { type Problem, verifyObject, verifySample, verifySize, verifyVolume } from "../snapshot/verify-volume.ts";
import {
  checkVolume,
  smallTogether,
  unlessArchived,
  verifyReference,
  type VolumeFacts,
  type VolumeFindings,
  warnOfFlips,
} from "./check-volume.ts";
import type { Report } from "./progress.ts";

export interface VerifySnapshotOptions {
  /** Each one is verified: a good copy at one says nothing about another. */
  readonly destinations: readonly Destination[];
  /** Further ones that could not even be opened: what nobody found may be there. */
  readonly unopened?: readonly UnopenedDestination[] | undefined;
  readonly prefix: string;
  /** Opens encrypted snapshots. */
  readonly keys?: KeyRing | undefined;
  /** An id, a unique beginning of one, or `latest`; left out: every snapshot. */
  readonly id?: string | undefined;
  /** Part of the chunks to read, above 0 up to 1: a random sample instead of everything. */
  readonly sample?: number | undefined;
  /** Makes the choice of the sample the same again. */
  readonly seed?: number | undefined;
  readonly now?: (() => Date) | undefined;
  /** Announces which snapshots are read, so that no prune of this machine removes them meanwhile. */
  readonly announce?: ((ids: readonly string[]) => Promise<Disposable>) | undefined;
  readonly signal: AbortSignal;
  readonly report: Report;
}

export interface VerifiedSnapshot {
  readonly id: string;
  readonly destination: string;
  readonly ok: boolean;
  /** Why it is not: its bytes are damaged, or nothing is known to be but the key that was given does not open it. */
  readonly code?: "damaged" | "wrong-key" | undefined;
  /** How many chunks were read, and their stored bytes. */
  readonly chunks: number;
  readonly bytes: number;
  /** The part of the chunks that was read; 1 is everything. */
  readonly sample: number;
  /**
   * Nobody gave the right key of this encrypted snapshot: its volumes were compared with the hashes beside them, which says that
   * nothing was damaged by accident; its chunks were not read, and `chunks` is 0.
   */
  readonly locked?: true | undefined;
  /**
   * Volumes that lie in an archive, with their stored bytes: they are there, and as large as they must be, but nobody read
   * them. `chunks` and `bytes` count what was read.
   */
  readonly archived?: { readonly volumes: readonly string[]; readonly bytes: number } | undefined;
  readonly problems: readonly Problem[];
}

export interface VerifyResult {
  /** Everything was read, and all of it is good. */
  readonly ok: boolean;
  readonly snapshots: readonly VerifiedSnapshot[];
  /** Destinations that did not answer: what they have was not, or not wholly, verified. */
  readonly unread: readonly { readonly destination: string; readonly error: OperationalError }[];
}

const MAX_PROBLEMS = 1000;

/**
 * Reads snapshots again from their destinations and checks every hash, size and row count. Problems are results, never
 * thrown. A snapshot that is wholly read and good gets its mark `verifiedAt`; archived
 * volumes are named as not verified. What reads back wrong is read a second time:
 * only what is wrong again is called damaged, the rest is a warning.
 * Fails with kind `usage`, `not-found` when there is nothing to verify; kind `destination` when none can be read.
 */
export async function verifySnapshot(options: VerifySnapshotOptions): Promise<VerifyResult> {
  const snapshots: VerifiedSnapshot[] = [];
  let missing = noSnapshot("cannot verify a snapshot: there is none", "Run the job first.");
  const unread: { destination: string; error: OperationalError }[] = [];
  for (const destination of options.destinations) {
    try {
      await verifyAt(destination, options, snapshots);
    } catch (error) {
      options.signal.throwIfAborted();
      if (!(error instanceof OperationalError)) throw error;
      if (error.kind === "destination") unread.push({ destination: destination.name, error });
      else if (error.code === "not-found") missing = error;
      else throw error;
    }
  }
  for (const { destination, error } of unread) {
    options.report({ type: "warning", message: `${destination} was not verified: ${error.message}` });
  }
  if (snapshots.length === 0) throw unread[0]?.error ?? options.unopened?.[0]?.error ?? missing;
  const isGood = snapshots.every(({ ok, archived, locked }) => ok && archived === undefined && !locked);
  return { ok: unread.length === 0 && isGood, snapshots, unread };
}

async function verifyAt(
  destination: Destination,
  options: VerifySnapshotOptions,
  snapshots: VerifiedSnapshot[],
): Promise<void> {
  const repository = openRepository(destination, options.prefix, options);
  const list = await repository.list(options);
  try {
    const chosen = options.id === undefined ? undefined : findSnapshot(list, { name: options.id });
    for (const { id } of [...list.snapshots, ...list.damaged, ...list.locked]) {
      if (chosen !== undefined && id !== chosen) continue;
      const verified = await verifyOne(repository, id, options);
      if (verified.ok || (await isThere(repository, id, options))) snapshots.push(verified);
      else if (chosen === undefined) warnOfRemoval(repository, id, options.report);
      else throw removedMeanwhile(repository, id);
    }
  } catch (error) {
    const unopened = [...list.damaged, ...list.locked].find((one) => one.error === error);
    if (!unopened) throw error;
    snapshots.push(await verifyOne(repository, unopened.id, options));
  }
}

/** A prune of another machine may have been faster: what it removed is not damaged. */
async function isThere({ destination, prefix }: Repository, id: string, { signal }: VerifySnapshotOptions) {
  for (const name of MANIFEST_NAMES) if (await destination.stat(`${prefix}/${id}/${name}`, { signal })) return true;
  return false;
}

function warnOfRemoval({ destination }: Repository, id: string, report: Report): void {
  report({ type: "warning", message: `${id} at ${destination.name} was removed while it was verified` });
}

function removedMeanwhile({ destination }: Repository, id: string): OperationalError {
  return archiveError(`cannot verify ${id} at ${destination.name}: it was removed meanwhile`, "not-found", {
    hint: "Choose another snapshot.",
  });
}

async function verifyOne(
  repository: Repository,
  id: string,
  options: VerifySnapshotOptions,
): Promise<VerifiedSnapshot> {
  const { signal, report } = options;
  const sample = options.sample ?? 1;
  report({ type: "phase", text: `verifying ${id} at ${repository.destination.name}` });
  let opened: OpenedManifest;
  try {
    opened = await openTwice(repository, id, options);
  } catch (error) {
    if (!(error instanceof OperationalError) || error.kind !== "archive") throw error;
    if (error.code === "key-needed" || error.code === "wrong-key") return verifyClosed(repository, id, options, error);
    return verdict(repository, id, sample, [], [unreadable(error)]);
  }
  const { manifest } = opened;
  using _lease = await options.announce?.([id, ...(manifest.references ?? []).map((reference) => reference.id)]);
  const all = [...chunkPlacesOf(manifest)];
  const chosen = sample < 1 ? chooseSample(all, sample, options.seed) : all;
  const found = await verifyOwn(repository, opened, chosen, options);
  const spoiled = new Set(hasProblems(found) ? [id] : []);
  for (const [index, reference] of (manifest.references ?? []).entries()) {
    const needed = chosen.filter(({ ref }) => ref.snapshot === index);
    const findings = await verifyReference({ repository, reference, needed }, options);
    found.push(findings);
    // Neither is whole: who builds on one of them, or counts it, must know.
    if (hasProblems([findings])) spoiled.add(reference.id).add(id);
  }
  for (const one of spoiled) await markDamaged(repository, one, options);
  const problems = found.flatMap((some) => some.problems);
  const archived = found.flatMap((some) => some.archived);
  const readChunks = found.flatMap((some) => some.read);
  if (opened.decrypt) problems.push(...(await checkEnvelope(repository, manifest, signal)));
  const result = { ...verdict(repository, id, sample, readChunks, problems), ...archivedOf(archived) };
  warnOfArchived(result, report);
  if (result.ok && sample >= 1 && archived.length === 0) await markVerified(repository, id, options);
  return result;
}

function hasProblems(found: readonly VolumeFindings[]): boolean {
  return found.some(({ problems }) => problems.length > 0);
}

/** Checks the volumes of the snapshot itself. */
async function verifyOwn(
  { destination, prefix }: Repository,
  { manifest, decrypt }: OpenedManifest,
  chosen: readonly ChunkPlace[],
  options: VerifySnapshotOptions,
): Promise<VolumeFindings[]> {
  const groups = byVolume(chosen.filter(({ ref }) => ref.snapshot === undefined));
  const content = { ...codingOf(manifest), decrypt };
  const checks = manifest.volumes.map((volume, index) => {
    const object = { destination, key: `${prefix}/${manifest.id}/${volume.name}`, size: volume.size };
    return { content, volume, object, chunks: groups.get(index) ?? [] };
  });
  const read = (options.sample ?? 1) < 1 ? verifySample : verifyVolume;
  const found: VolumeFindings[] = [];
  for (const batch of smallTogether(checks)) {
    const some = await sideBySide<readonly VolumeFindings[]>(options.signal, (signal) =>
      batch.map((check) => checkVolume({ ...check, signal }, read, options)),
    );
    found.push(...some);
  }
  return found;
}

function archivedOf(volumes: readonly VolumeFacts[]): Pick<VerifiedSnapshot, "archived"> {
  if (volumes.length === 0) return {};
  const bytes = volumes.reduce((sum, { size }) => sum + size, 0);
  return { archived: { volumes: volumes.map(({ name }) => name), bytes } };
}

function warnOfArchived({ id, destination, archived }: VerifiedSnapshot, report: Report): void {
  if (!archived) return;
  const count = archived.volumes.length;
  const message = `${id} at ${destination}: ${count} volume${count === 1 ? "" : "s"} archived, not verified`;
  report({ type: "warning", message });
}

/** The envelope is not needed to restore, but to tell a wrong key from damage, and to copy without the key. */
async function checkEnvelope(
  { destination, prefix }: Repository,
  manifest: Manifest,
  signal: AbortSignal,
): Promise<readonly Problem[]> {
  const { id, volumes } = manifest;
  const envelope = await readEnvelope({ destination, prefix, id, signal });
  const say = (problem: string) => [{ volume: ENVELOPE_NAME, chunk: "", problem }];
  if (!envelope) return say("it is missing or damaged");
  const isSame = isDeepStrictEqual(
    envelope.volumes,
    volumes.map(({ name, size, sha256 }) => ({ name, size, sha256 })),
  );
  if (!isSame) return say("its volumes are not those of the manifest");
  const { retention } = envelope;
  const isTrue = retention === undefined || isDeepStrictEqual(retention, retentionFactsOf(manifest));
  return isTrue ? [] : say("what it tells the retention is not what the manifest says");
}

/** Checks what can be checked without the key: it marks damaged bytes, and proves nothing, for nobody saw that the content is right. */
async function verifyClosed(
  repository: Repository,
  id: string,
  options: VerifySnapshotOptions,
  reason: OperationalError,
): Promise<VerifiedSnapshot> {
  const { signal } = options;
  const { destination, prefix } = repository;
  const sample = options.sample ?? 1;
  const envelope = await readEnvelope({ destination, prefix, id, signal });
  if (!envelope) return verdict(repository, id, sample, [], [unreadable(reason)]);
  const references = neededOf(envelope) ?? [];
  using _lease = await options.announce?.([id, ...references.map((needed) => needed.id)]);
  const problems: Problem[] = [];
  const archived: VolumeFacts[] = [];
  let bytes = 0;
  for (const volume of [...envelope.volumes, { name: ENCRYPTED_MANIFEST_NAME, ...envelope.manifest }]) {
    const object = { destination, key: `${prefix}/${id}/${volume.name}`, size: volume.size };
    const found = await unlessArchived(() => verifyObject({ volume, object, signal }));
    if (found) bytes += volume.size;
    else archived.push(volume);
    problems.push(...(found ?? (await verifySize({ volume, object, signal }))));
  }
  if (problems.length > 0) await markDamaged(repository, id, options);
  else if (archived.length === 0) await record(repository, id, { damagedAt: undefined }, options);
  const missing = await findMissingReference({ destination, prefix, references, signal });
  if (missing !== undefined) problems.push({ volume: ENVELOPE_NAME, chunk: "", problem: missing });
  const code = reason.code === "wrong-key" && problems.length === 0 ? ({ code: "wrong-key" } as const) : {};
  if (reason.code === "wrong-key") problems.push({ volume: KEY_NAME, chunk: "", problem: reason.message });
  options.report({ type: "warning", message: `only the hashes of the volumes were checked: ${reason.message}` });
  const result = {
    ...verdict(repository, id, sample, [], problems),
    ...code,
    bytes,
    locked: true,
    ...archivedOf(archived),
  } as const;
  warnOfArchived(result, options.report);
  return result;
}

async function openTwice(
  repository: Repository,
  id: string,
  { signal, report }: VerifySnapshotOptions,
): Promise<OpenedManifest> {
  try {
    return await repository.open(id, { signal });
  } catch (error) {
    if (!(error instanceof OperationalError) || error.kind !== "archive") throw error;
    if (error.code === "key-needed" || error.code === "wrong-key") throw error;
    const opened = await repository.open(id, { signal });
    warnOfFlips(`the manifest of ${id} at ${repository.destination.name}`, error.message, report);
    return opened;
  }
}

function verdict(
  repository: Repository,
  id: string,
  sample: number,
  chunks: readonly ChunkPlace[],
  problems: readonly Problem[],
): VerifiedSnapshot {
  const bytes = chunks.reduce((sum, { ref }) => sum + ref.size, 0);
  const listed = problems.slice(0, MAX_PROBLEMS);
  const more = problems.length - listed.length;
  if (more > 0)
    listed.push({
      volume: "",
      chunk: "",
      problem: `${formatPlural(more, "further problem is", "further problems are")} not listed`,
    });
  const destination = repository.destination.name;
  const isGood = listed.length === 0;
  const code = isGood ? {} : ({ code: "damaged" } as const);
  return { id, destination, ok: isGood, ...code, chunks: chunks.length, bytes, sample, problems: listed };
}

function unreadable(error: OperationalError): Problem {
  return { volume: MANIFEST_NAME, chunk: "", problem: error.message };
}

async function markVerified(repository: Repository, id: string, options: VerifySnapshotOptions): Promise<void> {
  const verifiedAt = instantOf(options);
  await record(repository, id, { verifiedAt, damagedAt: undefined }, options);
}

/** From now on no incremental builds on it, and no retention counts it, until it is verified and good. */
async function markDamaged(repository: Repository, id: string, options: VerifySnapshotOptions): Promise<void> {
  const damagedAt = instantOf(options);
  await record(repository, id, { verifiedAt: undefined, damagedAt }, options);
}

function instantOf({ now }: VerifySnapshotOptions): string {
  return (now?.() ?? new Date()).toISOString();
}

/** A destination that cannot be written makes the snapshot neither better nor worse. */
async function record(repository: Repository, id: string, marks: Marks, options: VerifySnapshotOptions): Promise<void> {
  try {
    if (await isThere(repository, id, options)) await repository.mark(id, marks, options);
  } catch (error) {
    options.signal.throwIfAborted();
    if (!(error instanceof OperationalError)) throw error;
    options.report({ type: "warning", message: `what was found of ${id} was not recorded: ${error.message}` });
  }
}

/** Chooses this part of the chunks at random, at least one. */
function chooseSample(
  all: readonly ChunkPlace[],
  part: number,
  seed = Math.floor(Math.random() * 2 ** 32),
): ChunkPlace[] {
  const random = mulberry32(seed);
  const shuffled = all.map((place) => ({ place, order: random() })).sort((left, right) => left.order - right.order);
  return shuffled.slice(0, Math.max(1, Math.ceil(all.length * part))).map(({ place }) => place);
}

/** A small generator with a seed, because `Math.random` has none. */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
