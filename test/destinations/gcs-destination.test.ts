import { generateKeyPairSync } from "node:crypto";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { writeFile } from "node:fs/promises";
import type { Socket } from "node:net";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import type { DestinationReason } from "../../src/destinations/destination.ts";
import type { GcsSettings } from "../../src/destinations/destination-settings.ts";
import { openDestination } from "../../src/destinations/open-destination.ts";
import { type GcsFake, startGcsFake } from "../support/gcs-fake.ts";
import { startStallingProxy } from "../support/stalling-proxy.ts";
import {
  describeDestination,
  expectReason,
  failureOf,
  fresh,
  listKeys,
  put,
  readAll,
  readText,
  sliced,
} from "./contract.ts";

const signal = new AbortController().signal;
const FOLDER = "some/prefix";
let fake: GcsFake;

beforeAll(async () => {
  fake = await startGcsFake();
  fake.pageSize = 50;
});
afterAll(() => fake?.close());

const settingsOf = (changes: Partial<GcsSettings> = {}): GcsSettings => ({
  type: "gcs",
  bucket: "backups",
  prefix: FOLDER,
  endpoint: fake.endpoint,
  keyFile: fake.keyFile,
  ...changes,
});
const open = (changes?: Partial<GcsSettings>) => openDestination(settingsOf(changes), { signal });

describeDestination(
  "gcs",
  async () => {
    const destination = await open();
    return {
      destination,
      another: () => open(),
      rawNames: async () => [...fake.objects.keys()],
      [Symbol.asyncDispose]: () => destination[Symbol.asyncDispose](),
    };
  },
  { manyObjects: 120 },
);

