import type { DestinationSettings } from "../destinations/destination-settings.ts";
import { openDestination } from "../destinations/open-destination.ts";
import { checkDestination } from "./check-destination.ts";

/**
 * Tries a destination with an object of a few bytes: stores it, reads it back, lists it and removes it (see
 * check-destination.ts). Gives what it warns of. Fails with kind `destination`.
 */
export async function probeDestination(
  settings: DestinationSettings,
  { signal }: { readonly signal: AbortSignal },
): Promise<readonly string[]> {
  await using destination = await openDestination(settings, { removesMade: true, signal });
  const checks = await checkDestination(destination, { now: () => new Date(), signal });
  const failed = checks.find(({ status }) => status === "failed");
  if (failed?.error) throw failed.error;
  return checks.filter(({ status }) => status === "warning").map(({ message }) => `${destination.name}: ${message}`);
}
