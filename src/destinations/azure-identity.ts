import type { BlobServiceClient } from "@azure/storage-blob";
import { messageOf, OperationalError } from "../base/errors.ts";
import { type DestinationReason, destinationError } from "./destination.ts";
import { networkMeaning } from "./network-errors.ts";

/** The address at which every virtual machine of Azure finds its own metadata; it is never routed to another machine. */
const METADATA_SERVICE = "http://169.254.169.254";
/** The service answers within milliseconds; elsewhere nobody does. */
const ANSWER_MS = 5_000;

export interface AzureIdentityOptions {
  /** Destination, for errors. */
  readonly name: string;
  /** Of an identity that was assigned by hand; left out: the machine's own. */
  readonly clientId?: string | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** What Azure's libraries take; they keep a token until it is about to expire. */
export type AzureIdentity = Extract<BlobServiceClient["credential"], { getToken: unknown }>;
type AzureToken = NonNullable<Awaited<ReturnType<AzureIdentity["getToken"]>>>;

interface TokenRequest {
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
}

/**
 * Signs in as the managed identity of the machine (virtual machines, scale sets, container instances, AKS nodes) or of the
 * service (App Service, Functions, Container Apps) that this runs on. Tokens are asked for when they are needed.
 * Fails with `unsupported`, and asking with `denied`, `busy` or `unreachable`.
 * https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
 * https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference
 */
export function openAzureIdentity(options: AzureIdentityOptions): AzureIdentity {
  const { env, name } = options;
  // Azure Arc and Service Fabric use the same variables in other ways.
  if (env["IDENTITY_ENDPOINT"] && !env["IDENTITY_HEADER"]) throw unknownKind(name, "Azure Arc");
  if (env["IDENTITY_SERVER_THUMBPRINT"]) throw unknownKind(name, "Service Fabric");
  return {
    async getToken(scopes, call) {
      // The libraries pass on the signal that they were given: one of ours.
      const abortSignal = call?.abortSignal as AbortSignal | undefined;
      const [scope = ""] = [scopes].flat();
      const limit = AbortSignal.timeout(ANSWER_MS);
      const signal = abortSignal ? AbortSignal.any([abortSignal, limit]) : limit;
      try {
        return await readToken(requestOf(scope.replace(/\/\.default$/, ""), options), { name, signal });
      } catch (error) {
        abortSignal?.throwIfAborted();
        throw error instanceof OperationalError ? error : notAnswered(name, error);
      }
    },
  };
}

function requestOf(resource: string, { env, clientId = env["AZURE_CLIENT_ID"] }: AzureIdentityOptions): TokenRequest {
  const [endpoint, header] = [env["IDENTITY_ENDPOINT"], env["IDENTITY_HEADER"]];
  const isService = endpoint !== undefined && header !== undefined;
  const url = isService
    ? new URL(endpoint)
    : new URL("/metadata/identity/oauth2/token", env["AZURE_POD_IDENTITY_AUTHORITY_HOST"] ?? METADATA_SERVICE);
  url.searchParams.set("api-version", isService ? "2019-08-01" : "2018-02-01");
  url.searchParams.set("resource", resource);
  if (clientId) url.searchParams.set("client_id", clientId);
  return { url, headers: isService ? { "X-IDENTITY-HEADER": header } : { Metadata: "true" } };
}

async function readToken(
  { url, headers }: TokenRequest,
  { name, signal }: { readonly name: string; readonly signal: AbortSignal },
): Promise<AzureToken> {
  // Whoever is sent on to another address would show it the header, and take a token from it.
  const answer = await fetch(url, { headers, signal, redirect: "error" });
  const content = parse(await answer.text());
  if (!answer.ok) throw refused(name, answer.status, content["error_description"] ?? content["message"]);
  const token = content["access_token"];
  const expiresOn = expiryOf(content);
  if (typeof token !== "string" || token === "" || Number.isNaN(expiresOn)) throw refused(name, answer.status);
  return { token, expiresOnTimestamp: expiresOn };
}

/** Seconds since 1970 as decimal text, or as a number; milliseconds in the result. */
function expiryOf({ expires_on: expiresOn, expires_in: expiresIn }: Readonly<Record<string, unknown>>): number {
  const seconds = Number(expiresOn ?? Number.NaN);
  return Number.isNaN(seconds) ? Date.now() + Number(expiresIn ?? Number.NaN) * 1000 : seconds * 1000;
}

function parse(text: string): Readonly<Record<string, unknown>> {
  try {
    const content: unknown = JSON.parse(text);
    return typeof content === "object" && content !== null ? (content as Record<string, unknown>) : {};
  } catch {
    // Some other server's page; the parser's message would repeat it.
    return {};
  }
}

/** 404, 410, 429 and 5xx are what the service says while it is being updated. */
function refused(name: string, status: number, said?: unknown): OperationalError {
  const isBusy = [404, 408, 410, 429].includes(status) || status >= 500;
  const words = typeof said === "string" ? `: ${said.slice(0, 300)}` : "";
  return identityError(name, `the managed identity service answers ${status}${words}`, isBusy ? "busy" : "denied");
}

function notAnswered(name: string, cause: unknown): OperationalError {
  // fetch hides the error of the socket in its own.
  const network = networkMeaning((cause as { cause?: unknown }).cause);
  const reason = network?.words ?? ((cause as Error).name === "TimeoutError" ? "nobody answers" : messageOf(cause));
  return identityError(
    name,
    `no answer from a managed identity service on this machine (${reason})`,
    "unreachable",
    cause,
  );
}

function identityError(name: string, reason: string, code: DestinationReason, cause?: unknown): OperationalError {
  return destinationError(`cannot sign in to ${name}: ${reason}`, code, {
    hint: "Assign a managed identity to this machine (clientId chooses one of several), or give connection, or account and sas.",
    cause,
  });
}

function unknownKind(name: string, kind: string): OperationalError {
  return destinationError(`cannot sign in to ${name}: managed identities of ${kind} are not supported`, "unsupported", {
    hint: "Give connection (a connection string), or account and sas (a shared access signature).",
  });
}
