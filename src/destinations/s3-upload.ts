import type { PutObjectCommandInput, S3Client } from "@aws-sdk/client-s3";
import { exactBytes } from "./checked-bytes.ts";
import { destinationError, type OpenBytes, type PutOptions } from "./destination.ts";
import { alreadyThere, bytesOfPart, hashPart, PartSource, sendBody } from "./object-store.ts";

type Sdk = typeof import("@aws-sdk/client-s3");

const TIDY_MS = 30_000;
/** Most parts of a multipart upload, by the S3 user guide, less a reserve. */
const MOST_PARTS = 9_000;

export interface S3Limits {
  /** Objects above this size are sent in parts. */
  readonly singlePutBytes: number;
  readonly leastPartBytes: number;
}

interface Bucket {
  readonly sdk: Sdk;
  readonly client: S3Client;
  readonly limits: S3Limits;
}

interface Upload extends PutOptions {
  /** As people read it. */
  readonly object: string;
}

interface Part {
  readonly bytes: AsyncIterable<Uint8Array>;
  readonly size: number;
  readonly sha256?: string | undefined;
}

/**
 * Stores one object: in one request, or in parts when it is large. One of unknown size is collected part by part in memory, since a request
 * must tell how many bytes it carries; all parts but the last have the same size, which some servers demand. Fails as the SDK does.
 */
export async function uploadToS3(
  bucket: Bucket,
  input: PutObjectCommandInput,
  open: OpenBytes,
  upload: Upload,
): Promise<void> {
  const { object, size, sha256, onMoved, signal } = upload;
  const { singlePutBytes, leastPartBytes } = bucket.limits;
  if (size !== undefined && size <= singlePutBytes) {
    return putWhole(bucket, input, { bytes: open(), size, sha256 }, { object, signal });
  }
  const source = new PartSource(exactBytes(open(), size, { object, verb: "write", signal }));
  if (size !== undefined) {
    const partBytes = Math.max(leastPartBytes, Math.ceil(size / MOST_PARTS));
    return putInParts(bucket, input, partsOf(source, size, partBytes), { object, signal });
  }
  const first = await nextPart(source, leastPartBytes, onMoved);
  if (await source.isAtEnd()) return putWhole(bucket, input, first, { object, signal });
  const parts = filledParts(first, () => nextPart(source, leastPartBytes, onMoved));
  await putInParts(bucket, input, parts, { object, signal });
}

async function putWhole(
  { sdk, client }: Bucket,
  input: PutObjectCommandInput,
  { bytes, size, sha256 }: Part,
  { object, signal }: Pick<Upload, "object" | "signal">,
): Promise<void> {
  await sendBody(bytes, { object, size, signal }, async (body, cut) => {
    const command = new sdk.PutObjectCommand({ ...input, Body: body, ContentLength: size });
    if (sha256 !== undefined) command.middlewareStack.add(signing(sha256), SIGNING);
    await client.send(command, { abortSignal: cut });
  });
}

async function putInParts(
  { sdk, client }: Bucket,
  input: PutObjectCommandInput,
  parts: AsyncIterable<Part>,
  { object, signal }: Pick<Upload, "object" | "signal">,
): Promise<void> {
  const { IfNoneMatch, ...plain } = input;
  const condition = IfNoneMatch === undefined ? {} : { IfNoneMatch };
  const { UploadId } = await client.send(new sdk.CreateMultipartUploadCommand(plain), { abortSignal: signal });
  const upload = { Bucket: input.Bucket, Key: input.Key, UploadId };
  try {
    const done: { ETag: string | undefined; PartNumber: number }[] = [];
    for await (const { bytes, size, sha256 } of parts) {
      if (done.length === MOST_PARTS) throw tooLarge(object);
      const PartNumber = done.length + 1;
      const { ETag } = await sendBody(bytes, { object, size, signal }, (Body, cut) => {
        const command = new sdk.UploadPartCommand({ ...upload, PartNumber, Body, ContentLength: size });
        if (sha256 !== undefined) command.middlewareStack.add(signing(sha256), SIGNING);
        return client.send(command, { abortSignal: cut });
      });
      done.push({ ETag, PartNumber });
    }
    if (IfNoneMatch !== undefined) await assertFree({ sdk, client }, input, { object, signal });
    const all = { MultipartUpload: { Parts: done }, ...condition };
    await client.send(new sdk.CompleteMultipartUploadCommand({ ...upload, ...all }), { abortSignal: signal });
  } catch (error) {
    // What is left of an upload is invisible and has to be paid for.
    const tidy = AbortSignal.timeout(TIDY_MS);
    await client.send(new sdk.AbortMultipartUploadCommand(upload), { abortSignal: tidy }).catch(() => undefined);
    throw error;
  }
}

/** Some servers other than Amazon's know the condition for one request, and pass over it where parts are put together. */
async function assertFree(
  { sdk, client }: Pick<Bucket, "sdk" | "client">,
  { Bucket, Key }: PutObjectCommandInput,
  { object, signal }: Pick<Upload, "object" | "signal">,
): Promise<void> {
  try {
    await client.send(new sdk.HeadObjectCommand({ Bucket, Key }), { abortSignal: signal });
  } catch (error) {
    if ((error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode === 404) return;
    throw error;
  }
  throw alreadyThere(object, undefined);
}

async function* partsOf(source: PartSource, size: number, partBytes: number): AsyncIterable<Part> {
  for (let start = 0; start < size; start += partBytes) {
    const length = Math.min(partBytes, size - start);
    yield { size: length, bytes: source.take(length) };
  }
}

async function* filledParts(first: Part, next: () => Promise<Part>): AsyncIterable<Part> {
  for (let part = first; part.size > 0; part = await next()) yield part;
}

async function nextPart(source: PartSource, length: number, onMoved: Upload["onMoved"]): Promise<Part> {
  const part = await source.fill(length);
  return { bytes: bytesOfPart(part, onMoved), size: part.size, sha256: hashPart(part, "sha256").toString("hex") };
}

const SIGNING = { step: "build", name: "knownSha256" } as const;

/** The signature then covers the bytes, and the server refuses others. */
function signing(sha256: string) {
  return <Args extends { readonly request: unknown }, Answer>(next: (args: Args) => Answer) =>
    (args: Args): Answer => {
      (args.request as { headers: Record<string, string> }).headers["x-amz-content-sha256"] = sha256;
      return next(args);
    };
}

function tooLarge(object: string): Error {
  return destinationError(
    `cannot write ${object}: it is too large to be sent without knowing its size first`,
    "unsupported",
    {
      hint: "Make a job with this destination, which stores several objects, or write a file of this machine and copy it.",
    },
  );
}
