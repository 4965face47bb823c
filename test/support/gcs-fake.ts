import { createHash, createVerify, generateKeyPairSync, type KeyObject, randomUUID } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

const UNIT_BYTES = 256 * 1024;
const ACCOUNT = "robot@fake.iam.gserviceaccount.com";
const SCOPES = /^https:\/\/www\.googleapis\.com\/auth\/(devstorage\.(read_write|full_control)|cloud-platform)$/;

interface Stored {
  readonly bytes: Buffer;
  readonly generation: number;
  readonly storageClass: string;
  readonly created: Date;
}

interface Session {
  readonly name: string;
  readonly onlyNew: boolean;
  readonly storageClass: string;
  /** As large as the object will be, written in place: this process shares its processors with what is measured. */
  bytes: Buffer;
  /** Whether that size was told. Else it grows. */
  isSized: boolean;
  received: number;
}

interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer;
}

/** What happens instead of the right thing, once, to the first request that fits. */
export interface GcsFault {
  readonly method: string;
  /** Start of the path, decoded. */
  readonly path: string;
  /** `flip` changes a byte on the way; `flip-unseen` too, and the server does not check; `stall` never answers. */
  readonly act: { readonly status: number; readonly reason: string } | "flip" | "flip-unseen" | "stall" | "short";
}

/**
 * The JSON API of Google Cloud Storage as far as rowkeep uses it, in this process, because no server that can be
 * installed keeps its promises (conditions, chunked uploads). It checks all it is told: tokens, ranges, hashes. What it
 * does not know is answered with 501 and makes `close` fail, so a test cannot pass by luck.
 */
