import type { Readable } from "node:stream";
import type { ListObjectsV2CommandOutput, S3Client, S3ClientConfig, StorageClass } from "@aws-sdk/client-s3";
import { codeOf } from "../base/errors.ts";
import { exactBytes } from "./checked-bytes.ts";
import {
  type Destination,
  destinationError,
  type GetOptions,
  type ObjectInfo,
  type OpenBytes,
  type PutOptions,
  type ThawAnswer,
  type ThawOptions,
} from "./destination.ts";
import type { S3Settings } from "./destination-settings.ts";
import { ARCHIVED, type ErrorMeaning, remoteError } from "./network-errors.ts";
import { alreadyThere, assertLength, folderOfPrefix, foldersBelow, placeKey } from "./object-store.ts";
import { mustTry, thawRequestOf, thawStateOf } from "./s3-archive.ts";
import { type S3Limits, uploadToS3 } from "./s3-upload.ts";

type Sdk = typeof import("@aws-sdk/client-s3");

const CONNECT_MS = 20_000;
const SILENCE_MS = 120_000;
/** Largest object of one PUT, by the S3 user guide. */
const SINGLE_PUT_BYTES = 5 * 1024 ** 3;

/** Without one the SDK writes to the console what it throws anyway. */
const SILENT = { trace() {}, debug() {}, info() {}, warn() {}, error() {} };

interface Options {
  readonly signal: AbortSignal;
}

/**
 * Opens a bucket of S3 or of a server that speaks it. Without keys and profile the SDK's default chain finds the
 * credentials. Fails with `denied`, or with `failed` when there is no such bucket.
 */
export async function openS3Destination(
  settings: S3Settings,
  { signal }: Options,
  limits: S3Limits = { singlePutBytes: SINGLE_PUT_BYTES, leastPartBytes: 64 * 1024 ** 2 },
): Promise<Destination> {
  const sdk = await import("@aws-sdk/client-s3");
  const folder = folderOfPrefix(settings.prefix);
  const name = settings.name ?? `s3://${settings.bucket}${folder === "" ? "" : `/${folder.slice(0, -1)}`}`;
  const client = new sdk.S3Client(configOf(settings));
  try {
    await client.send(new sdk.HeadBucketCommand({ Bucket: settings.bucket }), { abortSignal: signal });
  } catch (error) {
    client.destroy();
    signal.throwIfAborted();
    if (statusOf(error) === 404) {
      const hint = "Create the bucket, or correct its name.";
      throw destinationError(`cannot open ${name}: there is no such bucket`, "failed", { hint, cause: error });
    }
    throw remoteError(error, `open ${name}`, (cause) => addressMeaning(cause, settings) ?? s3Meaning(cause));
  }
  return new S3Destination({ sdk, client, name, folder, settings, limits });
}

/** The bucket stands in front of the endpoint's host name, which few servers but Amazon's can be asked by. */
function addressMeaning(error: unknown, { bucket, endpoint, pathStyle }: S3Settings): ErrorMeaning | undefined {
  const isUnknown = ["ENOTFOUND", "EAI_AGAIN"].includes(codeOf(error) ?? "");
  if (!isUnknown || endpoint === undefined || pathStyle) return undefined;
  const isArn = bucket.startsWith("arn:");
  return {
    code: "unreachable",
    words: `no host is known by its endpoint's name with the ${isArn ? "name in the ARN" : "bucket"} in front`,
    hint: isArn
      ? "Give the name of the bucket and pathStyle: true instead of the ARN, or leave the endpoint out for Amazon."
      : "Add pathStyle: true, or check the endpoint.",
  };
}

function configOf(settings: S3Settings): S3ClientConfig {
  const { accessKeyId, secretAccessKey, sessionToken, endpoint, profile, region } = settings;
  const keys = accessKeyId !== undefined && secretAccessKey !== undefined;
  return {
    // Attempts are counted in one place, above: a body that was half sent cannot be sent again from here.
    maxAttempts: 1,
    logger: SILENT,
    requestHandler: { connectionTimeout: CONNECT_MS, socketTimeout: SILENCE_MS },
    // Every server checks x-amz-content-sha256; the newer checksum headers fail on many that are not Amazon's.
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    forcePathStyle: settings.pathStyle ?? false,
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(profile === undefined ? {} : { profile }),
    // A server of one's own has no regions, but the signature needs the name of one.
    ...(region === undefined ? (endpoint === undefined ? {} : { region: "us-east-1" }) : { region }),
    ...(keys
      ? { credentials: { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) } }
      : {}),
  };
}

interface S3Parts {
  readonly sdk: Sdk;
  readonly client: S3Client;
  readonly name: string;
  readonly folder: string;
  readonly settings: S3Settings;
  readonly limits: S3Limits;
}

class S3Destination implements Destination {
  readonly name: string;
  readonly #parts: S3Parts;

