import { codeOf } from "../base/errors.ts";
import type { Destination, ObjectInfo } from "../destinations/destination.ts";
import type { Manifest } from "./manifest.ts";
import { summaryShape } from "./manifest-shape.ts";
import { MAX_MANIFEST_BYTES } from "./manifest-text.ts";
import { collectBytes } from "./object-bytes.ts";
import { isSealIntact } from "./sealed-json.ts";
import { parseSnapshotId } from "./snapshot-id.ts";
import { type SnapshotSummary, summaryOf } from "./snapshot-summary.ts";

/**
 * Reads what a list shows of a plain manifest. Its seal is checked and whatever is shown, not the rest: of thousands of
 * manifests that is most of the work, and whoever reads or removes a snapshot reads all of it. Undefined when anything is not as
 * it should be: open-manifest.ts says what. Fails with kind `destination`.
 */
export async function readSummary(
  destination: Destination,
  { key, size }: Pick<ObjectInfo, "key" | "size">,
  { id, signal }: { readonly id: string; readonly signal: AbortSignal },
): Promise<SnapshotSummary | undefined> {
  if (size > MAX_MANIFEST_BYTES) return undefined;
  let bytes: Buffer;
  try {
    bytes = await collectBytes(destination.get(key, { size, signal }), size, key);
  } catch (error) {
    if (codeOf(error) === "not-found" || codeOf(error) === "wrong-size") return undefined;
    throw error;
  }
  return summaryIn(bytes, id);
}

/** Gives what a list shows of the manifest in these bytes; undefined when anything is not as it should be. */
export function summaryIn(bytes: Uint8Array, id: string): SnapshotSummary | undefined {
  if (!isSealIntact(bytes)) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(
      withoutDefinitions(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8")),
    );
  } catch {
    return undefined;
  }
  if (summaryShape(value) !== undefined) return undefined;
  const manifest = value as Manifest;
  const isRight =
    manifest.id === id && parseSnapshotId(id)?.kind === manifest.kind && manifest.encryption === undefined;
  return isRight ? summaryOf(manifest) : undefined;
}

const DEFINITIONS = ',"definitions":[';
const NEXT_FIELD = '],"notCaptured":[';

/**
 * Leaves out the definitions, which are most of a manifest and of which a list shows nothing. Quotes in a JSON text stand escaped, so what
 * is looked for are names of fields; what was written in another way is parsed as a whole.
 */
function withoutDefinitions(text: string): string {
  const start = text.indexOf(DEFINITIONS);
  const end = start < 0 ? -1 : text.indexOf(NEXT_FIELD, start);
  return end < 0 ? text : text.slice(0, start + DEFINITIONS.length) + text.slice(end);
}