export class GcsFake {
  readonly objects = new Map<string, Stored>();
  readonly sessions = new Map<string, Session>();
  /** `METHOD /decoded/path` of every request. */
  readonly requests: string[] = [];
  readonly faults: GcsFault[] = [];
  readonly complaints: string[] = [];
  /** Most objects of one page. */
  pageSize = 1000;
  readonly folder: string;
  readonly #keys = generateKeyPairSync("rsa", { modulusLength: 2048 });
  readonly #server = createServer((request, response) => {
    this.#serve(request, response).catch((error) => {
      this.complaints.push(`${request.method} ${request.url}: ${error}`);
      response.destroy();
    });
  });
  #generation = Date.now() * 1000;
  #sorted: { readonly state: string; readonly names: readonly string[] } = { state: "", names: [] };

  constructor(folder: string) {
    this.folder = folder;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === "object" && address ? address.port : 0;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get keyFile(): string {
    return join(this.folder, "key.json");
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    await this.writeKeyFile(this.keyFile, this.#keys.privateKey);
  }

  /** Writes a service account's key file; with another key it is one that the server does not know. */
  async writeKeyFile(path: string, key: KeyObject): Promise<void> {
    const content = {
      type: "service_account",
      project_id: "fake",
      private_key_id: "1",
      private_key: key.export({ type: "pkcs8", format: "pem" }),
      client_email: ACCOUNT,
      client_id: "1",
      // Nobody listens there: a client that signs its tokens itself never asks.
      token_uri: "http://127.0.0.1:1/token",
    };
    await writeFile(path, JSON.stringify(content));
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
    await rm(this.folder, { recursive: true, force: true });
    if (this.complaints.length > 0)
      throw new Error(`requests that no server would take:\n${this.complaints.join("\n")}`);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "", this.endpoint);
    const method = request.method ?? "";
    const path = decodeURIComponent(url.pathname);
    this.requests.push(`${method} ${path}`);
    const fault = this.#faultOf(method, path);
    if (fault === "stall") return;
    const answer =
      typeof fault === "object" ? failure(fault.status, fault.reason) : await this.#answer(request, url, fault);
    if (answer === undefined) return;
    const { status, headers, body = Buffer.of() } = answer;
    response.writeHead(status, { ...headers, ...(status === 204 ? {} : { "Content-Length": body.length }) });
    if (fault !== "short") response.end(body);
    else response.write(body.subarray(0, body.length / 2), () => response.destroy());
  }

  async #answer(
    request: IncomingMessage,
    url: URL,
    fault: "flip" | "flip-unseen" | "short" | undefined,
  ): Promise<Answer | undefined> {
    if (!isSigned(request, this.#keys.publicKey)) return failure(401, "authError");
    const [, bucket, name] = /^\/(?:upload\/)?storage\/v1\/b\/([^/]+)\/o(?:\/([^/]+))?$/.exec(url.pathname) ?? [];
    if (bucket === undefined) return this.#unknown(request, "path");
    if (bucket !== "backups") return failure(404, "notFound", "The specified bucket does not exist.");
    if (url.pathname.startsWith("/upload/")) return this.#upload(request, url, fault);
    if (name !== undefined) return this.#object(request, url, decodeURIComponent(name));
    return request.method === "GET" ? this.#list(url) : this.#unknown(request, "method");
  }

  #faultOf(method: string, path: string): GcsFault["act"] | undefined {
    const index = this.faults.findIndex((fault) => fault.method === method && path.startsWith(fault.path));
    return index < 0 ? undefined : this.faults.splice(index, 1)[0]?.act;
  }

  #unknown(request: IncomingMessage, what: string): Answer {
    this.complaints.push(`${what}: ${request.method} ${request.url} ${JSON.stringify(request.headers)}`);
    return failure(501, "notImplemented");
  }

  #list(url: URL): Answer {
    const {
      prefix = "",
      delimiter,
      maxResults = "1000",
      pageToken = "",
      fields,
      ...more
    } = Object.fromEntries(url.searchParams);
    if (Object.keys(more).length > 0 || !fields || (delimiter !== undefined && delimiter !== "/")) {
      this.complaints.push(`list: ${url.search}`);
      return failure(400, "invalid");
    }
    const size = Math.min(this.pageSize, Number(maxResults));
    const after = Buffer.from(pageToken, "base64url").toString();
    const names = delimiter ? this.#placesBelow(prefix, after) : this.#namesFrom(prefix, after);
    const page = names.slice(0, size);
    const [folders, items] = [page.filter((name) => name.endsWith("/")), page.filter((name) => !name.endsWith("/"))];
    return json(200, {
      ...(folders.length === 0 ? {} : { prefixes: folders }),
      ...(items.length === 0 ? {} : { items: items.map((name) => this.#described(name)) }),
      ...(names.length <= size ? {} : { nextPageToken: Buffer.from(page.at(-1) ?? "").toString("base64url") }),
    });
  }

  /** Objects right below, and of those deeper down the folder that they lie in, with its slash. */
  #placesBelow(prefix: string, after: string): readonly string[] {
    const places = this.#namesFrom(prefix, "").map((name) => {
      const end = name.indexOf("/", prefix.length);
      return end < 0 ? name : name.slice(0, end + 1);
    });
    return [...new Set(places)].filter((place) => place > after).sort();
  }

  /** Sorted anew only when objects came or went: with a hundred thousand of them the fake would take all the time. */
  #namesFrom(prefix: string, after: string): readonly string[] {
    const state = `${this.objects.size} ${this.#generation} ${prefix}`;
    if (after === "" || this.#sorted.state !== state) {
      const names = [...this.objects.keys()].filter((name) => name.startsWith(prefix)).sort();
      this.#sorted = { state, names };
    }
    const { names } = this.#sorted;
    const start = names.findIndex((name) => name > after);
    return start < 0 ? [] : names.slice(start);
  }

  #described(name: string) {
    const stored = this.objects.get(name);
    if (stored === undefined) throw new Error(`no ${name}`);
    return {
      kind: "storage#object",
      name,
      bucket: "backups",
      size: String(stored.bytes.length),
      generation: String(stored.generation),
      storageClass: stored.storageClass,
      timeCreated: stored.created.toISOString(),
      md5Hash: md5Of(stored.bytes),
    };
  }

  #object(request: IncomingMessage, url: URL, name: string): Answer {
    const stored = this.objects.get(name);
    if (stored === undefined) return failure(404, "notFound", `No such object: backups/${name}`);
    if (request.method === "DELETE") {
      const match = url.searchParams.get("ifGenerationMatch");
      if (match !== null && match !== String(stored.generation)) return failure(412, "conditionNotMet");
      this.objects.delete(name);
      return { status: 204 };
    }
    if (request.method !== "GET") return this.#unknown(request, "method");
    if (url.searchParams.get("alt") !== "media") return json(200, this.#described(name));
    if (request.headers["accept-encoding"] !== "identity") return this.#unknown(request, "encoding");
    const { bytes } = stored;
    const range = rangeOf(request.headers.range, bytes.length);
    if (range === undefined) return failure(416, "requestedRangeNotSatisfiable");
    return {
      status: request.headers.range ? 206 : 200,
      headers: {
        "Content-Type": "application/octet-stream",
        ...(request.headers.range ? { "Content-Range": `bytes ${range.start}-${range.end - 1}/${bytes.length}` } : {}),
      },
      body: bytes.subarray(range.start, range.end),
    };
  }

  async #upload(
    request: IncomingMessage,
    url: URL,
    fault: "flip" | "flip-unseen" | "short" | undefined,
  ): Promise<Answer | undefined> {
    const { uploadType, upload_id: id = "", name, ifGenerationMatch, ...more } = Object.fromEntries(url.searchParams);
    if (uploadType !== "resumable" || Object.keys(more).length > 0) return this.#unknown(request, "upload");
    if (request.method === "POST") return this.#begin(request, { name, ifGenerationMatch });
    const session = this.sessions.get(id);
    if (session === undefined) return failure(404, "notFound");
    if (request.method === "DELETE") {
      this.sessions.delete(id);
      return { status: 499 };
    }
    if (request.method !== "PUT") return this.#unknown(request, "upload");
    const place = placeOf(request, session);
    if (place === undefined) return this.#unknown(request, "range");
    if (request.headers["content-range"] === "bytes */0") session.isSized = true;
    // Cut in the middle: what arrived is forgotten.
    if (!(await readBody(request, place))) return undefined;
    if (fault === "flip" || fault === "flip-unseen") place[0] = (place[0] ?? 0) ^ 1;
    session.received += place.length;
    if (session.received < session.bytes.length || !session.isSized) {
      return { status: 308, headers: { Range: `bytes=0-${session.received - 1}` } };
    }
    const hash = request.headers["x-goog-hash"];
    if (typeof hash !== "string") return this.#unknown(request, "no hash");
    this.sessions.delete(id);
    if (hash !== `md5=${md5Of(session.bytes)}` && fault !== "flip-unseen") {
      return failure(400, "invalid", "Provided MD5 hash doesn't match calculated MD5 hash");
    }
    if (session.onlyNew && this.objects.has(session.name)) return failure(412, "conditionNotMet");
    this.objects.set(session.name, {
      bytes: session.bytes,
      generation: this.#generation++,
      storageClass: session.storageClass,
      created: new Date(),
    });
    return json(200, this.#described(session.name));
  }

  async #begin(
    request: IncomingMessage,
    { name, ifGenerationMatch }: { readonly name: string | undefined; readonly ifGenerationMatch: string | undefined },
  ): Promise<Answer> {
    const body = Buffer.alloc(Number(request.headers["content-length"] ?? 0));
    const { storageClass = "STANDARD", ...more } = (await readBody(request, body)) ? JSON.parse(String(body)) : {};
    const told = request.headers["x-upload-content-length"];
    const size = Number(told ?? 0);
    const known = name !== undefined && (ifGenerationMatch ?? "0") === "0" && Object.keys(more).length === 0;
    if (!known || !Number.isInteger(size)) return this.#unknown(request, "begin");
    const onlyNew = ifGenerationMatch === "0";
    if (onlyNew && this.objects.has(name)) return failure(412, "conditionNotMet");
    const id = randomUUID();
    const isSized = told !== undefined;
    this.sessions.set(id, { name, onlyNew, storageClass, bytes: Buffer.alloc(size), isSized, received: 0 });
    const query = new URLSearchParams({ uploadType: "resumable", name, upload_id: id });
    const place = `http://${request.headers.host}${request.url?.split("?")[0]}?${query.toString()}`;
    return { status: 200, headers: { Location: place } };
  }
}

