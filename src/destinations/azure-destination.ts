import type { Readable } from "node:stream";
import type { BlockBlobClient, BlockBlobUploadOptions, ContainerClient } from "@azure/storage-blob";
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
import type { AzureSettings } from "./destination-settings.ts";
import { ARCHIVED, type ErrorMeaning, remoteError } from "./network-errors.ts";
import {
  alreadyThere,
  assertLength,
  bytesOfPart,
  folderOfPrefix,
  foldersBelow,
  hashPart,
  PartSource,
  placeKey,
  sendBody,
} from "./object-store.ts";

/** A blob has at most 50,000 blocks: 781 GiB. */
const BLOCK_BYTES = 16 * 1024 ** 2;

interface Options {
  readonly signal: AbortSignal;
}

/**
 * Opens a container by a connection string, by account and shared access signature, or by account as the machine's managed
 * identity. Fails with `denied`, or with `failed` when there is no such container.
 */
export async function openAzureDestination(settings: AzureSettings, { signal }: Options): Promise<Destination> {
  const folder = folderOfPrefix(settings.prefix);
  const name = settings.name ?? `azure://${settings.container}${folder === "" ? "" : `/${folder.slice(0, -1)}`}`;
  try {
    const container = await containerOf(settings, name);
    // A signature for the container alone may list it, but not look at the container itself.
    await container.listBlobsFlat({ prefix: folder, abortSignal: signal }).byPage({ maxPageSize: 1 }).next();
    return new AzureDestination(container, { name, folder, tier: settings.tier });
  } catch (error) {
    signal.throwIfAborted();
    throw remoteError(error, `open ${name}`, azureMeaning);
  }
}

async function containerOf(settings: AzureSettings, name: string): Promise<ContainerClient> {
  const { BlobServiceClient } = await import("@azure/storage-blob");
  // Attempts are counted in one place, above.
  const options = { retryOptions: { maxTries: 1 } };
  const { account, connection, sas, clientId } = settings;
  try {
    if (connection !== undefined) {
      return BlobServiceClient.fromConnectionString(connection, options).getContainerClient(settings.container);
    }
  } catch {
    // The library's message may repeat the connection string, which holds the key.
    throw destinationError(`cannot open ${name}: the connection string is not valid`, "denied", {
      hint: "Copy the connection string from the storage account's access keys.",
    });
  }
  if (account === undefined) {
    throw destinationError(`cannot open ${name}: there is nothing to sign in with`, "denied", {
      hint: "Give connection (a connection string), account and sas (a shared access signature), or account alone for the machine's managed identity.",
    });
  }
  const url = (settings.endpoint ?? `https://${account}.blob.core.windows.net`).replace(/\/+$/, "");
  if (sas !== undefined) {
    return new BlobServiceClient(`${url}?${sas.replace(/^\?/, "")}`, undefined, options).getContainerClient(
      settings.container,
    );
  }
  if (!url.startsWith("https://")) {
    throw destinationError(`cannot open ${name}: a managed identity shows its token over https alone`, "denied", {
      hint: "Let endpoint begin with https://.",
    });
  }
  const { openAzureIdentity } = await import("./azure-identity.ts");
  const identity = openAzureIdentity({ name, clientId, env: process.env });
  return new BlobServiceClient(url, identity, options).getContainerClient(settings.container);
}

class AzureDestination implements Destination {
  readonly name: string;
  readonly #container: ContainerClient;
  readonly #folder: string;
  readonly #tier: string | undefined;

  constructor(
    container: ContainerClient,
    { name, folder, tier }: { readonly name: string; readonly folder: string; readonly tier: string | undefined },
  ) {
    this.name = name;
    this.#container = container;
    this.#folder = folder;
    this.#tier = tier;
  }

