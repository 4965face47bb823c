import { CreateBucketCommand, ListMultipartUploadsCommand, S3Client } from "@aws-sdk/client-s3";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { S3Settings } from "../../src/destinations/destination-settings.ts";
import { openDestination } from "../../src/destinations/open-destination.ts";
import { openS3Destination } from "../../src/destinations/s3-destination.ts";
import { type S3Server, startS3Server, withPrograms } from "../support/services.ts";
import { startStallingProxy } from "../support/stalling-proxy.ts";
import { describeDestination, expectReason, failureOf, fresh, listKeys, put, readAll, sliced } from "./contract.ts";
import { describeUnknownSize } from "./unknown-size.ts";

const signal = new AbortController().signal;
const MIB = 1024 * 1024;

test.each([
  ["arn:aws:s3:eu-west-3:123456789012:accesspoint/a", /instead of the ARN/],
  ["backups", /^Add pathStyle: true/],
])("says that %s in front of a host name makes one that nobody knows", async (bucket, hint) => {
  const settings = { type: "s3", bucket, endpoint: "http://minio.invalid:9000" } as const;
  const keys = { accessKeyId: "some", secretAccessKey: "keys" };

  const failure = await failureOf(openS3Destination({ ...settings, ...keys }, { signal }));

  expectReason(failure, "unreachable");
  expect(failure.hint).toMatch(hint);
});

withPrograms(["radosgw", "ceph-mon", "ceph-osd", "ceph"], () => {
  let server: S3Server;
  let client: S3Client;
  beforeAll(async () => {
    server = await startS3Server();
    const { endpoint, accessKeyId, secretAccessKey } = server;
    client = new S3Client({
      endpoint,
      region: "us-east-1",
      forcePathStyle: true,
      credentials: { accessKeyId, secretAccessKey },
    });
    await client.send(new CreateBucketCommand({ Bucket: "backups" }));
  });
  afterAll(async () => {
    client?.destroy();
    await server?.[Symbol.asyncDispose]();
  });

  const settingsOf = (changes: Partial<S3Settings> = {}): S3Settings => ({
    type: "s3",
    bucket: "backups",
    prefix: "some/prefix",
    endpoint: server.endpoint,
    pathStyle: true,
    accessKeyId: server.accessKeyId,
    secretAccessKey: server.secretAccessKey,
    ...changes,
  });

  describeDestination(
    "s3",
    async () => {
      const destination = await openDestination(settingsOf(), { signal });
      return {
        destination,
        another: () => openDestination(settingsOf(), { signal }),
        [Symbol.asyncDispose]: () => destination[Symbol.asyncDispose](),
      };
    },
    { manyObjects: 1100 },
  );

  const inParts = () => openS3Destination(settingsOf(), { signal }, { singlePutBytes: MIB, leastPartBytes: 5 * MIB });
  const unfinishedUploads = async () =>
    (await client.send(new ListMultipartUploadsCommand({ Bucket: "backups" }))).Uploads ?? [];

  describeUnknownSize("s3 in parts", async () => {
    const destination = await inParts();
    return {
      destination,
      another: inParts,
      rawNames: async () => (await unfinishedUploads()).map(({ Key = "" }) => Key),
      [Symbol.asyncDispose]: () => destination[Symbol.asyncDispose](),
    };
  });

  describe("an S3 destination", () => {
    test("sends an object above the limit of one request in parts", async () => {
      await using there = await inParts();
      const key = fresh();
      const bytes = Buffer.alloc(11 * MIB + 17, "abcdefg");

      await there.put(key, sliced(bytes, 700_001), { size: bytes.length, signal });

      expect((await readAll(there, key)).equals(bytes)).toBe(true);
      expect(await unfinishedUploads()).toEqual([]);
    });

    test.each([-1, 1])("leaves no part behind when the source is %i bytes off", async (off) => {
      await using there = await inParts();
      const key = fresh();
      const bytes = Buffer.alloc(6 * MIB);

      const failure = await failureOf(there.put(key, sliced(bytes, MIB), { size: bytes.length + off, signal }));

      expectReason(failure, "failed");
      expect(await unfinishedUploads()).toEqual([]);
      expect(await listKeys(there, key)).toEqual([]);
    });

    test("has the server refuse bytes that do not match their hash", async () => {
      await using there = await openDestination(settingsOf(), { signal });
      const key = fresh();

      await failureOf(put(there, key, "other bytes", { sha256: "0".repeat(64) }));

      expect(await listKeys(there, key)).toEqual([]);
    });

    test("says access denied for a wrong secret, without showing it", async () => {
      const failure = await failureOf(openDestination(settingsOf({ secretAccessKey: "canary-secret" }), { signal }));

      expectReason(failure, "denied");
      expect(`${failure.message} ${failure.hint} ${String(failure.cause)}`).not.toContain("canary-secret");
    });

    test("says that there is no such bucket", async () => {
      const failure = await failureOf(openDestination(settingsOf({ bucket: "nowhere" }), { signal }));

      expectReason(failure, "failed");
      expect(failure.message).toContain("no such bucket");
    });

    test("says that it does not know the region", async () => {
      const failure = await failureOf(
        openDestination({ ...settingsOf(), endpoint: undefined, region: undefined }, { signal }),
      );

      expectReason(failure, "failed");
      expect(failure.message).toContain("its region is not known");
    });

    test("says that a server speaks no TLS", async () => {
      const endpoint = server.endpoint.replace("http:", "https:");

      expectReason(await failureOf(openDestination(settingsOf({ endpoint }), { signal })), "failed");
    });

    test("says unreachable when no server listens", async () => {
      expectReason(
        await failureOf(openDestination(settingsOf({ endpoint: "http://127.0.0.1:1" }), { signal })),
        "unreachable",
      );
    });

    test("says unreachable when the line is cut in the middle of a put, and stores nothing", async () => {
      await using proxy = await startStallingProxy(server.port);
      await using there = await openDestination(settingsOf({ endpoint: `http://127.0.0.1:${proxy.port}` }), { signal });
      const key = fresh();
      const open = async function* () {
        yield Buffer.alloc(300_000);
        await new Promise((resolve) => setTimeout(resolve, 50));
        proxy.cut();
        yield Buffer.alloc(300_000);
      };

      expectReason(await failureOf(there.put(key, open, { size: 600_000, signal })), "unreachable");
      expect(await there.stat(key, { signal })).toBeUndefined();
    });
  });
});

test("says what is wrong with a bucket that no address can be made of", async () => {
  const keys = { accessKeyId: "AK", secretAccessKey: "SK" };
  const settings: S3Settings = { type: "s3", bucket: "arn:aws:s3:::b", region: "eu-west-3", ...keys };

  const failure = await failureOf(openDestination(settings, { signal }));

  expectReason(failure, "failed");
  expect(String(failure)).toContain("Invalid ARN");
});
