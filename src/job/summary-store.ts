import type { StatementSync } from "node:sqlite";
import type { SummaryCache } from "../snapshot/repository.ts";
import type { SnapshotSummary } from "../snapshot/snapshot-summary.ts";
import { type CacheFile, type CacheLayout, openCacheFile } from "./cache-file.ts";
import type { Home } from "./home.ts";

const LAYOUT: CacheLayout = {
  name: "summaries",
  // Rises whenever `SnapshotSummary` changes.
  version: 2,
  columns: "key text primary key, size integer not null, modified_at integer not null, summary text not null",
  // Some tens of megabytes.
  mostRows: 100_000,
};

/**
 * Remembers what manifests say, by key, size and time, so that a list of thousands of snapshots reads none twice. For
 * lists only: a manifest that rots keeps its size and time, so what removes or restores reads it itself.
 */
export class SummaryStore implements SummaryCache, Disposable {
  readonly #file: CacheFile;
  readonly #get: StatementSync;

  constructor(file: CacheFile) {
    this.#file = file;
    this.#get = file.database.prepare("select summary from summaries where key = ? and size = ? and modified_at = ?");
  }

  async get(key: string, size: number, modifiedAt: Date): Promise<SnapshotSummary | undefined> {
    if (this.#file.wasEmpty) return undefined;
    const row = this.#get.get(key, size, modifiedAt.getTime());
    return row ? (JSON.parse(String(row["summary"])) as SnapshotSummary) : undefined;
  }

  async put(key: string, size: number, modifiedAt: Date, summary: SnapshotSummary): Promise<void> {
    this.#file.put([key, size, modifiedAt.getTime(), JSON.stringify(summary)]);
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}

/** Opens the cache of this machine; see cache-file.ts for when there is none. */
export async function openSummaryStore(home: Home): Promise<SummaryStore | undefined> {
  const file = await openCacheFile(home, LAYOUT);
  return file && new SummaryStore(file);
}
