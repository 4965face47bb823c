import { AskedThread } from "../base/asked-thread.ts";
import type { Destination, ObjectInfo } from "../destinations/destination.ts";
import { readSmall } from "./read-ahead.ts";
import type { SnapshotSummary } from "./snapshot-summary.ts";
import type { SummaryAnswer, SummaryRequest } from "./summary-worker.ts";

/** It holds some dozens of small manifests at a time. */
const LIMITS = { maxYoungGenerationSizeMb: 16, maxOldGenerationSizeMb: 128 };

/** A plain manifest that was listed. */
export interface ListedManifest {
  readonly id: string;
  readonly manifest: ObjectInfo;
}

/** Reads summaries of thousands of manifests in a thread of its own, while this one lists, remembers and shows them. */
export class SummaryThread implements Disposable {
  readonly #thread = new AskedThread<SummaryRequest, SummaryAnswer>({
    file: "summary-worker",
    from: import.meta.url,
    limits: LIMITS,
  });

  /**
   * Gives a summary for each of these manifests, in their order; none for one that cannot be had in this way, for whatever
   * reason. Fails with kind `destination`.
   */
  async read(
    destination: Destination,
    listed: readonly ListedManifest[],
    { signal }: { readonly signal: AbortSignal },
  ): Promise<readonly (SnapshotSummary | undefined)[]> {
    if (listed.length === 0) return [];
    const keys = listed.map(({ manifest }) => manifest.key);
    const found = await readSmall(destination, keys, { signal });
    const request = listed.map(({ id, manifest }, index) => {
      const bytes = found[index];
      return { id, bytes: bytes?.length === manifest.size ? bytes : undefined };
    });
    return (await this.#thread.ask(request, { signal })) ?? [];
  }

  [Symbol.dispose](): void {
    this.#thread[Symbol.dispose]();
  }
}
