import { constants, gunzipSync, gzipSync, type ZstdOptions, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { codeOf } from "../base/errors.ts";
import { archiveError } from "./archive-error.ts";

export type Codec = "zstd" | "gzip" | "none";

export interface Compression {
  readonly codec: Codec;
  /** zstd 1–19, gzip 1–9; without meaning for `none`. */
  readonly level: number;
}

/** Raw bytes that one chunk may hold at most: what a reader keeps in memory for a chunk, whatever a manifest says. */
export const MAX_CHUNK_BYTES = 128 * 1024 * 1024;

/**
 * Compresses the bytes of one chunk, at once and on this thread (see ChunkCompressor); with codec `none` the result is
 * `raw` itself.
 */
export function compressChunk(raw: Uint8Array, compression: Compression): Buffer {
  switch (compression.codec) {
    case "zstd":
      return zstdCompressSync(raw, zstdOptions(raw.length, compression.level));
    case "gzip":
      return gzipSync(raw, { level: compression.level, chunkSize: Math.max(64, raw.length + (raw.length >> 10) + 64) });
    case "none":
      return Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength);
  }
}

function zstdOptions(rawSize: number, level: number): ZstdOptions {
  return {
    // As large as the output can become (ZSTD_COMPRESSBOUND): no second buffer, which would cost a third of the speed.
    chunkSize: rawSize + (rawSize >> 8) + 1024,
    params: {
      [constants.ZSTD_c_compressionLevel]: level,
      [constants.ZSTD_c_checksumFlag]: 1,
      ...(level === 2 && rawSize >= TUNED_FROM_BYTES ? TUNED_LEVEL_2 : {}),
    },
  };
}

/**
 * Level 2 with a hash table that stays in the processor's first cache and longer matches: on rows of tables half as fast
 * again as zstd's own level 2, for two hundredths more bytes (measured on keys, prose, JSON and numbers).
 */
const TUNED_LEVEL_2 = { [constants.ZSTD_c_hashLog]: 13, [constants.ZSTD_c_minMatch]: 7 };
const TUNED_FROM_BYTES = 256 * 1024;

/**
 * Gives the raw bytes of a stored chunk, exactly `rawSize` of them.
 * Fails with kind `archive`: `corrupt-chunk` for bytes that do not decompress, `wrong-size` for more or fewer than
 * `rawSize`; never allocates much more than `rawSize`, whatever the bytes claim.
 */
export function decompressChunk(stored: Uint8Array, rawSize: number, codec: Codec): Buffer {
  if (!Number.isSafeInteger(rawSize) || rawSize < 0 || rawSize > MAX_CHUNK_BYTES) {
    throw archiveError(`cannot decompress a chunk: ${rawSize} bytes are beyond the limit of the format`, "wrong-size");
  }
  const raw = expand(stored, rawSize, codec);
  if (raw.length !== rawSize) {
    throw archiveError(`cannot decompress a chunk: it gives ${raw.length} bytes, not ${rawSize}`, "wrong-size");
  }
  return raw;
}

function expand(stored: Uint8Array, rawSize: number, codec: Codec): Buffer {
  // One byte more than promised, so that a chunk that holds more shows itself.
  const options = { maxOutputLength: rawSize + 1, chunkSize: Math.max(64, rawSize + 1) };
  try {
    switch (codec) {
      case "zstd":
        return zstdDecompressSync(stored, options);
      case "gzip":
        return gunzipSync(stored, options);
      case "none":
        return Buffer.from(stored.buffer, stored.byteOffset, stored.byteLength);
    }
  } catch (cause) {
    if (codeOf(cause) === "ERR_BUFFER_TOO_LARGE") {
      throw archiveError(`cannot decompress a chunk: it gives more than ${rawSize} bytes`, "wrong-size", { cause });
    }
    throw archiveError(`cannot decompress a chunk: it is not valid ${codec} data`, "corrupt-chunk", { cause });
  }
}
