import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface IdentityRequest {
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly headers: IncomingMessage["headers"];
}

/** The service that gives a machine of Azure tokens of its managed identity; nothing here has one. */
export interface AzureIdentityFake extends AsyncDisposable {
  readonly url: string;
  readonly requests: IdentityRequest[];
  /** What it answers instead of a token. */
  answer: ((response: ServerResponse) => void) | undefined;
  /** Seconds that a token is good for. */
  lifeSeconds: number;
}

export async function startAzureIdentityFake(): Promise<AzureIdentityFake> {
  const requests: IdentityRequest[] = [];
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? "/", "http://127.0.0.1");
    requests.push({ path: pathname, query: Object.fromEntries(searchParams), headers: request.headers });
    if (fake.answer) return fake.answer(response);
    const now = Math.floor(Date.now() / 1000);
    const expiry = now + fake.lifeSeconds;
    const body = { access_token: tokenOf(now, expiry), expires_on: String(expiry), token_type: "Bearer" };
    response.setHeader("content-type", "application/json").end(JSON.stringify(body));
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const fake: AzureIdentityFake = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    answer: undefined,
    lifeSeconds: 3600,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => {
        server.close(resolve);
      });
    },
  };
  return fake;
}

/** Of the form that the emulator asks for; it checks everything but the signature. */
function tokenOf(now: number, expiry: number): string {
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString("base64url");
  const times = { iat: now - 60, nbf: now - 60, exp: expiry };
  const claims = { aud: "https://storage.azure.com", iss: "https://sts.windows.net/fake/", ...times };
  return `${encode({ alg: "RS256", typ: "JWT" })}.${encode(claims)}.canary-signature`;
}
