import {
  BlobServiceClient,
  ContainerSASPermissions,
  generateBlobSASQueryParameters,
  StorageSharedKeyCredential,
} from "@azure/storage-blob";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { azureThawStateOf } from "../../src/destinations/azure-destination.ts";
import type { Destination } from "../../src/destinations/destination.ts";
import type { AzureSettings } from "../../src/destinations/destination-settings.ts";
import { openDestination } from "../../src/destinations/open-destination.ts";
import { type AzureServer, startAzureServer } from "../support/services.ts";
import { describeDestination, expectReason, failureOf, fresh, put, readText } from "./contract.ts";

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

/** It may do everything with the blobs of one container, and nothing with the container itself. */
function containerSas(containerName: string): string {
  const credential = new StorageSharedKeyCredential(server.account, server.key);
  const permissions = ContainerSASPermissions.parse("rcwdl");
  const expiresOn = new Date(Date.now() + 3_600_000);
  return generateBlobSASQueryParameters({ containerName, permissions, expiresOn }, credential).toString();
}

describeDestination("azure with a signature for one container", async () => {
  const { account, endpoint } = server;
  const settings: AzureSettings = {
    type: "azure",
    container: "backups",
    prefix: "signed",
    account,
    endpoint,
    sas: `?${containerSas("backups")}`,
  };
  const destination = await openDestination(settings, { signal });
  return {
    destination,
    another: () => openDestination(settings, { signal }),
    [Symbol.asyncDispose]: () => destination[Symbol.asyncDispose](),
  };
});

describe("an Azure destination", () => {
  test.each([{}, { sas: "sv=1" }])("says what to sign in with when there is only %j", async (some) => {
    const failure = await failureOf(openDestination({ type: "azure", container: "backups", ...some }, { signal }));

    expectReason(failure, "denied");
    expect(failure.message).toContain("nothing to sign in with");
    expect(failure.hint).toMatch(/connection.*account and sas.*managed identity/);
  });

  test("says access denied for a signature of another container, and shows none", async () => {
    const { account, endpoint } = server;
    const sas = containerSas("another");

    const failure = await failureOf(
      openDestination({ type: "azure", container: "backups", account, endpoint, sas }, { signal }),
    );

    expectReason(failure, "denied");
    const secret = new URLSearchParams(sas).get("sig") ?? "none";
    const said = `${failure.message} ${failure.hint} ${String(failure.cause)} ${JSON.stringify(failure.cause)}`;
    expect(said).not.toContain(secret);
    expect(said).not.toContain(encodeURIComponent(secret));
  });

  test("sends what is archival to its tier, and nothing else", async () => {
    await using there = await openDestination(settingsOf({ tier: "Archive" }), { signal });
    const key = fresh();
    await put(there, `${key}/manifest`, "manifest", { exclusive: true });
    await put(there, `${key}/volume`, "volume", { exclusive: true, archival: true });

    const listed = await Array.fromAsync(there.list(key, { signal }));

    expect(listed.map((info) => info.storageClass)).toEqual(["Hot", "Archive"]);
    expect(await there.stat(`${key}/volume`, { signal })).toMatchObject({ storageClass: "Archive", thaw: "archived" });
    expect((await there.stat(`${key}/manifest`, { signal }))?.thaw).toBeUndefined();
    expect(await readText(there, `${key}/manifest`)).toBe("manifest");
  });

  test("says that an archived blob must be thawed, and can be read once it is", async () => {
    await using there = await openDestination(settingsOf({ tier: "Archive" }), { signal });
    const key = fresh();
    await put(there, key, "volume", { archival: true });
    expectReason(await failureOf(readText(there, key)), "archived");

    const answer = await there.thaw?.(key, { days: 1, tier: "expedited", signal });

    // The emulator thaws at once, where Azure takes hours.
    expect(answer).toEqual({ state: "thawing", withinHours: 1 });
    expect(await there.thaw?.(key, { days: 1, signal })).toEqual({ state: "readable" });
    expect(await readText(there, key)).toBe("volume");
  });

  test("says not-found for a thaw of what does not exist", async () => {
    await using there = await openDestination(settingsOf(), { signal });

    expectReason(await failureOf(thawOf(there, fresh())), "not-found");
  });

  test.each([
    ["Archive", "rehydrate-pending-to-hot", "thawing"],
    ["Archive", "rehydrate-pending-to-cool", "thawing"],
    ["Archive", undefined, "archived"],
    ["Hot", undefined, undefined],
    ["Cool", undefined, undefined],
    [undefined, undefined, undefined],
  ])("takes the tier %s with the status %s for %s", (accessTier, archiveStatus, thaw) => {
    expect(azureThawStateOf({ accessTier, archiveStatus })).toEqual({ storageClass: accessTier, thaw });
  });

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

async function thawOf(there: Destination, key: string): Promise<unknown> {
  return there.thaw?.(key, { days: 1, signal });
}
