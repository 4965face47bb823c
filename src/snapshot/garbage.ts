import type { OwnObject } from "./listed-folder.ts";
import { MANIFEST_NAMES } from "./manifest-text.ts";
import { REMOVAL_MARK } from "./removal-mark.ts";

/** Objects of a run that never stored its manifest, or marks of a prune that died before it removed a snapshot. */
export interface Garbage {
  readonly id: string;
  readonly keys: readonly string[];
  readonly bytes: number;
  /** Only removal marks: the snapshot beside them is there, and stays. */
  readonly isMarks?: true | undefined;
}

/** What a list tells of the folder of one snapshot to who looks for garbage. */
interface ListedRemains {
  readonly id: string;
  keys: string[];
  readonly marks: string[];
  bytes: number;
  newest: number;
  complete: boolean;
}

/** Finds garbage among listed objects: folders to which nothing was added since `latest`, and marks as old as that. */
export async function garbageAmong(objects: AsyncIterable<OwnObject>, latest: number): Promise<readonly Garbage[]> {
  const folders = new Map<string, ListedRemains>();
  for await (const { id, name, info } of objects) {
    const folder = folders.get(id) ?? { id, keys: [], marks: [], bytes: 0, newest: 0, complete: false };
    folders.set(id, folder);
    folder.complete ||= MANIFEST_NAMES.includes(name);
    const modifiedAt = info.modifiedAt.getTime();
    if (REMOVAL_MARK.test(name) && modifiedAt <= latest) folder.marks.push(info.key);
    // Of complete snapshots, which are most, nothing is remembered but their ids: memory stays small.
    if (folder.complete) folder.keys = [];
    else folder.keys.push(info.key);
    folder.bytes += info.size;
    folder.newest = Math.max(folder.newest, modifiedAt);
  }
  return [...folders.values()].flatMap(({ id, keys, marks, bytes, newest, complete }): readonly Garbage[] => {
    if (complete) return marks.length > 0 ? [{ id, keys: marks, bytes: 0, isMarks: true }] : [];
    return newest <= latest ? [{ id, keys, bytes }] : [];
  });
}
