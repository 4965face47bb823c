import tls from "node:tls";
import { BlobServiceClient } from "@azure/storage-blob";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import type { AzureSettings } from "../../src/destinations/destination-settings.ts";
import { openDestination } from "../../src/destinations/open-destination.ts";
import { type AzureIdentityFake, startAzureIdentityFake } from "../support/azure-identity-fake.ts";
import { type AzureServer, startAzureServer, withPrograms } from "../support/services.ts";
import { expectReason, failureOf, fresh, put, readText } from "./contract.ts";

const signal = new AbortController().signal;
const RESOURCE = "https://storage.azure.com";

withPrograms(["openssl"], () => {
  let server: AzureServer;
  let identity: AzureIdentityFake;
  const trusted = tls.getCACertificates("default");

  beforeAll(async () => {
    server = await startAzureServer({ tls: true });
    tls.setDefaultCACertificates([...trusted, server.ca]);
    await BlobServiceClient.fromConnectionString(server.connection).createContainer("backups");
  });
  afterAll(async () => {
    tls.setDefaultCACertificates(trusted);
    await server?.[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    identity = await startAzureIdentityFake();
    for (const name of ["IDENTITY_ENDPOINT", "IDENTITY_HEADER", "AZURE_CLIENT_ID", "IDENTITY_SERVER_THUMBPRINT"]) {
      vi.stubEnv(name, undefined);
    }
    vi.stubEnv("AZURE_POD_IDENTITY_AUTHORITY_HOST", identity.url);
  });
  afterEach(async () => {
    vi.unstubAllEnvs();
    await identity[Symbol.asyncDispose]();
  });

  const settingsOf = (changes: Partial<AzureSettings> = {}): AzureSettings => ({
    type: "azure",
    container: "backups",
    account: server.account,
    endpoint: server.endpoint,
    ...changes,
  });

  describe("the managed identity of a machine", () => {
    test("opens a container, and one token does for many requests", async () => {
      const key = fresh();

      await using there = await openDestination(settingsOf(), { signal });
      await put(there, key, "volume", { exclusive: true });
      const text = await readText(there, key);

      expect(text).toBe("volume");
      expect((await Array.fromAsync(there.list(key, { signal }))).map((info) => info.key)).toEqual([key]);
      expect(identity.requests).toMatchObject([
        {
          path: "/metadata/identity/oauth2/token",
          query: { "api-version": "2018-02-01", resource: RESOURCE },
          headers: { metadata: "true" },
        },
      ]);
      expect(identity.requests[0]?.query).not.toHaveProperty("client_id");
    });

    test("gets another token before the old one ends", async () => {
      identity.lifeSeconds = 60;

      await using there = await openDestination(settingsOf(), { signal });
      await put(there, fresh(), "volume");

      // Beside the request that still takes the old one.
      await vi.waitFor(() => expect(identity.requests.length).toBeGreaterThan(1), { timeout: 10_000 });
    });

    test("is chosen by the job file, or else by the environment", async () => {
      vi.stubEnv("AZURE_CLIENT_ID", "of-the-environment");

      await using _first = await openDestination(settingsOf({ clientId: "of-the-job" }), { signal });
      await using _second = await openDestination(settingsOf(), { signal });

      expect(identity.requests.map(({ query }) => query["client_id"])).toEqual(["of-the-job", "of-the-environment"]);
    });
  });

  test("the managed identity of a service is asked for at its own address, with its header", async () => {
    vi.stubEnv("IDENTITY_ENDPOINT", `${identity.url}/msi/token`);
    vi.stubEnv("IDENTITY_HEADER", "canary-header");

    await using _there = await openDestination(settingsOf({ clientId: "mine" }), { signal });

    expect(identity.requests).toMatchObject([
      {
        path: "/msi/token",
        query: { "api-version": "2019-08-01", resource: RESOURCE, client_id: "mine" },
        headers: { "x-identity-header": "canary-header" },
      },
    ]);
  });

  describe("an error of the identity service", () => {
    const answering = (status: number, body: string, headers: Readonly<Record<string, string>> = {}) => {
      identity.answer = (response) => response.writeHead(status, headers).end(body);
    };

    test.each([
      [
        400,
        '{"error":"invalid_request","error_description":"Identity not found"}',
        "denied",
        "400: Identity not found",
      ],
      [404, "gone for a moment", "busy", "404"],
      [429, "{}", "busy", "429"],
      [500, "<html>", "busy", "500"],
      [200, "<html>a page of somebody else</html>", "denied", "200"],
      [200, '{"access_token":"canary-token"}', "denied", "200"],
    ] as const)("%i %s is %s", async (status, body, code, words) => {
      answering(status, body);

      const failure = await failureOf(openDestination(settingsOf({ name: "cloud" }), { signal }));

      expectReason(failure, code);
      expect(failure.message).toBe(`cannot sign in to cloud: the managed identity service answers ${words}`);
      expect(failure.hint).toContain("Assign a managed identity");
      expect(`${failure.message} ${String(failure.cause)}`).not.toContain("canary");
    });

    test("is unreachable when nobody listens, or somebody sends it elsewhere", async () => {
      answering(302, "", { location: "http://127.0.0.1:1/" });
      const sentOn = await failureOf(openDestination(settingsOf(), { signal }));
      await identity[Symbol.asyncDispose]();
      const refused = await failureOf(openDestination(settingsOf(), { signal }));

      expectReason(sentOn, "unreachable");
      expectReason(refused, "unreachable");
      expect(refused.message).toContain("the server refuses the connection");
    });

    test("is unreachable after five seconds of silence, as everywhere but at Azure", { timeout: 20_000 }, async () => {
      identity.answer = () => undefined;

      const failure = await failureOf(openDestination(settingsOf(), { signal }));

      expectReason(failure, "unreachable");
      expect(failure.message).toContain("nobody answers");
    });

    test("stops with the reason of an abort", async () => {
      const controller = new AbortController();
      identity.answer = () => controller.abort(new Error("enough"));

      await expect(openDestination(settingsOf(), { signal: controller.signal })).rejects.toThrow("enough");
    });
  });

  test.each([
    [{ IDENTITY_ENDPOINT: "http://127.0.0.1:1" }, "Azure Arc"],
    [
      { IDENTITY_ENDPOINT: "http://127.0.0.1:1", IDENTITY_HEADER: "x", IDENTITY_SERVER_THUMBPRINT: "y" },
      "Service Fabric",
    ],
  ])("an identity that is found by %j is refused by its name", async (variables, kind) => {
    for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value);

    const failure = await failureOf(openDestination(settingsOf(), { signal }));

    expectReason(failure, "unsupported");
    expect(failure.message).toContain(kind);
  });

  test("a token is never shown to an address without TLS", async () => {
    const failure = await failureOf(openDestination(settingsOf({ endpoint: "http://127.0.0.1:1/shop" }), { signal }));

    expectReason(failure, "denied");
    expect(identity.requests).toEqual([]);
  });
});
