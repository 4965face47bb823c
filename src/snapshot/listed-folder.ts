import type { ObjectInfo } from "../destinations/destination.ts";
import type { ReadEnvelope } from "./envelope-text.ts";
import { ENCRYPTED_MANIFEST_NAME, MANIFEST_NAME } from "./manifest-text.ts";
import { MARKS_NAME, PIN_NAME } from "./marks-text.ts";
import { fitsId } from "./retention-facts.ts";
import type { LockedSnapshot, SnapshotSummary } from "./snapshot-summary.ts";

/** An object that rowkeep wrote into the folder of a snapshot. */
export interface OwnObject {
  readonly id: string;
  readonly name: string;
  readonly info: ObjectInfo;
}

/** What a list tells of the folder of one snapshot. */
export interface ListedFolder {
  readonly id: string;
  manifest?: ObjectInfo;
  /** What is remembered of the manifest. */
  known?: SnapshotSummary | undefined;
  marks?: ObjectInfo;
  pinned?: boolean;
  volumeBytes: number;
}

/** Gives the folders that have a manifest; of the others and of volumes nothing stays in memory but their sum. */
export async function listedFolders(objects: AsyncIterable<OwnObject>): Promise<ListedFolder[]> {
  const byId = new Map<string, ListedFolder>();
  for await (const { id, name, info } of objects) {
    const folder = byId.get(id) ?? { id, volumeBytes: 0 };
    byId.set(id, folder);
    if (name === ENCRYPTED_MANIFEST_NAME) folder.manifest = info;
    else if (name === MANIFEST_NAME) folder.manifest ??= info;
    else if (name === MARKS_NAME) folder.marks = info;
    else if (name === PIN_NAME) folder.pinned = true;
    else if (name.startsWith("volume-")) folder.volumeBytes += info.size;
  }
  return [...byId.values()].filter(({ manifest }) => manifest);
}

export function isEncrypted({ key }: ObjectInfo): boolean {
  return key.endsWith(`/${ENCRYPTED_MANIFEST_NAME}`);
}

/** Gives what an envelope tells of a closed snapshot, compared with what is listed of it. */
export function closedOf(
  { sha256, keyIds, retention, volumes, manifest }: ReadEnvelope,
  folder: ListedFolder,
): Pick<LockedSnapshot, "envelope" | "isIncomplete"> {
  const facts = retention && fitsId(retention, folder.id) ? { facts: retention } : {};
  const named = volumes.reduce((sum, { size }) => sum + size, 0);
  const isIncomplete = folder.volumeBytes < named || folder.manifest?.size !== manifest.size;
  return { envelope: { sha256, keyIds, ...facts }, ...(isIncomplete ? { isIncomplete } : {}) };
}
