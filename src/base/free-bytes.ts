/**
 * Gives memory back at once that nobody looks at any more; every view of it is empty from then on. Left to the garbage collector,
 * a few megabytes for each chunk make it go through the whole heap every dozen chunks.
 */
export function freeBytes({ buffer }: Uint8Array): void {
  // Small buffers share one piece of memory.
  if (buffer instanceof ArrayBuffer && buffer.byteLength > Buffer.poolSize) buffer.transfer(0);
}
