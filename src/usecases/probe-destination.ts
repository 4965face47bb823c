import { randomBytes } from "node:crypto";
import { destinationError } from "../destinations/destination.ts";
import type { DestinationSettings } from "../destinations/destination-settings.ts";
import { openDestination } from "../destinations/open-destination.ts";

/**
 * Tries a destination with an object of a few bytes: stores it, reads it back, lists it and removes it.
 * Fails with kind `destination`.
 */
export async function probeDestination(
  settings: DestinationSettings,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  await using destination = await openDestination(settings, { signal });
  const key = `rowkeep-probe-${randomBytes(6).toString("hex")}`;
  const bytes = randomBytes(64);
  async function* content() {
    yield bytes;
  }
  try {
    await destination.put(key, content, { size: bytes.length, signal });
    const parts: Uint8Array[] = [];
    for await (const part of destination.get(key, { signal })) parts.push(Buffer.from(part));
    if (!Buffer.concat(parts).equals(bytes)) {
      throw destinationError(`cannot trust ${destination.name}: what was stored reads back differently`, "failed");
    }
    let listed = false;
    for await (const object of destination.list(key, { signal })) listed ||= object.key === key;
    if (!listed) throw destinationError(`cannot trust ${destination.name}: it does not list what was stored`, "failed");
  } finally {
    await destination.remove(key, { signal });
  }
}
