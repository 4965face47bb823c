import { BlobServiceClient } from "@azure/storage-blob";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { AzureSettings } from "../../src/destinations/destination-settings.ts";
import { openDestination } from "../../src/destinations/open-destination.ts";
import { type AzureServer, startAzureServer } from "../support/services.ts";
import { describeDestination, expectReason, failureOf } from "./contract.ts";

const signal = new AbortController().signal;
let server: AzureServer;

beforeAll(async () => {
  server = await startAzureServer();
  await BlobServiceClient.fromConnectionString(server.connection).createContainer("backups");
});
afterAll(() => server?.[Symbol.asyncDispose]());

const settingsOf = (changes: Partial<AzureSettings> = {}): AzureSettings => ({
  type: "azure",
  container: "backups",
  prefix: "some/prefix",
  connection: server.connection,
  ...changes,
});

describeDestination("azure", async () => {
  const destination = await openDestination(settingsOf(), { signal });
  return {
    destination,
    another: () => openDestination(settingsOf(), { signal }),
    [Symbol.asyncDispose]: () => destination[Symbol.asyncDispose](),
  };
});

describe("an Azure destination", () => {
  test("says that there is no such container", async () => {
    const failure = await failureOf(openDestination(settingsOf({ container: "nowhere" }), { signal }));

    expectReason(failure, "failed");
    expect(failure.message).toContain("no such container");
  });

  test("says access denied for a wrong key, without showing it", async () => {
    const connection = server.connection.replace(/AccountKey=[^;]+/, "AccountKey=Y2FuYXJ5LXNlY3JldA==");

    const failure = await failureOf(openDestination(settingsOf({ connection }), { signal }));

    expectReason(failure, "denied");
    expect(`${failure.message} ${failure.hint} ${String(failure.cause)}`).not.toContain("Y2FuYXJ5LXNlY3JldA");
  });

  test("never repeats a connection string that is none", async () => {
    const failure = await failureOf(openDestination(settingsOf({ connection: "AccountKey=canary" }), { signal }));

    expectReason(failure, "denied");
    expect(`${failure.message} ${String(failure.cause)}`).not.toContain("canary");
  });

  test("says unreachable when no server listens", async () => {
    const connection = server.connection.replace(/127\.0\.0\.1:\d+/, "127.0.0.1:1");

    expectReason(await failureOf(openDestination(settingsOf({ connection }), { signal })), "unreachable");
  });
});
