import { codeOf, OperationalError } from "../base/errors.ts";
import { byVolume, type ChunkPlace } from "../snapshot/chunk-places.ts";
import type { SnapshotReference, Volume } from "../snapshot/manifest.ts";
import { MANIFEST_NAME } from "../snapshot/manifest-text.ts";
import { openSnapshotKey } from "../snapshot/open-manifest.ts";
import type { Repository } from "../snapshot/repository.ts";
import type { KeyRing } from "../snapshot/snapshot-key.ts";
import { type Problem, verifySample, verifySize, verifyVolume, type VolumeCheck } from "../snapshot/verify-volume.ts";
import type { Report } from "./progress.ts";

export interface CheckOptions {
  /** Opens encrypted snapshots. */
  readonly keys?: KeyRing | undefined;
  readonly signal: AbortSignal;
  readonly report: Report;
}

export interface VolumeFindings {
  readonly problems: readonly Problem[];
  /** The chunks that were read. */
  readonly read: readonly ChunkPlace[];
  readonly archived: readonly VolumeFacts[];
}

/** Reads what is to be checked of one volume; of an archived one only the size can be asked for. */
export async function checkVolume(
  check: VolumeCheck,
  read: (check: VolumeCheck) => Promise<readonly Problem[]>,
  options: CheckOptions,
): Promise<VolumeFindings> {
  const problems = await unlessArchived(() => checkTwice(check, read, options));
  return problems
    ? { problems, read: check.chunks, archived: [] }
    : { problems: await verifySize(check), read: [], archived: [check.volume] };
}

/** Gives undefined for what must be thawed before it can be read: that is neither good nor bad. */
export async function unlessArchived<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (codeOf(error) === "archived") return undefined;
    throw error;
  }
}

export type VolumeFacts = Pick<Volume, "name" | "size">;

const MOST_AT_ONCE = 8;
const BYTES_AT_ONCE = 4 * 1024 * 1024;

/** Puts small volumes together that are read at once: of those the way there and back takes most of the time. A large one stays alone. */
export function* smallTogether<T extends { readonly volume: VolumeFacts }>(
  checks: Iterable<T>,
): Generator<readonly T[]> {
  let batch: T[] = [];
  let bytes = 0;
  for (const check of checks) {
    const { size } = check.volume;
    if (batch.length === MOST_AT_ONCE || (batch.length > 0 && bytes + size > BYTES_AT_ONCE)) {
      yield batch;
      [batch, bytes] = [[], 0];
    }
    batch.push(check);
    bytes += size;
  }
  if (batch.length > 0) yield batch;
}

interface ReferenceCheck {
  readonly repository: Repository;
  readonly reference: SnapshotReference;
  /** The chunks that are looked at. */
  readonly needed: readonly ChunkPlace[];
}

/** Checks what a snapshot needs of an earlier one: its chunks are as much a part of it as its own. */
export async function verifyReference(
  { repository, reference, needed }: ReferenceCheck,
  options: CheckOptions,
): Promise<VolumeFindings> {
  const { destination, prefix } = repository;
  const { signal } = options;
  const { id, codec, encryption, volumes } = reference;
  const problems: Problem[] = [];
  const read: ChunkPlace[] = [];
  const archived: VolumeFacts[] = [];
  try {
    const decrypt = encryption
      ? await openSnapshotKey({ destination, prefix, id, keys: options.keys, signal })
      : undefined;
    for (const [index, chunks] of byVolume(needed)) {
      const volume = volumes[index];
      if (!volume) continue;
      const object = { destination, key: `${prefix}/${id}/${volume.name}`, size: volume.size };
      const bytes = chunks.reduce((sum, { ref }) => sum + ref.size, 0);
      // Where most of a volume is needed, one read of all of it is the faster one.
      const isMost = bytes * 2 > volume.size;
      const check = { content: { codec, encryption, decrypt }, volume, object, chunks, signal };
      const found = await checkVolume(check, isMost ? verifyVolume : verifySample, options);
      problems.push(...found.problems);
      read.push(...found.read);
      archived.push(...found.archived);
    }
  } catch (error) {
    if (!(error instanceof OperationalError) || error.kind !== "archive") throw error;
    problems.push({ volume: MANIFEST_NAME, chunk: "", problem: error.message });
  }
  return {
    read,
    problems: problems.map((problem) => ({ ...problem, volume: `${id}/${problem.volume}` })),
    archived: archived.map(({ name, size }) => ({ name: `${id}/${name}`, size })),
  };
}

/** A bit that was flipped on the way, in a cable or in memory, is not damage; but somebody should know. */
async function checkTwice(
  check: VolumeCheck,
  read: (check: VolumeCheck) => Promise<readonly Problem[]>,
  { report }: CheckOptions,
): Promise<readonly Problem[]> {
  const [first] = await read(check);
  if (first === undefined) return [];
  const again = await read(check);
  if (again.length === 0) warnOfFlips(`${check.object.destination.name}/${check.object.key}`, first.problem, report);
  return again;
}

export function warnOfFlips(object: string, problem: string, report: Report): void {
  report({
    type: "warning",
    message: `${object} read back wrong once and right the second time (${problem}): check memory, cables and network`,
  });
}
