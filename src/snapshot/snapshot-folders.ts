import type { Destination, ObjectInfo } from "../destinations/destination.ts";
import { MARKS_NAME, PIN_NAME } from "./marks-text.ts";
import { ENVELOPE_NAME } from "./envelope-text.ts";
import { ENCRYPTED_MANIFEST_NAME, MANIFEST_NAME } from "./manifest-text.ts";
import { REMOVAL_MARK } from "./removal-mark.ts";
import { OWN_OBJECT } from "./repository.ts";
import { parseSnapshotId } from "./snapshot-id.ts";
import { KEY_NAME } from "./snapshot-key.ts";

/** The objects in the folder of one snapshot, by name; the marks, which may differ between copies, are left out. */
export type SnapshotFolder = ReadonlyMap<string, Pick<ObjectInfo, "size" | "modifiedAt">>;

/** Lists the folders of snapshots below `prefix` by id, complete or not; with `id` only that one. Reads only the listing. */
export async function listSnapshotFolders(
  destination: Destination,
  prefix: string,
  { id: only, signal }: { readonly id?: string; readonly signal: AbortSignal },
): Promise<ReadonlyMap<string, SnapshotFolder>> {
  const folders = new Map<string, Map<string, Pick<ObjectInfo, "size" | "modifiedAt">>>();
  for await (const { key, size, modifiedAt } of destination.list(`${prefix}/${only === undefined ? "" : `${only}/`}`, {
    signal,
  })) {
    const [id = "", name = "", ...deeper] = key.slice(prefix.length + 1).split("/");
    if (deeper.length > 0 || name === MARKS_NAME || name === PIN_NAME || !OWN_OBJECT.test(name) || !parseSnapshotId(id))
      continue;
    const folder = folders.get(id) ?? new Map<string, Pick<ObjectInfo, "size" | "modifiedAt">>();
    folders.set(id, folder);
    folder.set(name, { size, modifiedAt });
  }
  return folders;
}

/** Tells a folder with a manifest, whatever else it lacks. */
export function hasManifest(folder: SnapshotFolder): boolean {
  return folder.has(MANIFEST_NAME) || folder.has(ENCRYPTED_MANIFEST_NAME);
}

/** Tells a folder whose snapshot a prune is about to remove, or was when it died. */
export function isRemoving(folder: SnapshotFolder): boolean {
  return [...folder.keys()].some((name) => REMOVAL_MARK.test(name));
}

/** Gives what the listing tells of the manifest and of what lies beside it. */
export function stampOfSmall(folder: SnapshotFolder): string {
  return JSON.stringify(
    [MANIFEST_NAME, KEY_NAME, ENVELOPE_NAME, ENCRYPTED_MANIFEST_NAME].flatMap((name) => {
      const listed = folder.get(name);
      return listed ? [[name, listed.size, listed.modifiedAt.getTime()]] : [];
    }),
  );
}

export function isSameFolder(left: SnapshotFolder, right: SnapshotFolder): boolean {
  return left.size === right.size && [...left].every(([name, { size }]) => right.get(name)?.size === size);
}