  async put(key: string, open: OpenBytes, options: PutOptions): Promise<void> {
    const { place, object } = placeKey(this.name, this.#folder, key);
    const { signal, size, exclusive = false } = options;
    signal.throwIfAborted();
    const settings: Settings = {
      ...(exclusive ? { conditions: { ifNoneMatch: "*" } } : {}),
      ...(this.#tier === undefined || !options.archival ? {} : { tier: this.#tier }),
    };
    const blob = this.#container.getBlockBlobClient(place);
    try {
      if (size === undefined) await putInBlocks(blob, settings, open, { ...options, object });
      else await putWhole(blob, settings, open, { object, size, signal });
    } catch (error) {
      signal.throwIfAborted();
      if (exclusive && statusOf(error) === 409 && codeOf(error) === "BlobAlreadyExists")
        throw alreadyThere(object, error);
      if (exclusive && statusOf(error) === 412) throw alreadyThere(object, error);
      throw remoteError(error, `write ${object}`, azureMeaning);
    }
  }

  async *get(key: string, { range, signal }: GetOptions): AsyncIterable<Uint8Array> {
    const { place, object } = placeKey(this.name, this.#folder, key);
    signal.throwIfAborted();
    try {
      const blob = this.#container.getBlobClient(place);
      if (range && range.start === range.end) {
        // HTTP has no empty range.
        await blob.getProperties({ abortSignal: signal });
        return;
      }
      const wanted = range ? range.end - range.start : undefined;
      // The library would resume a cut answer by itself; then a cut is still an error, only a later one.
      const answer = await blob.download(range?.start ?? 0, wanted, { abortSignal: signal, maxRetryRequests: 0 });
      const body = answer.readableStreamBody as Readable;
      try {
        const size = assertLength(answer.contentLength, wanted, object);
        yield* exactBytes(body as AsyncIterable<Uint8Array>, size, { object, verb: "read", signal });
      } finally {
        body.on("error", () => undefined);
        body.destroy();
      }
    } catch (error) {
      signal.throwIfAborted();
      throw remoteError(error, `read ${object}`, azureMeaning);
    }
  }

  async stat(key: string, { signal }: Options): Promise<ObjectInfo | undefined> {
    const { place, object } = placeKey(this.name, this.#folder, key);
    signal.throwIfAborted();
    try {
      const found = await this.#container.getBlobClient(place).getProperties({ abortSignal: signal });
      const modifiedAt = found.lastModified ?? new Date(0);
      return { key, size: found.contentLength ?? 0, modifiedAt, ...azureThawStateOf(found) };
    } catch (error) {
      signal.throwIfAborted();
      if (statusOf(error) === 404) return undefined;
      throw remoteError(error, `look at ${object}`, azureMeaning);
    }
  }

  async *list(prefix: string, { signal }: Options): AsyncIterable<ObjectInfo> {
    signal.throwIfAborted();
    try {
      const blobs = this.#container.listBlobsFlat({ prefix: `${this.#folder}${prefix}`, abortSignal: signal });
      for await (const { name, properties } of blobs) {
        yield {
          key: name.slice(this.#folder.length),
          size: properties.contentLength ?? 0,
          modifiedAt: properties.lastModified,
          storageClass: properties.accessTier,
        };
      }
    } catch (error) {
      signal.throwIfAborted();
      throw remoteError(error, `list ${this.name}/${prefix}`, azureMeaning);
    }
  }

  async listFolders(below: string, { signal }: Options): Promise<readonly string[]> {
    const start = `${placeKey(this.name, this.#folder, below).place}/`;
    signal.throwIfAborted();
    try {
      const found = this.#container.listBlobsByHierarchy("/", { prefix: start, abortSignal: signal });
      return await foldersBelow(start, found, ({ name }) => [name]);
    } catch (error) {
      signal.throwIfAborted();
      throw remoteError(error, `list ${this.name}/${below}/`, azureMeaning);
    }
  }

  async remove(key: string, { signal }: Options): Promise<void> {
    const { place, object } = placeKey(this.name, this.#folder, key);
    signal.throwIfAborted();
    try {
      await this.#container.getBlobClient(place).delete({ abortSignal: signal });
    } catch (error) {
      signal.throwIfAborted();
      if (statusOf(error) === 404) return;
      throw remoteError(error, `remove ${object}`, azureMeaning);
    }
  }

  /** Moves the blob to the hot tier; it stays there, however many `days` are asked for. */
  async thaw(key: string, { tier = "standard", signal }: ThawOptions): Promise<ThawAnswer> {
    const { place, object } = placeKey(this.name, this.#folder, key);
    const blob = this.#container.getBlobClient(place);
    const rehydratePriority = tier === "expedited" ? "High" : "Standard";
    // https://learn.microsoft.com/azure/storage/blobs/archive-rehydrate-overview
    const answer = { state: "thawing", withinHours: tier === "expedited" ? 1 : 15 } as const;
    signal.throwIfAborted();
    try {
      const { thaw } = azureThawStateOf(await blob.getProperties({ abortSignal: signal }));
      if (thaw === undefined) return { state: "readable" };
      if (thaw === "archived") await blob.setAccessTier("Hot", { rehydratePriority, abortSignal: signal });
      return answer;
    } catch (error) {
      signal.throwIfAborted();
      // Somebody else asked in the meantime.
      if (codeOf(error) === "BlobBeingRehydrated") return answer;
      throw remoteError(error, `thaw ${object}`, azureMeaning);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

type Settings = Pick<BlockBlobUploadOptions, "conditions" | "tier">;

async function putWhole(
  blob: BlockBlobClient,
  settings: Settings,
  open: OpenBytes,
  { object, size, signal }: { readonly object: string; readonly size: number } & Options,
): Promise<void> {
  await sendBody(open(), { object, size, signal }, (body, cut) =>
    blob.upload(Buffer.isBuffer(body) ? body : () => body, size, { ...settings, abortSignal: cut }),
  );
}

/** Sends what nobody knows the size of. Blocks of an upload that did not end are invisible, and go by themselves after a week. */
async function putInBlocks(
  blob: BlockBlobClient,
  settings: Settings,
  open: OpenBytes,
  { object, onMoved, signal }: Pick<PutOptions, "onMoved" | "signal"> & { readonly object: string },
): Promise<void> {
  const source = new PartSource(exactBytes(open(), undefined, { object, verb: "write", signal }));
  let part = await source.fill(BLOCK_BYTES);
  if (await source.isAtEnd()) {
    const { size } = part;
    return putWhole(blob, settings, () => bytesOfPart(part, onMoved), { object, size, signal });
  }
  const ids: string[] = [];
  for (; part.size > 0; part = await source.fill(BLOCK_BYTES)) {
    const { size } = part;
    const id = Buffer.from(String(ids.length).padStart(8, "0")).toString("base64");
    const transactionalContentMD5 = hashPart(part, "md5");
    await sendBody(bytesOfPart(part, onMoved), { object, size, signal }, (body, cut) =>
      blob.stageBlock(id, Buffer.isBuffer(body) ? body : () => body, size, {
        transactionalContentMD5,
        abortSignal: cut,
      }),
    );
    ids.push(id);
  }
  await blob.commitBlockList(ids, { ...settings, abortSignal: signal });
}

/** Reads tier and thaw state of a blob; one that is being thawed says so beside its tier, which is the old one still. */
export function azureThawStateOf({
  accessTier,
  archiveStatus,
}: {
  readonly accessTier?: string | undefined;
  readonly archiveStatus?: string | undefined;
}): Pick<ObjectInfo, "storageClass" | "thaw"> {
  if (archiveStatus?.startsWith("rehydrate-pending")) return { storageClass: accessTier, thaw: "thawing" };
  return accessTier === "Archive" ? { storageClass: accessTier, thaw: "archived" } : { storageClass: accessTier };
}

function statusOf(error: unknown): number | undefined {
  return (error as { statusCode?: number } | undefined)?.statusCode;
}

function azureMeaning(error: unknown): ErrorMeaning | undefined {
  const status = statusOf(error);
  const code = codeOf(error);
  if (code === "BlobArchived" || code === "BlobBeingRehydrated") return ARCHIVED;
  if (code === "REQUEST_SEND_ERROR") return { code: "unreachable", words: "the server does not answer" };
  if (code === "ContainerNotFound") {
    return { code: "failed", words: "there is no such container", hint: "Create the container, or correct its name." };
  }
  if (status === 404) return { code: "not-found", words: "it does not exist" };
  if (status === 401 || status === 403) {
    return { code: "denied", words: "access denied", hint: "Check the connection string or signature and its rights." };
  }
  if (status === 408 || status === 409 || status === 429 || (status ?? 0) >= 500) {
    return { code: "busy", words: `the server is busy (${code ?? status})` };
  }
  return status === undefined ? undefined : { code: "failed", words: `the server says: ${code ?? status}` };
}
