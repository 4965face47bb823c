import { once } from "node:events";
import { PassThrough, Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { TLSSocket } from "node:tls";
import type { FtpLease, FtpSession } from "./ftp-connections.ts";
import { lostConnection } from "./ftp-errors.ts";
import { hearReason } from "./ftp-reason.ts";

const UPLOAD_BUFFER_BYTES = 1024 * 1024;
/** Small, since what is in it when a range ends was moved in vain. */
const DOWNLOAD_BUFFER_BYTES = 256 * 1024;
/** Gives the server time to finish the handshake before the data connection ends without a byte. */
const EMPTY_PAUSE_MS = 50;

/**
 * Stores bytes in a new file. A failure of their source is what this rejects with; every failure closes the connection,
 * so that the server does not take a part for the whole.
 */
export async function uploadBytes(
  lease: FtpLease,
  path: string,
  { bytes, signal }: { readonly bytes: AsyncIterable<Uint8Array>; readonly signal: AbortSignal },
): Promise<void> {
  let failure: { readonly error: unknown } | undefined;
  const watched = async function* () {
    try {
      yield* bytes;
    } catch (error) {
      failure = { error };
      lease.discard();
      throw error;
    }
  };
  const source = async function* () {
    let isEmpty = true;
    // A stream that breaks throws into the generator that it reads: into this one, so that it is not taken for the
    // failure of the bytes.
    for await (const part of watched()) {
      isEmpty = false;
      yield part;
    }
    if (isEmpty) await handshakeEnd(lease.session);
  };
  const body = Readable.from(source(), { objectMode: false, highWaterMark: UPLOAD_BUFFER_BYTES });
  body.on("error", () => undefined);
  try {
    await lease.run(signal, ({ client }) => client.uploadFrom(body, path));
  } catch (error) {
    lease.discard();
    signal.throwIfAborted();
    throw failure ? failure.error : error;
  } finally {
    body.destroy();
  }
}

async function handshakeEnd({ client }: FtpSession): Promise<void> {
  const socket = client.ftp.dataSocket;
  if (!(socket instanceof TLSSocket)) return;
  if (!socket.authorized) await once(socket, "secureConnect");
  await sleep(EMPTY_PAUSE_MS);
}

/**
 * Gives the bytes from `start` to `end` of a file of `size` bytes, and perhaps more or fewer when it changed meanwhile.
 * The protocol knows a start (REST) but no end: before the end of the file, the connection is closed when the bytes are
 * there.
 */
export async function* downloadBytes(
  lease: FtpLease,
  path: string,
  { start, end, size, signal }: { start: number; end: number; size: number; readonly signal: AbortSignal },
): AsyncIterable<Uint8Array> {
  signal.throwIfAborted();
  const { client } = lease.session;
  const bytes = new PassThrough({ highWaterMark: DOWNLOAD_BUFFER_BYTES });
  bytes.on("error", () => undefined);
  const stop = () => {
    lease.discard();
    bytes.destroy();
  };
  signal.addEventListener("abort", stop, { once: true });
  const finished = hearReason(client, () => client.downloadTo(bytes, path, start));
  finished.catch((error: unknown) => bytes.destroy(error as Error));
  let isDone = false;
  try {
    let left = end - start;
    for await (const part of bytes as AsyncIterable<Buffer>) {
      yield end === size ? part : part.subarray(0, left);
      left -= part.length;
      if (left <= 0 && end < size) return;
    }
    await finished;
    isDone = true;
  } catch (error) {
    signal.throwIfAborted();
    throw lostConnection(error, client.closed);
  } finally {
    signal.removeEventListener("abort", stop);
    if (!isDone) stop();
  }
}