describe("a Google Cloud Storage destination", () => {
  afterEach(() => {
    fake.faults.length = 0;
  });

  test.each([
    [503, "backendError", "busy"],
    [429, "rateLimitExceeded", "busy"],
    [403, "rateLimitExceeded", "busy"],
    [403, "quotaExceeded", "full"],
    [403, "forbidden", "denied"],
    [401, "authError", "denied"],
    [501, "notImplemented", "unsupported"],
  ] satisfies [number, string, DestinationReason][])("takes the answer %i %s for %s, and asks once", async (...row) => {
    const [status, reason, expected] = row;
    await using there = await open();
    const key = fresh();
    const path = `/storage/v1/b/backups/o/${FOLDER}/${key}`;
    const act = { status, reason };
    fake.faults.push({ method: "GET", path, act }, { method: "DELETE", path, act });

    const failures = [await failureOf(readAll(there, key)), await failureOf(there.remove(key, { signal }))];

    for (const failure of failures) expectReason(failure, expected);
    expect(fake.requests.filter((request) => request.endsWith(key))).toHaveLength(2);
  });

  test("says which right is missing when a put is denied", async () => {
    await using there = await open();
    fake.faults.push({ method: "POST", path: "/upload/", act: { status: 403, reason: "forbidden" } });

    const failure = await failureOf(put(there, fresh(), "x"));

    expectReason(failure, "denied");
    expect(failure.hint).toContain("roles/storage.objectUser");
  });

  test("says busy when a put meets a busy server, at each of its requests, and leaves the old object", async () => {
    await using there = await open();
    const key = fresh();
    const bytes = Buffer.alloc(600_000, 1);
    await put(there, key, "old");
    for (const [method, requests] of [
      ["POST", 0],
      ["PUT", 1],
      ["PUT", 2],
    ] as const) {
      const before = fake.requests.length;
      if (requests < 2) fake.faults.push({ method, path: "/upload/", act: { status: 503, reason: "backendError" } });
      const open = async function* () {
        yield bytes.subarray(0, 524_288);
        if (requests === 2) {
          await expect.poll(() => fake.requests.slice(before).some((said) => said.startsWith("PUT"))).toBe(true);
          fake.faults.push({ method, path: "/upload/", act: { status: 503, reason: "backendError" } });
        }
        yield bytes.subarray(524_288);
      };

      expectReason(await failureOf(there.put(key, open, { size: bytes.length, signal })), "busy");
      expect(await readText(there, key)).toBe("old");
    }
    expect(fake.sessions.size).toBe(0);
  });

  test("has the server refuse bytes that changed on the way, and leaves the old object", async () => {
    await using there = await open();
    const key = fresh();
    await put(there, key, "old");
    fake.faults.push({ method: "PUT", path: "/upload/", act: "flip" });

    const failure = await failureOf(put(there, key, "new and changed"));

    expectReason(failure, "failed");
    expect(failure.message).toContain("MD5");
    expect(await readText(there, key)).toBe("old");
  });

  test("takes away what a server that does not check stored wrongly", async () => {
    await using there = await open();
    const key = fresh();
    fake.faults.push({ method: "PUT", path: "/upload/", act: "flip-unseen" });

    const failure = await failureOf(put(there, key, "new and changed", { exclusive: true }));

    expectReason(failure, "failed");
    expect(failure.message).toContain("other bytes");
    expect(await listKeys(there, key)).toEqual([]);
  });

  test.each([1, 262_143, 262_144, 262_145, 524_288, 786_433])("stores %i bytes around its units", async (size) => {
    await using there = await open();
    const key = fresh();
    const bytes = Buffer.alloc(size, "abcdefg");

    await there.put(key, sliced(bytes, 100_000), { size, signal });

    expect((await readAll(there, key)).equals(bytes)).toBe(true);
  });

  test("leaves nothing when the line is cut in the middle of a put", async () => {
    await using proxy = await startStallingProxy(fake.port);
    await using there = await open({ endpoint: `http://127.0.0.1:${proxy.port}` });
    const key = fresh();
    const source = async function* () {
      yield Buffer.alloc(300_000);
      await new Promise((resolve) => setTimeout(resolve, 50));
      proxy.cut();
      yield Buffer.alloc(300_000);
    };

    expectReason(await failureOf(there.put(key, source, { size: 600_000, signal })), "unreachable");
    expect([...fake.objects.keys()].filter((name) => name.includes(key))).toEqual([]);
  });

  test("never takes an answer that is cut for the whole object", async () => {
    await using there = await open();
    const key = fresh();
    await there.put(key, sliced(Buffer.alloc(500_000), 100_000), { size: 500_000, signal });
    fake.faults.push({ method: "GET", path: "/storage/v1/b/backups/o/", act: "short" });

    expectReason(await failureOf(readAll(there, key)), "unreachable");
  });

  test("ends a request that stalls when it is aborted, and an upload with it", async () => {
    await using there = await open();
    const reason = new DOMException("enough", "AbortError");
    const key = fresh();
    const acts: readonly [string, (options: { readonly signal: AbortSignal }) => Promise<unknown>][] = [
      ["GET", (options) => there.stat(key, options)],
      ["GET", (options) => readAll(there, key, undefined, options.signal)],
      ["GET", (options) => listKeys(there, key, options.signal)],
      ["DELETE", (options) => there.remove(key, options)],
      ["POST", (options) => put(there, key, "x", options)],
      ["PUT", (options) => put(there, key, "x", options)],
    ];
    for (const [method, act] of acts) {
      const stop = new AbortController();
      fake.faults.push({ method, path: method.startsWith("P") ? "/upload/" : "/storage/", act: "stall" });
      const failure = act({ signal: stop.signal }).catch((error: unknown) => error);
      await expect.poll(() => fake.faults).toEqual([]);
      stop.abort(reason);

      expect(await failure).toBe(reason);
    }
    await expect.poll(() => fake.sessions.size).toBe(0);
    expect(await listKeys(there, key)).toEqual([]);
  });

  test("gives the storage class to what is archival, and to nothing else", async () => {
    await using there = await open({ storageClass: "ARCHIVE" });
    const key = fresh();
    await put(there, `${key}/volume`, "x", { archival: true });
    await put(there, `${key}/manifest`, "x");

    const volume = await there.stat(`${key}/volume`, { signal });
    const manifest = await there.stat(`${key}/manifest`, { signal });

    expect([volume?.storageClass, manifest?.storageClass]).toEqual(["ARCHIVE", "STANDARD"]);
    // Google's archive answers at once.
    expect(volume?.thaw).toBeUndefined();
    expect(await readText(there, `${key}/volume`)).toBe("x");
  });

  test("speaks to the server that it is told, and to nobody else", async () => {
    const reached = new Set<string>();
    const watch = (message: unknown) => {
      const { socket } = message as { socket: Socket };
      socket.on("lookup", (_error, address, _family, host) => reached.add(`${host} ${address}`));
      socket.on("connectionAttempt", (address, port) => reached.add(`${address}:${port}`));
    };
    subscribe("net.client.socket", watch);
    // Waiting connections of the tests before would need no new one.
    await using proxy = await startStallingProxy(fake.port);

    await using there = await open({ endpoint: `http://127.0.0.1:${proxy.port}` });
    await put(there, fresh(), "x");

    unsubscribe("net.client.socket", watch);
    expect([...reached].sort()).toEqual([`127.0.0.1:${fake.port}`, `127.0.0.1:${proxy.port}`].sort());
  });

  test("works without a prefix and with an address that ends in a slash", async () => {
    await using there = await open({ prefix: undefined, endpoint: `${fake.endpoint}/` });
    const key = fresh();

    await put(there, key, "x");

    expect(fake.objects.has(key)).toBe(true);
    expect(there.name).toBe("gs://backups");
  });

  test("says that there is no such bucket", async () => {
    const failure = await failureOf(open({ bucket: "nowhere" }));

    expectReason(failure, "failed");
    expect(failure.message).toContain("no such bucket");
  });

  test("says access denied for the key of another account", async () => {
    const keyFile = join(fake.folder, "other.json");
    await fake.writeKeyFile(keyFile, generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey);

    expectReason(await failureOf(open({ keyFile })), "denied");
  });

  test.each([
    ["is not there", undefined],
    ["is not JSON", "-----BEGIN CANARY"],
    ["holds no key", '{"type":"service_account","client_email":"a@b","private_key":"CANARY"}'],
  ])("says access denied when the key file %s, without showing any of it", async (_, content) => {
    const keyFile = join(fake.folder, `${fresh()}.json`);
    if (content !== undefined) await writeFile(keyFile, content);

    const failure = await failureOf(open({ keyFile }));

    expectReason(failure, "denied");
    expect(failure.message).toContain("key file");
    expect(`${failure.message} ${failure.hint} ${String(failure.cause)}`).not.toContain("CANARY");
  });

  describe("without a key file", () => {
    const settings = () => ({ ...settingsOf(), keyFile: undefined });
    beforeEach(() => {
      vi.stubEnv("HOME", fake.folder);
      vi.stubEnv("APPDATA", fake.folder);
      // Whether this machine is one of Google's is not asked here.
      vi.stubEnv("METADATA_SERVER_DETECTION", "none");
    });
    afterEach(() => {
      vi.unstubAllEnvs();
    });

    test("takes the application default credentials", async () => {
      const warn = vi.spyOn(console, "warn");
      vi.stubEnv("GOOGLE_APPLICATION_CREDENTIALS", fake.keyFile);
      const key = fresh();

      await using there = await openDestination(settings(), { signal });
      await put(there, key, "x");

      expect(await readText(there, key)).toBe("x");
      expect(warn).not.toHaveBeenCalled();
      warn.mockRestore();
    });

    test("says access denied when there are none", async () => {
      vi.stubEnv("GOOGLE_APPLICATION_CREDENTIALS", "");

      const failure = await failureOf(openDestination(settings(), { signal }));

      expectReason(failure, "denied");
      expect(failure.message).toContain("application default credentials");
      expect(failure.hint).toContain("keyFile");
    });
  });

  test("says unreachable when no server listens", async () => {
    expectReason(await failureOf(open({ endpoint: "http://127.0.0.1:1" })), "unreachable");
  });
});
