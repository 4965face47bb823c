import type { ChunkRef, Manifest } from "./manifest.ts";

/** Reads the content of one snapshot from the destinations that hold it. */
export interface SnapshotReader extends AsyncDisposable {
  readonly manifest: Manifest;
  /**
   * Gives the raw (decompressed) bytes of these chunks in their order, one buffer a chunk, each checked against its
   * stored size, SHA-256 and raw size before it is given. Reads ahead by one chunk.
   * Fails with kind `archive` (`hash-mismatch`, `truncated`, `missing-volume` …) or `destination`.
   */
  chunks(refs: readonly ChunkRef[], options: { readonly signal: AbortSignal }): AsyncIterable<Uint8Array>;
}
