import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";

const HOUR_MS = 3_600_000;
const HOURS: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  GLACIER: { Expedited: 1, Standard: 5, Bulk: 12 },
  DEEP_ARCHIVE: { Standard: 12, Bulk: 48 },
};

interface Stored {
  readonly bytes: Buffer;
  readonly storageClass: string;
  readonly modified: Date;
  thaw?: { readonly readyAt: number; readonly until: number; readonly tier: string } | undefined;
}

interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer;
}

export interface GlacierFakeOptions {
  /** Like servers other than Amazon's: every class can be read at once, and a thaw is not implemented. */
  readonly alwaysReadable?: boolean;
}

/**
 * S3 with Amazon's archive classes as far as rowkeep uses it, in this process, because no server that can be installed
 * has their states: a thaw takes hours of a clock of its own and ends again. Bucket `vault`, addressed in the path. What
 * it does not know is answered with 501 and makes `close` fail.
 */
export class GlacierFake {
  readonly objects = new Map<string, Stored>();
  /** `METHOD key` of every request. */
  readonly requests: string[] = [];
  readonly complaints: string[] = [];
  pageSize = 1000;
  /** Answers the next restore request with this error. */
  nextRestoreError: { readonly status: number; readonly code: string } | undefined;
  readonly #options: GlacierFakeOptions;
  #laterMs = 0;
  readonly #server = createServer((request, response) => {
    this.#serve(request, response).catch((error) => {
      this.complaints.push(`${request.method} ${request.url}: ${error}`);
      response.destroy();
    });
  });

  constructor(options: GlacierFakeOptions) {
    this.#options = options;
  }

  get endpoint(): string {
    const address = this.#server.address();
    return `http://127.0.0.1:${typeof address === "object" && address ? address.port : 0}`;
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
    if (this.complaints.length > 0)
      throw new Error(`requests that no server would take:\n${this.complaints.join("\n")}`);
  }

  passHours(hours: number): void {
    this.#laterMs += hours * HOUR_MS;
  }

  get #now(): number {
    return Date.now() + this.#laterMs;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "", this.endpoint);
    const [, bucket, key] = /^\/([^/]+)(?:\/(.*))?$/.exec(decodeURIComponent(url.pathname)) ?? [];
    this.requests.push(`${request.method} ${key ?? ""}`);
    const sent = await bodyOf(request);
    // Cut in the middle: nothing is stored.
    if (sent === undefined) return;
    const answer = bucket === "vault" ? this.#answer(request, url, { key, sent }) : failure(404, "NoSuchBucket");
    const { status, headers, body = Buffer.of() } = answer;
    response.writeHead(status, { "Content-Length": body.length, ...headers });
    response.end(request.method === "HEAD" ? undefined : body);
  }

  #answer(
    request: IncomingMessage,
    url: URL,
    { key, sent }: { readonly key: string | undefined; readonly sent: Buffer },
  ): Answer {
    const { method, headers } = request;
    if (!headers.authorization?.startsWith("AWS4-HMAC-SHA256 ")) return failure(403, "AccessDenied");
    const hash = headers["x-amz-content-sha256"];
    if (hash !== "UNSIGNED-PAYLOAD" && hash !== createHash("sha256").update(sent).digest("hex")) {
      return failure(400, "XAmzContentSHA256Mismatch");
    }
    if (!key) {
      if (method === "HEAD") return { status: 200 };
      return url.searchParams.get("list-type") === "2" ? this.#list(url) : this.#unknown(request);
    }
    if (method === "PUT") return this.#put(request, key, sent);
    if (method === "DELETE") {
      this.objects.delete(key);
      return { status: 204 };
    }
    const stored = this.objects.get(key);
    if (stored === undefined) return failure(404, "NoSuchKey");
    if (method === "HEAD") return { status: 200, headers: this.#described(stored) };
    if (method === "GET") return this.#get(request, stored);
    return method === "POST" && url.searchParams.has("restore") ? this.#restore(stored, sent) : this.#unknown(request);
  }

  #unknown(request: IncomingMessage): Answer {
    this.complaints.push(`${request.method} ${request.url} ${JSON.stringify(request.headers)}`);
    return failure(501, "NotImplemented");
  }

  #put({ headers }: IncomingMessage, key: string, bytes: Buffer): Answer {
    if (headers["if-none-match"] === "*" && this.objects.has(key)) return failure(412, "PreconditionFailed");
    const storageClass = String(headers["x-amz-storage-class"] ?? "STANDARD");
    this.objects.set(key, { bytes, storageClass, modified: new Date() });
    return { status: 200, headers: { ETag: `"${createHash("md5").update(bytes).digest("hex")}"` } };
  }

  #get({ headers }: IncomingMessage, stored: Stored): Answer {
    if (!this.#isReadable(stored)) return failure(403, "InvalidObjectState");
    const { bytes } = stored;
    if (headers.range === undefined) return { status: 200, headers: this.#described(stored), body: bytes };
    const [start = Number.NaN, last = Number.NaN] = (/^bytes=(\d+)-(\d+)$/.exec(headers.range) ?? [])
      .slice(1)
      .map(Number);
    if (!(start < bytes.length)) return failure(416, "InvalidRange");
    const body = bytes.subarray(start, last + 1);
    const range = `bytes ${start}-${start + body.length - 1}/${bytes.length}`;
    const described = { ...this.#described(stored), "Content-Length": String(body.length), "Content-Range": range };
    return { status: 206, headers: described, body };
  }

  #described(stored: Stored): Readonly<Record<string, string>> {
    const { thaw } = stored;
    const alive = thaw && this.#now < thaw.until;
    const ready = thaw && this.#now >= thaw.readyAt;
    const restore = ready
      ? `ongoing-request="false", expiry-date="${new Date(thaw.until).toUTCString()}"`
      : `ongoing-request="true"`;
    return {
      "Content-Length": String(stored.bytes.length),
      "Last-Modified": stored.modified.toUTCString(),
      ...(stored.storageClass === "STANDARD" ? {} : { "x-amz-storage-class": stored.storageClass }),
      ...(alive ? { "x-amz-restore": restore } : {}),
    };
  }

  #isReadable({ storageClass, thaw }: Stored): boolean {
    if (this.#options.alwaysReadable || HOURS[storageClass] === undefined) return true;
    return thaw !== undefined && this.#now >= thaw.readyAt && this.#now < thaw.until;
  }

  #restore(stored: Stored, sent: Buffer): Answer {
    if (this.#options.alwaysReadable) return failure(501, "NotImplemented");
    const error = this.nextRestoreError;
    this.nextRestoreError = undefined;
    if (error) return failure(error.status, error.code);
    const hours = HOURS[stored.storageClass];
    if (hours === undefined) return failure(403, "InvalidObjectState");
    const days = Number(/<Days>(\d+)<\/Days>/.exec(sent.toString())?.[1]);
    const tier = /<Tier>(\w+)<\/Tier>/.exec(sent.toString())?.[1] ?? "Standard";
    const takes = hours[tier];
    if (!(days > 0) || takes === undefined) return failure(400, "InvalidArgument");
    const { thaw } = stored;
    if (thaw && this.#now < thaw.readyAt) return failure(409, "RestoreAlreadyInProgress");
    const readable = this.#isReadable(stored);
    const readyAt = readable ? this.#now : this.#now + takes * HOUR_MS;
    stored.thaw = { readyAt, until: readyAt + days * 24 * HOUR_MS, tier };
    return { status: readable ? 200 : 202 };
  }

  #list(url: URL): Answer {
    const prefix = url.searchParams.get("prefix") ?? "";
    const after = Buffer.from(url.searchParams.get("continuation-token") ?? "", "base64url").toString();
    const names = [...this.objects.keys()].filter((name) => name.startsWith(prefix) && name > after).sort();
    const page = names.slice(0, this.pageSize);
    const more = names.length > page.length;
    const token = `<NextContinuationToken>${Buffer.from(page.at(-1) ?? "").toString("base64url")}</NextContinuationToken>`;
    const contents = page.map((name) => this.#listed(name)).join("");
    const body = `<ListBucketResult><Name>vault</Name><IsTruncated>${more}</IsTruncated>${more ? token : ""}${contents}</ListBucketResult>`;
    return { status: 200, headers: { "Content-Type": "application/xml" }, body: Buffer.from(body) };
  }

  #listed(name: string): string {
    const stored = this.objects.get(name);
    return `<Contents><Key>${name}</Key><Size>${stored?.bytes.length}</Size><LastModified>${stored?.modified.toISOString()}</LastModified><StorageClass>${stored?.storageClass}</StorageClass></Contents>`;
  }
}

export async function startGlacierFake(options: GlacierFakeOptions = {}): Promise<GlacierFake> {
  const fake = new GlacierFake(options);
  await fake.start();
  return fake;
}

/** Collects a request's body; undefined when the line was cut before its end. */
async function bodyOf(request: IncomingMessage): Promise<Buffer | undefined> {
  try {
    const bytes = Buffer.concat(await Array.fromAsync(request as AsyncIterable<Buffer>));
    return bytes.length === Number(request.headers["content-length"] ?? 0) ? bytes : undefined;
  } catch {
    return undefined;
  }
}

function failure(status: number, code: string): Answer {
  const body = Buffer.from(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>${code}</Message></Error>`);
  return { status, headers: { "Content-Type": "application/xml" }, body };
}
