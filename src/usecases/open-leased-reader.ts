import type { Home } from "../job/home.ts";
import { takeReadLease } from "../job/read-lease.ts";
import { openSnapshotReader, type OpenSnapshotReaderOptions } from "../snapshot/open-snapshot-reader.ts";
import type { SnapshotReader } from "../snapshot/snapshot-reader.ts";

export interface OpenLeasedReaderOptions extends OpenSnapshotReaderOptions {
  readonly home: Home;
  /** What a prune names as the reason to leave it alone: `restore`. */
  readonly purpose: string;
}

/** Opens the content of a snapshot that no prune of this machine removes before the reader is disposed. */
export async function openLeasedReader({
  home,
  purpose,
  ...options
}: OpenLeasedReaderOptions): Promise<SnapshotReader> {
  const { id, references = [] } = options.manifest;
  const ids = [id, ...references.map((reference) => reference.id)];
  const lease = await takeReadLease(home, { prefix: options.prefix, ids, purpose });
  const reader = openSnapshotReader(options);
  return {
    manifest: reader.manifest,
    get passedOver() {
      return reader.passedOver;
    },
    chunks: (...args) => reader.chunks(...args),
    readStates: (...args) => reader.readStates(...args),
    async [Symbol.asyncDispose]() {
      using _lease = lease;
      await reader[Symbol.asyncDispose]();
    },
  };
}