  constructor(parts: S3Parts) {
    this.name = parts.name;
    this.#parts = parts;
  }

  async put(key: string, open: OpenBytes, options: PutOptions): Promise<void> {
    const { place, object } = placeKey(this.name, this.#parts.folder, key);
    const { signal, exclusive = false } = options;
    signal.throwIfAborted();
    const input = {
      ...this.#target(place),
      ...(exclusive ? { IfNoneMatch: "*" } : {}),
      ...(options.archival ? this.#storageClass() : {}),
    };
    try {
      await uploadToS3(this.#parts, input, open, { ...options, object });
    } catch (error) {
      signal.throwIfAborted();
      if (exclusive && statusOf(error) === 412) throw alreadyThere(object, error);
      throw remoteError(error, `write ${object}`, s3Meaning);
    }
  }

  async *get(key: string, { range, signal }: GetOptions): AsyncIterable<Uint8Array> {
    const { place, object } = placeKey(this.name, this.#parts.folder, key);
    const { sdk, client } = this.#parts;
    signal.throwIfAborted();
    try {
      if (range && range.start === range.end) {
        // HTTP has no empty range.
        await client.send(new sdk.HeadObjectCommand(this.#target(place)), { abortSignal: signal });
        return;
      }
      const wanted = range ? { Range: `bytes=${range.start}-${range.end - 1}` } : {};
      const answer = await client.send(new sdk.GetObjectCommand({ ...this.#target(place), ...wanted }), {
        abortSignal: signal,
      });
      const body = answer.Body as Readable;
      try {
        const size = assertLength(answer.ContentLength, range ? range.end - range.start : undefined, object);
        yield* exactBytes(body as AsyncIterable<Uint8Array>, size, { object, verb: "read", signal });
      } finally {
        body.destroy();
      }
    } catch (error) {
      signal.throwIfAborted();
      throw remoteError(error, `read ${object}`, s3Meaning);
    }
  }

  async stat(key: string, { signal }: Options): Promise<ObjectInfo | undefined> {
    const { place, object } = placeKey(this.name, this.#parts.folder, key);
    const { sdk, client } = this.#parts;
    signal.throwIfAborted();
    try {
      const head = await client.send(new sdk.HeadObjectCommand(this.#target(place)), { abortSignal: signal });
      const state =
        mustTry(head) && (await this.#canRead(place, signal)) ? { storageClass: head.StorageClass } : thawStateOf(head);
      return { key, size: head.ContentLength ?? 0, modifiedAt: head.LastModified ?? new Date(0), ...state };
    } catch (error) {
      signal.throwIfAborted();
      if (statusOf(error) === 404) return undefined;
      throw remoteError(error, `look at ${object}`, s3Meaning);
    }
  }

  async *list(prefix: string, { signal }: Options): AsyncIterable<ObjectInfo> {
    const { folder } = this.#parts;
    signal.throwIfAborted();
    try {
      for await (const { Contents = [] } of this.#pages({ Prefix: `${folder}${prefix}` }, signal)) {
        for (const { Key, Size, LastModified, StorageClass: storageClass } of Contents) {
          if (Key === undefined) continue;
          const modifiedAt = LastModified ?? new Date(0);
          yield { key: Key.slice(folder.length), size: Size ?? 0, modifiedAt, storageClass };
        }
      }
    } catch (error) {
      signal.throwIfAborted();
      throw remoteError(error, `list ${this.name}/${prefix}`, s3Meaning);
    }
  }

  async listFolders(below: string, { signal }: Options): Promise<readonly string[]> {
    const start = `${placeKey(this.name, this.#parts.folder, below).place}/`;
    signal.throwIfAborted();
    try {
      const pages = this.#pages({ Prefix: start, Delimiter: "/" }, signal);
      return await foldersBelow(start, pages, ({ CommonPrefixes = [], Contents = [] }) => [
        ...CommonPrefixes.map(({ Prefix }) => Prefix),
        ...Contents.map(({ Key }) => Key),
      ]);
    } catch (error) {
      signal.throwIfAborted();
      throw remoteError(error, `list ${this.name}/${below}/`, s3Meaning);
    }
  }

  async *#pages(
    what: { readonly Prefix: string; readonly Delimiter?: string },
    signal: AbortSignal,
  ): AsyncIterable<ListObjectsV2CommandOutput> {
    const { sdk, client, settings } = this.#parts;
    let token: string | undefined;
    do {
      const from = token === undefined ? {} : { ContinuationToken: token };
      const command = new sdk.ListObjectsV2Command({ Bucket: settings.bucket, ...what, ...from });
      const page = await client.send(command, { abortSignal: signal });
      yield page;
      const next = page.IsTruncated ? page.NextContinuationToken : undefined;
      // One that leads to the same page again would never end.
      if (page.IsTruncated && (next === undefined || next === token)) throw cutListing(this.name);
      token = next;
    } while (token !== undefined);
  }

  async remove(key: string, { signal }: Options): Promise<void> {
    const { place, object } = placeKey(this.name, this.#parts.folder, key);
    const { sdk, client } = this.#parts;
    signal.throwIfAborted();
    try {
      await client.send(new sdk.DeleteObjectCommand(this.#target(place)), { abortSignal: signal });
    } catch (error) {
      signal.throwIfAborted();
      if (statusOf(error) === 404) return;
      throw remoteError(error, `remove ${object}`, s3Meaning);
    }
  }

  async thaw(key: string, { days, tier, signal }: ThawOptions): Promise<ThawAnswer> {
    const { place, object } = placeKey(this.name, this.#parts.folder, key);
    const { sdk, client } = this.#parts;
    signal.throwIfAborted();
    try {
      const head = await client.send(new sdk.HeadObjectCommand(this.#target(place)), { abortSignal: signal });
      if (mustTry(head) && (await this.#canRead(place, signal))) return { state: "readable" };
      const { thaw } = thawStateOf(head);
      if (thaw === undefined) return { state: "readable" };
      const { RestoreRequest, withinHours } = thawRequestOf(head, { days, object, ...(tier ? { tier } : {}) });
      if (thaw === "thawing") return { state: "thawing", withinHours };
      // For what is thawed already this sets anew how long it stays.
      const command = new sdk.RestoreObjectCommand({ ...this.#target(place), RestoreRequest });
      await client.send(command, { abortSignal: signal });
      return thaw === "thawed" ? { state: "readable" } : { state: "thawing", withinHours };
    } catch (error) {
      signal.throwIfAborted();
      // Somebody else asked in the meantime.
      if ((error as Error).name === "RestoreAlreadyInProgress") return { state: "thawing" };
      throw remoteError(error, `thaw ${object}`, s3Meaning);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#parts.client.destroy();
  }

  /** Reads the first byte of an object. */
  async #canRead(place: string, signal: AbortSignal): Promise<boolean> {
    const { sdk, client } = this.#parts;
    try {
      const command = new sdk.GetObjectCommand({ ...this.#target(place), Range: "bytes=0-0" });
      const { Body } = await client.send(command, { abortSignal: signal });
      (Body as Readable).destroy();
      return true;
    } catch (error) {
      if ((error as Error).name === "InvalidObjectState") return false;
      // An empty object has no first byte, and nothing to thaw.
      if (statusOf(error) === 416) return true;
      throw error;
    }
  }

  #target(place: string): { readonly Bucket: string; readonly Key: string } {
    return { Bucket: this.#parts.settings.bucket, Key: place };
  }

  #storageClass(): { StorageClass?: StorageClass } {
    const { storageClass } = this.#parts.settings;
    // Servers other than Amazon's have classes of their own names.
    return storageClass === undefined ? {} : { StorageClass: storageClass as StorageClass };
  }
}

function cutListing(name: string): Error {
  return destinationError(`cannot list ${name}: the server ended the listing early`, "failed");
}

function statusOf(error: unknown): number | undefined {
  return (error as { $metadata?: { httpStatusCode?: number } } | undefined)?.$metadata?.httpStatusCode;
}

function s3Meaning(error: unknown): ErrorMeaning | undefined {
  const { name, message } = error as { name?: string; message?: string };
  const status = statusOf(error);
  if (name === "NoSuchBucket") return { code: "failed", words: "there is no such bucket", hint: "Create it." };
  // The SDK could make no address of bucket, region and endpoint: an ARN that is none, say.
  if (name === "EndpointError") {
    return { code: "failed", words: message ?? "it has no address", hint: "Correct the bucket in the job file." };
  }
  if (name === "InvalidObjectState") {
    return ARCHIVED;
  }
  if (name === "CredentialsProviderError" || name === "TokenProviderError") {
    return { code: "denied", words: "no credentials were found", hint: "Give keys or a profile in the job file." };
  }
  if (message === "Region is missing") {
    return {
      code: "failed",
      words: "its region is not known",
      hint: "Give the region of the bucket, like eu-central-1.",
    };
  }
  if (/Quota|StorageFull|InsufficientCapacity/.test(name ?? "")) {
    return { code: "full", words: "its quota is used up", hint: "Free space there, or raise the quota." };
  }
  if (name === "TimeoutError") return { code: "unreachable", words: "the server does not answer" };
  if (status === 404) return { code: "not-found", words: "it does not exist" };
  if (status === 401 || status === 403) {
    return { code: "denied", words: "access denied", hint: "Check the access key and what it is allowed to do." };
  }
  if (status === 409 || status === 429 || name === "SlowDown" || name === "RequestTimeout" || (status ?? 0) >= 500) {
    if (status === 501) return { code: "unsupported", words: "the server cannot do it" };
    return { code: "busy", words: `the server is busy (${name ?? status})` };
  }
  return status === undefined ? undefined : { code: "failed", words: `the server says: ${name} ${message}` };
}
