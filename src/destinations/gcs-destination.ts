import type { Readable } from "node:stream";
import { exactBytes } from "./checked-bytes.ts";
import {
  type Destination,
  destinationError,
  type GetOptions,
  type ObjectInfo,
  type OpenBytes,
  type PutOptions,
} from "./destination.ts";
import type { GcsSettings } from "./destination-settings.ts";
import { type GcsApi, type GcsObject, type GcsPage, gcsMeaning, signInToGcs, statusOf } from "./gcs-api.ts";
import { uploadToGcs } from "./gcs-upload.ts";
import { remoteError } from "./network-errors.ts";
import { alreadyThere, assertLength, folderOfPrefix, foldersBelow, placeKey } from "./object-store.ts";

const FIELDS = "name,size,timeCreated,storageClass";

interface Options {
  readonly signal: AbortSignal;
}

/**
 * Opens a bucket of Google Cloud Storage with a key file or the application default credentials. Fails with `denied`, or
 * with `failed` when there is no such bucket.
 */
export async function openGcsDestination(settings: GcsSettings, { signal }: Options): Promise<Destination> {
  const folder = folderOfPrefix(settings.prefix);
  const name = settings.name ?? `gs://${settings.bucket}${folder === "" ? "" : `/${folder.slice(0, -1)}`}`;
  try {
    const api = await signInToGcs(settings, { name, signal });
    // Listing is a right that is needed anyway; looking at the bucket itself is one that the usual roles lack.
    const params = { prefix: folder, maxResults: 1, fields: "items(name)" };
    await api.send({ url: api.objectUrl(), params, signal });
    return new GcsDestination(api, { name, folder, storageClass: settings.storageClass });
  } catch (error) {
    signal.throwIfAborted();
    if (statusOf(error) === 404) {
      const hint = "Create the bucket, or correct its name.";
      throw destinationError(`cannot open ${name}: there is no such bucket`, "failed", { hint, cause: error });
    }
    throw remoteError(error, `open ${name}`, gcsMeaning);
  }
}

interface GcsPlace {
  readonly name: string;
  readonly folder: string;
  readonly storageClass: string | undefined;
}

class GcsDestination implements Destination {
  readonly name: string;
  readonly #api: GcsApi;
  readonly #folder: string;
  readonly #storageClass: string | undefined;

  constructor(api: GcsApi, { name, folder, storageClass }: GcsPlace) {
    this.name = name;
    this.#api = api;
    this.#folder = folder;
    this.#storageClass = storageClass;
  }

  async put(key: string, open: OpenBytes, options: PutOptions): Promise<void> {
    const { place, object } = placeKey(this.name, this.#folder, key);
    const { signal, size, onMoved, exclusive = false, archival = false } = options;
    signal.throwIfAborted();
    const storageClass = archival ? this.#storageClass : undefined;
    try {
      await uploadToGcs(this.#api, open, { place, object, size, exclusive, storageClass, onMoved, signal });
    } catch (error) {
      signal.throwIfAborted();
      if (exclusive && statusOf(error) === 412) throw alreadyThere(object, error);
      throw remoteError(error, `write ${object}`, gcsMeaning);
    }
  }

  async *get(key: string, { range, signal }: GetOptions): AsyncIterable<Uint8Array> {
    const { place, object } = placeKey(this.name, this.#folder, key);
    signal.throwIfAborted();
    try {
      if (range && range.start === range.end) {
        // HTTP has no empty range.
        await this.#look(place, signal);
        return;
      }
      const { data: body, headers } = await this.#api.send<Readable>({
        url: this.#api.objectUrl(place),
        params: { alt: "media" },
        // The bytes as they are stored, whoever stored them.
        headers: {
          "Accept-Encoding": "identity",
          ...(range ? { Range: `bytes=${range.start}-${range.end - 1}` } : {}),
        },
        responseType: "stream",
        timeout: 0,
        signal,
      });
      try {
        const promised = headers.get("content-length");
        const wanted = range ? range.end - range.start : undefined;
        const size = assertLength(promised === null ? undefined : Number(promised), wanted, object);
        yield* exactBytes(body as AsyncIterable<Uint8Array>, size, { object, verb: "read", signal });
      } finally {
        body.on("error", () => undefined);
        body.destroy();
      }
    } catch (error) {
      signal.throwIfAborted();
      throw remoteError(error, `read ${object}`, gcsMeaning);
    }
  }

  async stat(key: string, { signal }: Options): Promise<ObjectInfo | undefined> {
    const { place, object } = placeKey(this.name, this.#folder, key);
    signal.throwIfAborted();
    try {
      return infoOf(key, await this.#look(place, signal));
    } catch (error) {
      signal.throwIfAborted();
      if (statusOf(error) === 404) return undefined;
      throw remoteError(error, `look at ${object}`, gcsMeaning);
    }
  }

  async *list(prefix: string, { signal }: Options): AsyncIterable<ObjectInfo> {
    signal.throwIfAborted();
    const params = { prefix: `${this.#folder}${prefix}`, fields: `items(${FIELDS}),nextPageToken` };
    try {
      for await (const { items = [] } of this.#pages(params, signal)) {
        for (const found of items) {
          if (found.name !== undefined) yield infoOf(found.name.slice(this.#folder.length), found);
          signal.throwIfAborted();
        }
      }
    } catch (error) {
      signal.throwIfAborted();
      throw remoteError(error, `list ${this.name}/${prefix}`, gcsMeaning);
    }
  }

  async listFolders(below: string, { signal }: Options): Promise<readonly string[]> {
    const start = `${placeKey(this.name, this.#folder, below).place}/`;
    const params = { prefix: start, delimiter: "/", fields: "prefixes,items(name),nextPageToken" };
    signal.throwIfAborted();
    try {
      return await foldersBelow(start, this.#pages(params, signal), ({ prefixes = [], items = [] }) => [
        ...prefixes,
        ...items.map(({ name }) => name),
      ]);
    } catch (error) {
      signal.throwIfAborted();
      throw remoteError(error, `list ${this.name}/${below}/`, gcsMeaning);
    }
  }

  async *#pages(params: Readonly<Record<string, string>>, signal: AbortSignal): AsyncIterable<GcsPage> {
    let pageToken: string | undefined;
    do {
      const { data: page } = await this.#api.send<GcsPage>({
        url: this.#api.objectUrl(),
        params: { ...params, ...(pageToken === undefined ? {} : { pageToken }) },
        signal,
      });
      yield page;
      if (page.nextPageToken !== undefined && page.nextPageToken === pageToken) {
        throw destinationError(`cannot list ${this.name}: the server gives the same page again`, "failed");
      }
      pageToken = page.nextPageToken;
    } while (pageToken !== undefined);
  }

  async remove(key: string, { signal }: Options): Promise<void> {
    const { place, object } = placeKey(this.name, this.#folder, key);
    signal.throwIfAborted();
    try {
      await this.#api.send({ method: "DELETE", url: this.#api.objectUrl(place), signal });
    } catch (error) {
      signal.throwIfAborted();
      if (statusOf(error) === 404) return;
      throw remoteError(error, `remove ${object}`, gcsMeaning);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #look(place: string, signal: AbortSignal): Promise<GcsObject> {
    const { data } = await this.#api.send<GcsObject>({
      url: this.#api.objectUrl(place),
      params: { fields: FIELDS },
      signal,
    });
    return data;
  }
}

function infoOf(key: string, { size, timeCreated, storageClass }: GcsObject): ObjectInfo {
  return { key, size: Number(size ?? 0), modifiedAt: new Date(timeCreated ?? 0), storageClass };
}