/** Starts the fake with one bucket, `backups`. Disposal fails when it was asked for anything that it does not know. */
export async function startGcsFake(): Promise<GcsFake> {
  const fake = new GcsFake(await mkdtemp(join(tmpdir(), "rowkeep-gcs-")));
  await fake.start();
  return fake;
}

/** Where the bytes of one request belong, by the rules of resumable uploads; undefined when it breaks them. */
function placeOf({ headers }: IncomingMessage, session: Session): Buffer | undefined {
  const length = Number(headers["content-length"]);
  const contentRange = headers["content-range"] ?? "";
  if (contentRange === "bytes */0") return session.bytes.length === 0 && length === 0 ? session.bytes : undefined;
  // `*`, while nobody knows the size, is not a number.
  const [start, last, total] = (/^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(contentRange) ?? []).slice(1).map(Number);
  if (start === undefined || last === undefined || total === undefined) return undefined;
  if (start !== session.received || last - start + 1 !== length || last >= total) return undefined;
  if (!session.isSized) {
    session.isSized = !Number.isNaN(total);
    session.bytes = Buffer.concat([session.bytes], session.isSized ? total : last + 1);
  }
  const isWhole = last + 1 === total || length % UNIT_BYTES === 0;
  const isKnown = session.isSized ? total === session.bytes.length : true;
  return isWhole && isKnown ? session.bytes.subarray(start, last + 1) : undefined;
}

