import type { SftpConnection } from "./sftp-connection.ts";

/** Bytes under way at once, as many as OpenSSH's window holds: what keeps a line with latency busy. */
const WINDOW_BYTES = 2 * 1024 * 1024;

/** Writes bytes from the file's start on; when it settles, no request is under way any more. */
export async function writeAhead(
  connection: SftpConnection,
  handle: Buffer,
  { bytes, signal }: { readonly bytes: AsyncIterable<Uint8Array>; readonly signal: AbortSignal },
): Promise<void> {
  const packetBytes = await connection.packetBytes(signal);
  const underWay = new Set<Promise<void>>();
  let failure: { readonly error: unknown } | undefined;
  let position = 0;
  try {
    for await (const part of bytes) {
      for (let start = 0; start < part.length; start += packetBytes) {
        while (underWay.size * packetBytes >= WINDOW_BYTES) await Promise.race(underWay);
        if (failure) throw failure.error;
        const packet = Buffer.from(part.buffer, part.byteOffset + start, Math.min(packetBytes, part.length - start));
        const at = position;
        position += packet.length;
        const writing = connection
          .call<void>(signal, (sftp, done) => sftp.write(handle, packet, 0, packet.length, at, done))
          .catch((error: unknown) => {
            failure ??= { error };
          })
          .finally(() => underWay.delete(writing));
        underWay.add(writing);
      }
    }
    await Promise.all(underWay);
    if (failure) throw failure.error;
  } finally {
    await Promise.all(underWay);
  }
}

/** Gives the bytes from `start` to `end` in order while the next ones are under way. */
export async function* readAhead(
  connection: SftpConnection,
  handle: Buffer,
  { start, end, signal }: { readonly start: number; readonly end: number; readonly signal: AbortSignal },
): AsyncIterable<Uint8Array> {
  const packetBytes = await connection.packetBytes(signal);
  const ahead: Promise<Buffer>[] = [];
  let next = start;
  try {
    while (next < end || ahead.length > 0) {
      while (next < end && ahead.length * packetBytes < WINDOW_BYTES) {
        const piece = readPiece(connection, handle, { start: next, end: Math.min(next + packetBytes, end), signal });
        piece.catch(() => undefined);
        ahead.push(piece);
        next += packetBytes;
      }
      const bytes = await ahead.shift();
      signal.throwIfAborted();
      if (bytes) yield bytes;
    }
  } finally {
    await Promise.allSettled(ahead);
  }
}

async function readPiece(
  connection: SftpConnection,
  handle: Buffer,
  { start, end, signal }: { readonly start: number; readonly end: number; readonly signal: AbortSignal },
): Promise<Buffer> {
  const buffer = Buffer.allocUnsafeSlow(end - start);
  // A server may give less than asked for without being at the end.
  for (let done = 0; done < buffer.length; ) {
    done += await connection.call<number>(signal, (sftp, answer) =>
      sftp.read(handle, buffer, done, buffer.length - done, start + done, answer),
    );
  }
  return buffer;
}
