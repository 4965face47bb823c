import type { Destination } from "../destinations/destination.ts";
import type { Home } from "../job/home.ts";
import { openSummaryStore } from "../job/summary-store.ts";
import type { Manifest } from "../snapshot/manifest.ts";
import { MANIFEST_NAME } from "../snapshot/manifest-text.ts";
import { summaryOf } from "../snapshot/snapshot-summary.ts";
import { atEach } from "./at-each.ts";

export interface RememberSummaryOptions {
  readonly home: Home;
  readonly prefix: string;
  /** Those that have it. */
  readonly destinations: readonly Destination[];
  readonly manifest: Manifest;
  readonly signal: AbortSignal;
}

/**
 * Remembers what a list will show of a snapshot that was just made, so that the machine that makes them reads no manifest to list
 * them. What cannot be remembered is read then; of an encrypted one nothing is.
 */
export async function rememberSummary(options: RememberSummaryOptions): Promise<void> {
  const { home, prefix, destinations, manifest, signal } = options;
  if (manifest.encryption) return;
  using cache = await openSummaryStore(home);
  const key = `${prefix}/${manifest.id}/${MANIFEST_NAME}`;
  const summary = summaryOf(manifest);
  const remember = async (destination: Destination) => {
    const info = await destination.stat(key, { signal });
    if (info) await cache?.put(`${destination.name}/${key}`, info.size, info.modifiedAt, summary);
  };
  await atEach(destinations, remember, () => signal.throwIfAborted());
}