/** Fills `place` with a request's body; false when the line was cut before its end. */
async function readBody(request: IncomingMessage, place: Buffer): Promise<boolean> {
  let length = 0;
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) length += chunk.copy(place, length);
  } catch {
    return false;
  }
  return length === place.length;
}

/** Checks a token that the account signed itself: RS256, of this account, for storage, not expired. */
function isSigned(request: IncomingMessage, key: KeyObject): boolean {
  const [head, body, signature] = (request.headers.authorization ?? "").replace(/^Bearer /, "").split(".");
  if (head === undefined || body === undefined || signature === undefined) return false;
  const verify = createVerify("RSA-SHA256").update(`${head}.${body}`);
  if (!verify.verify(key, signature, "base64url")) return false;
  const claims = JSON.parse(Buffer.from(body, "base64url").toString());
  const scoped = String(claims.scope)
    .split(" ")
    .some((scope) => SCOPES.test(scope));
  return scoped && claims.iss === ACCOUNT && claims.exp * 1000 > Date.now();
}

function rangeOf(header: string | undefined, size: number): { start: number; end: number } | undefined {
  if (header === undefined) return { start: 0, end: size };
  const [start, last] = (/^bytes=(\d+)-(\d+)$/.exec(header) ?? []).slice(1).map(Number);
  if (start === undefined || last === undefined || start >= size) return undefined;
  return { start, end: Math.min(last + 1, size) };
}

const hashes = new WeakMap<Buffer, string>();

/** Once for each object, like a real server, however often it is listed. */
function md5Of(bytes: Buffer): string {
  const known = hashes.get(bytes) ?? createHash("md5").update(bytes).digest("base64");
  hashes.set(bytes, known);
  return known;
}

function json(status: number, content: unknown): Answer {
  const headers = { "Content-Type": "application/json; charset=UTF-8" };
  return { status, headers, body: Buffer.from(JSON.stringify(content)) };
}

function failure(status: number, reason: string, message = reason): Answer {
  return json(status, { error: { code: status, message, errors: [{ message, domain: "global", reason }] } });
}
