import { createHash, type Hash } from "node:crypto";
import type { Readable } from "node:stream";
import { exactBytes } from "./checked-bytes.ts";
import { destinationError, type OpenBytes } from "./destination.ts";
import type { GcsApi, GcsObject } from "./gcs-api.ts";
import { bytesOfPart, PartSource, sendBody } from "./object-store.ts";

/** Every request of an upload but the last must carry a multiple of this. */
const UNIT_BYTES = 256 * 1024;
const INCOMPLETE = 308;
/** What one request carries of an object of unknown size: a multiple of the unit, which is in memory. */
const PART_BYTES = 32 * UNIT_BYTES;
const TIDY_MS = 5_000;

export interface GcsUpload {
  readonly place: string;
  /** As people read it. */
  readonly object: string;
  /** Undefined: unknown before the end. */
  readonly size: number | undefined;
  readonly exclusive: boolean;
  readonly storageClass: string | undefined;
  readonly onMoved?: (() => void) | undefined;
  readonly signal: AbortSignal;
}

/**
 * Stores one object by a resumable upload of at most three requests: begin, the bulk, the rest. The object appears with
 * the last one, which carries the MD5 of all bytes: the server refuses bytes that are others, and until then nothing is
 * visible and the old object stays. No byte is read twice and none but the rest (256 KiB) is kept. An object of unknown size takes a
 * request for each 8 MiB, which are kept.
 * See https://cloud.google.com/storage/docs/performing-resumable-uploads
 */
export async function uploadToGcs(api: GcsApi, open: OpenBytes, upload: GcsUpload): Promise<void> {
  const { object, size, signal } = upload;
  const session = await begin(api, upload);
  try {
    const md5 = createHash("md5");
    const source = new PartSource(hashed(exactBytes(open(), size, { object, verb: "write", signal }), md5));
    const { bulk, rest } = await (size === undefined
      ? sendParts(api, session, source, upload)
      : sendKnown(api, session, source, { ...upload, size }));
    await finish(api, session, { ...upload, size: bulk + rest.length, bulk, rest, md5: md5.digest("base64") });
  } catch (error) {
    const tidied = cancel(api, session);
    if (!signal.aborted) await tidied;
    throw error;
  }
}

/** Sends all from `start` on but the end of an object, and gives that. */
async function sendKnown(
  api: GcsApi,
  session: string,
  source: PartSource,
  {
    object,
    start = 0,
    size,
    signal,
  }: Pick<GcsUpload, "object" | "signal"> & { readonly start?: number; readonly size: number },
): Promise<SentUpload> {
  const bulk = Math.floor(Math.max(size - 1, 0) / UNIT_BYTES) * UNIT_BYTES;
  if (bulk > start) {
    const length = bulk - start;
    await sendBody(source.take(length), { object, size: length, signal }, (body, cut) =>
      sendBulk(api, session, { body, start, end: bulk, size, object, signal: cut }),
    );
  }
  return { bulk, rest: await restOf(source, size - bulk) };
}

async function sendParts(
  api: GcsApi,
  session: string,
  source: PartSource,
  { object, onMoved, signal }: GcsUpload,
): Promise<SentUpload> {
  for (let start = 0; ; start += PART_BYTES) {
    const part = await source.fill(PART_BYTES);
    if (await source.isAtEnd()) {
      const last = new PartSource(bytesOfPart(part, onMoved));
      return sendKnown(api, session, last, { object, start, size: start + part.size, signal });
    }
    const end = start + part.size;
    await sendBody(bytesOfPart(part, onMoved), { object, size: part.size, signal }, (body, cut) =>
      sendBulk(api, session, { body, start, end, size: undefined, object, signal: cut }),
    );
  }
}

interface SentUpload {
  /** Bytes that were sent. */
  readonly bulk: number;
  readonly rest: Buffer;
}

/** Gives the URL of the upload; whoever knows it may write to it, so it never goes into a message. */
async function begin(api: GcsApi, { place, object, size, exclusive, storageClass, signal }: GcsUpload) {
  const { headers } = await api.send({
    method: "POST",
    url: api.uploadUrl,
    params: { uploadType: "resumable", name: place, ...(exclusive ? { ifGenerationMatch: 0 } : {}) },
    headers: {
      ...(size === undefined ? {} : { "X-Upload-Content-Length": String(size) }),
      "X-Upload-Content-Type": "application/octet-stream",
    },
    data: storageClass === undefined ? {} : { storageClass },
    signal,
  });
  const session = headers.get("location");
  if (session) return session;
  throw destinationError(`cannot write ${object}: the server does not say where to send it`, "failed");
}

async function sendBulk(
  api: GcsApi,
  url: string,
  { body, start, end, size, object, signal }: BulkOfUpload & { readonly signal: AbortSignal },
): Promise<void> {
  const { status, headers } = await api.send({
    method: "PUT",
    url,
    headers: { "Content-Length": String(end - start), "Content-Range": `bytes ${start}-${end - 1}/${size ?? "*"}` },
    data: body,
    // An upload may take as long as it needs; whether it moves is watched above.
    timeout: 0,
    validateStatus: isStored,
    signal,
  });
  const range = headers.get("range") ?? "";
  if (status === INCOMPLETE && Number(/^bytes=0-(\d+)$/.exec(range)?.[1]) === end - 1) return;
  throw destinationError(`cannot write ${object}: the server did not take all bytes (${range || "none"})`, "busy");
}

interface BulkOfUpload {
  readonly body: Readable | Buffer;
  readonly start: number;
  readonly end: number;
  /** Of the whole object, where it is known. */
  readonly size: number | undefined;
  readonly object: string;
}

async function finish(
  api: GcsApi,
  url: string,
  { place, object, size, signal, ...sent }: GcsUpload & SentUpload & { readonly size: number; readonly md5: string },
): Promise<void> {
  const range = size === 0 ? "bytes */0" : `bytes ${sent.bulk}-${size - 1}/${size}`;
  const { status, data } = await api.send<GcsObject | undefined>({
    method: "PUT",
    url,
    headers: {
      "Content-Length": String(sent.rest.length),
      "Content-Range": range,
      "X-Goog-Hash": `md5=${sent.md5}`,
    },
    data: sent.rest,
    validateStatus: isStored,
    signal,
  });
  if (status === INCOMPLETE)
    throw destinationError(`cannot write ${object}: the server did not take all bytes`, "busy");
  if (data?.md5Hash === sent.md5 && data.size === String(size)) return;
  // A server that does not check: what it stored is not the object, and must not be taken for it.
  if (data?.generation !== undefined) {
    const params = { ifGenerationMatch: data.generation };
    await api.send({ method: "DELETE", url: api.objectUrl(place), params, signal });
  }
  throw destinationError(`cannot write ${object}: the server stored other bytes than were sent`, "failed", {
    hint: "Check the network and the service: nothing stored there now can be trusted.",
  });
}

/** What is left of an upload is invisible and ends by itself after a week: best effort. */
async function cancel(api: GcsApi, url: string): Promise<void> {
  const signal = AbortSignal.timeout(TIDY_MS);
  await api.send({ method: "DELETE", url, validateStatus: () => true, signal }).catch(() => undefined);
}

async function restOf(source: PartSource, length: number): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of source.take(length)) parts.push(part);
  await source.end();
  return Buffer.concat(parts);
}

async function* hashed(bytes: AsyncIterable<Uint8Array>, hash: Hash): AsyncIterable<Uint8Array> {
  for await (const part of bytes) {
    hash.update(part);
    yield part;
  }
}

function isStored(status: number): boolean {
  return status === INCOMPLETE || (status >= 200 && status < 300);
}
