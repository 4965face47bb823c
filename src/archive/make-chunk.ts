import { type Compression, compressChunk } from "./chunk-codec.ts";
import { encryptChunk, type FileSeal } from "./chunk-encryption.ts";

/** Compresses the bytes of one chunk and encrypts them when there is a seal; the result may be `raw` itself. */
export function makeChunk(raw: Uint8Array, compression: Compression, seal: FileSeal | undefined): Buffer {
  const compressed = compressChunk(raw, compression);
  if (!seal) return compressed;
  const stored = encryptChunk(compressed, seal);
  if (compressed.buffer !== raw.buffer) freeBytes(compressed);
  return stored;
}

/**
 * Gives memory back at once that nobody looks at any more; a view of it is empty from then on. Left to the garbage collector, a
 * few megabytes for each chunk make it go through the whole heap every dozen chunks.
 */
export function freeBytes({ buffer }: Uint8Array): void {
  // Small buffers share one piece of memory.
  if (buffer instanceof ArrayBuffer && buffer.byteLength > Buffer.poolSize) buffer.transfer(0);
}
