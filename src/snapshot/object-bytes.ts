import { archiveError } from "../archive/archive-error.ts";

/**
 * Collects an object of at most `maxBytes` in memory. Fails with kind `archive`, `wrong-size` when it gives more, and
 * leaves the transfer then.
 */
export async function collectBytes(bytes: AsyncIterable<Uint8Array>, maxBytes: number, name: string): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of bytes) {
    size += part.length;
    if (size > maxBytes) throw archiveError(`cannot read ${name}: it is larger than ${maxBytes} bytes`, "wrong-size");
    parts.push(part);
  }
  const [only] = parts;
  if (only && parts.length === 1) return Buffer.from(only.buffer, only.byteOffset, only.byteLength);
  return Buffer.concat(parts, size);
}

/** Gives bytes in memory as `Destination.put` wants them. */
export async function* bytesOf(bytes: Uint8Array): AsyncIterable<Uint8Array> {
  yield bytes;
}
