import { randomBytes } from "node:crypto";
import type { Destination } from "../destinations/destination.ts";
import { bytesOf } from "./object-bytes.ts";
import { sealJson } from "./sealed-json.ts";

// Two machines share no lock. Who removes a snapshot first puts a mark beside its manifest and then looks for snapshots that
// came meanwhile; who stores one that refers to it first stores its manifest and then looks for marks. Whatever the order,
// at least one of them sees the other: the one leaves the snapshot where it is, or the other one takes its own back.

/** Says, beside its manifest, that a prune is about to remove the snapshot. Every prune has a name of its own for it. */
export const REMOVAL_MARK = /^removing-[0-9a-f]{16}\.json$/;

export function makeRemovalMarkName(): string {
  return `removing-${randomBytes(8).toString("hex")}.json`;
}

/** Puts a mark; the key is `<prefix>/<id>/<name>`. */
export async function putRemovalMark(
  destination: Destination,
  key: string,
  options: { readonly now: Date; readonly signal: AbortSignal },
): Promise<void> {
  const bytes = sealJson({ removingSince: options.now.toISOString() });
  await destination.put(key, () => bytesOf(bytes), { size: bytes.length, signal: options.signal });
}
