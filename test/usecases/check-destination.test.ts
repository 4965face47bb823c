import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Destination } from "../../src/destinations/destination.ts";
import { openDestination } from "../../src/destinations/open-destination.ts";
import { checkDestination, skewOf } from "../../src/usecases/check-destination.ts";
import { probeDestination } from "../../src/usecases/probe-destination.ts";
import { startAzureServer, startFtpServer, startS3Server, startSshServer, withPrograms } from "../support/services.ts";

const signal = new AbortController().signal;
const now = () => new Date();

let folder: string;
let local: Destination;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  local = await openDestination({ type: "local", path: folder }, { signal });
});

afterEach(() => rm(folder, { recursive: true, force: true }));

/** The local destination with some of its promises broken. */
function broken(change: Partial<Destination>): Destination {
  const whole: Destination = {
    name: "liar",
    put: (key, open, options) => local.put(key, open, options),
    get: (key, options) => local.get(key, options),
    stat: (key, options) => local.stat(key, options),
    list: (prefix, options) => local.list(prefix, options),
    remove: (key, options) => local.remove(key, options),
    [Symbol.asyncDispose]: async () => undefined,
  };
  return { ...whole, ...change };
}

async function statuses(destination: Destination) {
  const checks = await checkDestination(destination, { folder: "shop", now, signal });
  return Object.fromEntries(checks.map(({ name, status }) => [name, status]));
}

const GOOD = {
  write: "ok",
  read: "ok",
  "ranged read": "ok",
  list: "ok",
  "conditional write": "ok",
  "racing writes": "ok",
  clock: "ok",
  delete: "ok",
};

test("finds nothing wrong with a folder and leaves nothing in it", async () => {
  expect(await statuses(local)).toEqual({ ...GOOD, "free space": "ok" });

  expect(await readdir(folder)).toEqual([]);
});

test("finds out who replaces what must not be replaced", async () => {
  const careless = broken({ put: (key, open, options) => local.put(key, open, { ...options, exclusive: false }) });

  expect(await statuses(careless)).toEqual({
    ...GOOD,
    "conditional write": "failed",
    "racing writes": "warning",
  });
  expect(await readdir(folder)).toEqual([]);
});

test("finds out who gives other bytes, lists nothing, keeps what was removed, or lives in another time", async () => {
  const late = new Date(Date.now() + 3_600_000);
  async function* nothing() {}
  const garbled = broken({
    async *get(key, options) {
      for await (const part of local.get(key, options)) yield Buffer.from(part).fill(7, 0, 1);
    },
  });
  const deaf = broken({ list: nothing });
  const sticky = broken({ remove: async () => undefined });
  const future = broken({
    stat: async (key, options) => {
      const info = await local.stat(key, options);
      return info && { ...info, modifiedAt: late };
    },
  });

  expect(await statuses(garbled)).toEqual({ write: "ok", read: "failed", delete: "ok" });
  expect(await statuses(deaf)).toMatchObject({ "ranged read": "ok", list: "failed" });
  expect(await statuses(sticky)).toMatchObject({ list: "ok", delete: "failed" });
  expect(await statuses(future)).toMatchObject({ clock: "warning", delete: "ok" });
});

test("an abort is passed on and the probe is removed all the same", async () => {
  const controller = new AbortController();
  const reason = new DOMException("stop", "AbortError");
  const slow = broken({
    list(prefix, options) {
      controller.abort(reason);
      return local.list(prefix, options);
    },
  });

  const stopped = checkDestination(slow, { now, signal: controller.signal });

  await expect(stopped).rejects.toBe(reason);
  expect(await readdir(folder)).toEqual([]);
});

test("a clock within the time of the request has no skew", () => {
  expect([skewOf(5, 4, 6), skewOf(1, 4, 6), skewOf(9, 4, 6)]).toEqual([0, -3, 3]);
});

test("a probe fails with the destination's own error", async () => {
  const missing = { type: "local", path: join(folder, "file", "below") } as const;
  await local.put("file", async function* () {}, { size: 0, signal });

  await expect(probeDestination(missing, { signal })).rejects.toMatchObject({ kind: "destination" });
});

withPrograms(["sshd", "ssh-keygen"], () => {
  test("an SFTP server tells its free space", async () => {
    await using server = await startSshServer();
    const { port, user, privateKey, hostKey } = server;
    const settings = {
      type: "sftp",
      host: "127.0.0.1",
      path: `${server.folder}/data`,
      port,
      user,
      privateKey,
      hostKey,
    } as const;
    await using destination = await openDestination(settings, { signal });

    expect(await statuses(destination)).toEqual({ ...GOOD, "free space": "ok" });
  });
});

withPrograms(["proftpd", "openssl"], () => {
  test("an FTP server passes too", async () => {
    await using server = await startFtpServer("explicit");
    const { port, user, password, ca } = server;
    const settings = {
      type: "ftp",
      host: "127.0.0.1",
      path: `${server.folder}/data`,
      port,
      user,
      password,
      ca,
    } as const;
    await using destination = await openDestination(settings, { signal });

    expect(await statuses(destination)).toEqual(GOOD);
  });
});

describe("object stores let one of ten win", () => {
  withPrograms(["radosgw", "ceph-mon", "ceph-osd", "ceph"], () => {
    test("S3", { timeout: 60_000 }, async () => {
      await using server = await startS3Server();
      const { endpoint, accessKeyId, secretAccessKey } = server;
      const settings = {
        type: "s3",
        bucket: "doctor",
        region: "us-east-1",
        endpoint,
        accessKeyId,
        secretAccessKey,
        pathStyle: true,
      } as const;
      const { CreateBucketCommand, S3Client } = await import("@aws-sdk/client-s3");
      const credentials = { accessKeyId, secretAccessKey };
      const client = new S3Client({ endpoint, region: "us-east-1", forcePathStyle: true, credentials });
      await client.send(new CreateBucketCommand({ Bucket: "doctor" }));
      client.destroy();
      await using destination = await openDestination(settings, { signal });

      expect(await statuses(destination)).toEqual({ ...GOOD });
    });
  });

  test("Azure", { timeout: 60_000 }, async () => {
    await using server = await startAzureServer();
    const settings = { type: "azure", container: "doctor", connection: server.connection } as const;
    const { BlobServiceClient } = await import("@azure/storage-blob");
    await BlobServiceClient.fromConnectionString(server.connection).createContainer("doctor");
    await using destination = await openDestination(settings, { signal });

    expect(await statuses(destination)).toEqual({ ...GOOD });
  });
});

test("tells how little is free", async () => {
  const full = broken({ freeBytes: async () => 3_145_728 });

  const checks = await checkDestination(full, { folder: "shop", now, signal });

  expect(checks.find(({ name }) => name === "free space")).toMatchObject({
    status: "warning",
    message: "only 3.15 MB are free",
  });
});
