import { hash } from "node:crypto";
import type { ChunkRef } from "../snapshot/manifest.ts";
import { chunksOf } from "../snapshot/parse-manifest.ts";
import type { SnapshotReader } from "../snapshot/snapshot-reader.ts";
import { ReferenceBook } from "../snapshot/reference-book.ts";
import type { SnapshotWriter } from "../snapshot/snapshot-writer.ts";

/** What takes the chunks of a snapshot that is being made. */
export type ChunkSink = Pick<SnapshotWriter, "addChunk">;

/** The snapshot that an incremental builds on. */
export interface BaseSnapshot extends ReferenceBookHolder {
  readonly reader: SnapshotReader;
  /** The reader knows only what this machine remembers: no rows. */
  readonly isRemembered?: boolean | undefined;
}

interface ReferenceBookHolder {
  readonly book: ReferenceBook;
}

export function baseOf(reader: SnapshotReader, more?: Pick<BaseSnapshot, "isRemembered">): BaseSnapshot {
  return { reader, book: new ReferenceBook(reader.manifest), ...more };
}

/**
 * Stores chunks with the hash of their raw bytes. Bytes that the base has already are not stored again: the chunk of the base is
 * given in their place.
 */
export function reuseChunks(writer: ChunkSink, base: BaseSnapshot | undefined): ChunkSink {
  const known = new Map<string, ChunkRef>();
  for (const chunk of base ? chunksOf(base.reader.manifest) : []) {
    if (chunk.rawSha256) known.set(chunk.rawSha256, chunk);
  }
  return {
    async addChunk(entry, raw, rows) {
      const rawSha256 = hash("sha256", raw);
      const same = known.get(rawSha256);
      if (base && same?.rawSize === raw.length && same.rows === rows) return base.book.adopt(same);
      return { ...(await writer.addChunk(entry, raw, rows)), rawSha256 };
    },
  };
}
