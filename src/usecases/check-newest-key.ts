import { OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import { ENCRYPTED_MANIFEST_NAME } from "../snapshot/manifest-text.ts";
import { openManifest } from "../snapshot/open-manifest.ts";
import { compareSnapshotIds, parseSnapshotId, type SnapshotId } from "../snapshot/snapshot-id.ts";
import type { KeyRing } from "../snapshot/snapshot-key.ts";

/**
 * Says what is wrong when the keys of a job do not open the newest encrypted snapshot of a destination: it was made with
 * other keys, which somebody may believe to be these. Undefined when nothing is wrong or nothing can be known.
 */
export async function checkNewestKey(
  destination: Destination,
  prefix: string,
  { keys, signal }: { readonly keys: KeyRing; readonly signal: AbortSignal },
): Promise<string | undefined> {
  try {
    let newest: SnapshotId | undefined;
    for await (const { key } of destination.list(`${prefix}/`, { signal })) {
      const [folder = "", name] = key.slice(prefix.length + 1).split("/");
      const id = name === ENCRYPTED_MANIFEST_NAME ? parseSnapshotId(folder) : undefined;
      if (id && (!newest || compareSnapshotIds(newest, id) < 0)) newest = id;
    }
    if (newest) await openManifest({ destination, prefix, id: newest.id, keys, isEncrypted: true, signal });
    return undefined;
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof OperationalError)) throw error;
    // A destination that does not answer fails by itself when it is written.
    if (error.kind !== "archive") return undefined;
    return `the newest snapshot cannot be restored with the keys of this job: ${error.message}${error.hint ? ` (${error.hint})` : ""}`;
  }
}
