import { freeBytes } from "../base/free-bytes.ts";
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
