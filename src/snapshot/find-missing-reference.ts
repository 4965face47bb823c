import { isDeepStrictEqual } from "node:util";
import { OperationalError } from "../base/errors.ts";
import { makeLimit } from "../base/limit.ts";
import type { Destination } from "../destinations/destination.ts";
import { ENCRYPTED_MANIFEST_NAME } from "./manifest-text.ts";
import { hasManifest, isRemoving, listSnapshotFolders } from "./snapshot-folders.ts";
import { type NeededSnapshot, readParts } from "./snapshot-parts.ts";

export interface FindMissingReferenceOptions {
  readonly destination: Destination;
  readonly prefix: string;
  readonly references: readonly NeededSnapshot[] | undefined;
  readonly signal: AbortSignal;
}

/**
 * Says which of the earlier snapshots that a snapshot needs is not complete at a destination; undefined when all of them are. Of
 * volumes only the sizes are looked at. Fails with kind `destination`.
 */
export async function findMissingReference(options: FindMissingReferenceOptions): Promise<string | undefined> {
  if (options.references === undefined) return "without its key nobody can tell which earlier snapshots it needs";
  for (const needed of options.references) {
    const problem = await findProblem(needed, options);
    if (problem !== undefined) return `it needs ${needed.id}, ${problem}`;
  }
  return undefined;
}

async function findProblem(
  { id, volumes }: NeededSnapshot,
  { destination, prefix, signal }: FindMissingReferenceOptions,
): Promise<string | undefined> {
  const folder = (await listSnapshotFolders(destination, prefix, { id, signal })).get(id);
  if (!folder || !hasManifest(folder)) return `which ${destination.name} does not have`;
  if (isRemoving(folder)) return `which is being removed from ${destination.name}`;
  try {
    const isEncrypted = folder.has(ENCRYPTED_MANIFEST_NAME);
    const parts = await readParts({ destination, prefix, id, isEncrypted, signal });
    if (volumes && !areSameVolumes(volumes, parts.volumes)) {
      return `and ${destination.name} has another snapshot with this id`;
    }
    const lacking = parts.volumes.find(({ name, size }) => folder.get(name)?.size !== size);
    return lacking && `which is not complete at ${destination.name}: ${lacking.name} is missing or cut off`;
  } catch (error) {
    if (!(error instanceof OperationalError) || error.kind !== "archive") throw error;
    return `which cannot be used at ${destination.name}: ${error.message}`;
  }
}

export interface FindLostReferenceOptions extends Omit<FindMissingReferenceOptions, "references"> {
  readonly references: readonly Required<NeededSnapshot>[];
}

/**
 * Looks at listings only, for who has read these snapshots just now: says which of them is gone from a destination since, is
 * about to be removed, or is not whole; undefined when all of them are there. Fails with kind `destination`.
 */
export async function findLostReference(options: FindLostReferenceOptions): Promise<string | undefined> {
  const limit = makeLimit(LISTS_AT_ONCE);
  const problems = options.references.map((needed) => limit(() => findLoss(needed, options)));
  return (await Promise.all(problems)).find((problem) => problem !== undefined);
}

const LISTS_AT_ONCE = 8;

async function findLoss(
  { id, volumes = [] }: Required<NeededSnapshot>,
  { destination, prefix, signal }: FindLostReferenceOptions,
): Promise<string | undefined> {
  const folder = (await listSnapshotFolders(destination, prefix, { id, signal })).get(id);
  if (!folder || !hasManifest(folder)) return `${destination.name} does not have ${id}`;
  if (isRemoving(folder)) return `${id} is being removed from ${destination.name}`;
  const lacking = volumes.find(({ name, size }) => folder.get(name)?.size !== size);
  return lacking && `${lacking.name} of ${id} is not whole at ${destination.name}`;
}

type Volumes = NonNullable<NeededSnapshot["volumes"]>;

/** Tells a snapshot from another one with the same id: two machines may make one at once, each where only it comes to. */
export function areSameVolumes(left: Volumes, right: Volumes): boolean {
  return isDeepStrictEqual(factsOf(left), factsOf(right));
}

function factsOf(volumes: Volumes) {
  return volumes.map(({ name, size, sha256 }) => ({ name, size, sha256 }));
}
