import { readFile } from "node:fs/promises";
import type { GoogleAuth } from "google-auth-library";
import { codeOf } from "../base/errors.ts";
import { orAborted } from "../base/or-aborted.ts";
import { destinationError } from "./destination.ts";
import type { GcsSettings } from "./destination-settings.ts";
import { type ErrorMeaning, networkMeaning } from "./network-errors.ts";

const GOOGLE = "https://storage.googleapis.com";
/** To read and change objects, and nothing else. */
const SCOPE = "https://www.googleapis.com/auth/devstorage.read_write";
const ANSWER_MS = 60_000;

export type GcsRequest = Omit<NonNullable<Parameters<GoogleAuth["request"]>[0]>, "signal"> & {
  readonly signal: AbortSignal;
};

/** What the JSON API tells about an object, as far as it is asked for. Numbers are decimal strings. */
export interface GcsObject {
  readonly name?: string;
  readonly size?: string;
  readonly timeCreated?: string;
  readonly storageClass?: string;
  readonly md5Hash?: string;
  readonly generation?: string;
}

/** One answer of a listing. */
export interface GcsPage {
  readonly items?: readonly GcsObject[];
  /** Folders right below, with their slash, where a delimiter was given. */
  readonly prefixes?: readonly string[];
  readonly nextPageToken?: string;
}

/** The JSON API of Google Cloud Storage with an account that is signed in. */
export class GcsApi {
  readonly #auth: GoogleAuth;
  readonly #root: string;
  readonly #bucket: string;

  constructor(auth: GoogleAuth, root: string, bucket: string) {
    this.#auth = auth;
    this.#root = root;
    this.#bucket = encodeURIComponent(bucket);
  }

  /** URL of the bucket's objects, or of one of them. */
  objectUrl(place?: string): string {
    const objects = `${this.#root}/storage/v1/b/${this.#bucket}/o`;
    return place === undefined ? objects : `${objects}/${encodeURIComponent(place)}`;
  }

  get uploadUrl(): string {
    return `${this.#root}/upload/storage/v1/b/${this.#bucket}/o`;
  }

  /** Sends one request, once. */
  send<T>(request: GcsRequest) {
    return this.#auth.request<T>({ retry: false, ...request });
  }
}

/** Signs in with the key file, or with the application default credentials. Fails with `denied` or `unreachable`. */
export async function signInToGcs(
  settings: GcsSettings,
  { name, signal }: { readonly name: string; readonly signal: AbortSignal },
): Promise<GcsApi> {
  const { GoogleAuth: Library } = await import("google-auth-library");
  const { keyFile, bucket, endpoint } = settings;
  const key = keyFile === undefined ? undefined : await readKeyFile(keyFile, name);
  const auth = new Library({ scopes: SCOPE, clientOptions: { transporterOptions: { timeout: ANSWER_MS } } });
  // The options for this print a warning at each use, and take a file that is not JSON for a key of the old kind.
  if (key) auth.jsonContent = key;
  // A service account then signs its tokens itself: no other server is asked for them.
  auth.useJWTAccessWithScope = true;
  try {
    await orAborted(auth.getRequestHeaders(), signal);
  } catch (error) {
    signal.throwIfAborted();
    throw notSignedIn(error, name, keyFile);
  }
  return new GcsApi(auth, rootOf(endpoint), bucket);
}

function rootOf(endpoint: string | undefined): string {
  if (endpoint === undefined) return GOOGLE;
  const url = /^https?:\/\//.test(endpoint) ? endpoint : `https://${endpoint}`;
  return url.replace(/\/+$/, "");
}

async function readKeyFile(path: string, name: string): Promise<NonNullable<GoogleAuth["jsonContent"]>> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw uselessKeyFile(name, "read", error);
  }
  try {
    const content: unknown = JSON.parse(text);
    if (typeof content === "object" && content !== null) return content;
  } catch {
    // The parser's message repeats parts of the file, which holds the key.
  }
  throw uselessKeyFile(name, "used");
}

function uselessKeyFile(name: string, verb: "read" | "used", cause?: unknown): Error {
  return destinationError(`cannot open ${name}: the key file cannot be ${verb}`, "denied", {
    hint: "Give the path of a service account's key file in JSON.",
    cause,
  });
}

function notSignedIn(error: unknown, name: string, keyFile: string | undefined): Error {
  const network = networkMeaning(error);
  if (network) {
    const { code, words, hint } = network;
    return destinationError(`cannot open ${name}: ${words}`, code, { hint, cause: error });
  }
  // The library's message may repeat parts of the file.
  if (keyFile !== undefined) return uselessKeyFile(name, "used");
  return destinationError(`cannot open ${name}: the application default credentials do not work`, "denied", {
    hint: "Give a keyFile in the job file, or sign in with: gcloud auth application-default login",
    cause: error,
  });
}

export function statusOf(error: unknown): number | undefined {
  const status = (error as { status?: unknown } | undefined)?.status;
  return typeof status === "number" ? status : undefined;
}

/** What the server gave as `reason` and `message`; https://cloud.google.com/storage/docs/json_api/v1/status-codes */
function saidOf(error: unknown): { readonly reason: string; readonly message: string } {
  const { response, message = "" } = error as { response?: { data?: unknown }; message?: string };
  // The answer to a request for a stream is in the message alone.
  let data = response?.data ?? message;
  try {
    if (typeof data === "string") data = JSON.parse(data);
  } catch {
    // Not from the interface itself: a proxy's page, say.
  }
  const said = (data as { error?: { message?: string; errors?: { reason?: string }[] } } | undefined)?.error;
  return { reason: said?.errors?.[0]?.reason ?? "", message: said?.message ?? message };
}

const GONE = new Set(["ERR_STREAM_PREMATURE_CLOSE", "TimeoutError", "ECONNRESET"]);

export function gcsMeaning(error: unknown): ErrorMeaning | undefined {
  if (GONE.has(codeOf(error) ?? "")) {
    return { code: "unreachable", words: "the connection was cut", hint: "Check the network, or try again later." };
  }
  const status = statusOf(error);
  if (status === undefined) return undefined;
  const { reason, message } = saidOf(error);
  if (status === 404 && /bucket does not exist/i.test(message)) {
    return { code: "failed", words: "there is no such bucket", hint: "Create the bucket, or correct its name." };
  }
  if (status === 404) return { code: "not-found", words: "it does not exist" };
  if (status === 401) {
    const hint = "Check that the account's key is still valid and that this machine's clock is right.";
    return { code: "denied", words: "the credentials are not accepted", hint };
  }
  if (/rateLimitExceeded/i.test(reason)) return { code: "busy", words: `the server is busy (${reason})` };
  if (/quotaExceeded/i.test(reason)) {
    return { code: "full", words: "its quota is used up", hint: "Free space there, or raise the quota." };
  }
  if (status === 403) {
    const hint = "Give this account the role Storage Object User (roles/storage.objectUser) on the bucket.";
    return { code: "denied", words: `access denied${reason && ` (${reason})`}`, hint };
  }
  if (status === 501) return { code: "unsupported", words: "the server cannot do it" };
  if ([408, 409, 410, 412, 429].includes(status) || status >= 500) {
    return { code: "busy", words: `the server is busy (${reason || status})` };
  }
  return { code: "failed", words: `the server says: ${status} ${message.slice(0, 300)}` };
}
