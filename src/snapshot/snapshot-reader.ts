import type { VolumeStates } from "./archived-volumes.ts";
import type { ChunkRef, Manifest } from "./manifest.ts";

/** Reads the content of one snapshot from the destinations that hold it. */
export interface SnapshotReader extends AsyncDisposable {
  readonly manifest: Manifest;
  /** What was wrong at a destination, told once of each, where another one gave the right bytes so far. */
  readonly passedOver: readonly string[];
  /**
   * Gives the raw (decompressed) bytes of these chunks in their order, one buffer a chunk, each checked against its
   * stored size, SHA-256 and raw size before it is given. Each one has memory of its own, which nobody else looks at.
   * Reads ahead by one chunk.
   * Fails with kind `archive` (`hash-mismatch`, `truncated`, `missing-volume` …) or `destination`.
   */
  chunks(refs: readonly ChunkRef[], options: { readonly signal: AbortSignal }): AsyncIterable<Uint8Array>;
  /**
   * Tells which volumes of these chunks must be thawed before they can be read, because no destination has them readable.
   * From then on each volume is read first where it can be.
   */
  readStates(refs: Iterable<ChunkRef>, options: { readonly signal: AbortSignal }): Promise<VolumeStates>;
}

/** The same reader, but for what is given. */
export function readerWith(reader: SnapshotReader, change: Partial<SnapshotReader>): SnapshotReader {
  return {
    manifest: reader.manifest,
    get passedOver() {
      return reader.passedOver;
    },
    chunks: (refs, options) => reader.chunks(refs, options),
    readStates: (refs, options) => reader.readStates(refs, options),
    [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose](),
    ...change,
  };
}
