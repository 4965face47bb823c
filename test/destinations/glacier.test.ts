import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { Destination, ThawTier } from "../../src/destinations/destination.ts";
import type { S3Settings } from "../../src/destinations/destination-settings.ts";
import { openDestination } from "../../src/destinations/open-destination.ts";
import { type GlacierFake, startGlacierFake } from "../support/glacier-fake.ts";
import { describeDestination, expectReason, failureOf, fresh, listKeys, put, readAll, readText } from "./contract.ts";

const signal = new AbortController().signal;
const DAY_HOURS = 24;
let fake: GlacierFake;

beforeAll(async () => {
  fake = await startGlacierFake();
  fake.pageSize = 40;
});
afterAll(() => fake?.close());

const settingsOf = (changes: Partial<S3Settings> = {}): S3Settings => ({
  type: "s3",
  bucket: "vault",
  prefix: "some/prefix",
  endpoint: fake.endpoint,
  pathStyle: true,
  accessKeyId: "AK",
  secretAccessKey: "SK",
  storageClass: "GLACIER",
  ...changes,
});
const open = (changes?: Partial<S3Settings>) => openDestination(settingsOf(changes), { signal });

// What is not archival stays readable, so every promise holds at a destination that is set to an archive class.
describeDestination("s3 of class GLACIER", async () => {
  const destination = await open();
  return {
    destination,
    another: () => open(),
    rawNames: async () => [...fake.objects.keys()],
    [Symbol.asyncDispose]: () => destination[Symbol.asyncDispose](),
  };
});

describe("an S3 destination of an archive class", () => {
  test("sends what is archival to the archive, and nothing else", async () => {
    await using there = await open();
    const key = await putBoth(there);

    const volume = await there.stat(`${key}/volume`, { signal });
    const manifest = await there.stat(`${key}/manifest`, { signal });
    const listed = await Array.fromAsync(there.list(key, { signal }));

    expect(volume).toMatchObject({ storageClass: "GLACIER", thaw: "archived", size: 6 });
    expect(manifest?.storageClass).toBe("STANDARD");
    expect(manifest?.thaw).toBeUndefined();
    expect(listed.map((info) => info.storageClass)).toEqual(["STANDARD", "GLACIER"]);
    expect(await readText(there, `${key}/manifest`)).toBe("manifest");
  });

  test.each([undefined, { start: 1, end: 3 }])(
    "says that an archived object must be thawed, for the range %j",
    async (range) => {
      await using there = await open();
      const key = await putBoth(there);

      const failure = await failureOf(readAll(there, `${key}/volume`, range));

      expectReason(failure, "archived");
      expect(failure.message).toContain("thawed first");
      expect(failure.hint).toContain("--thaw");
    },
  );

  test.each([
    ["GLACIER", "expedited", 1],
    ["GLACIER", undefined, 5],
    ["GLACIER", "bulk", 12],
    ["DEEP_ARCHIVE", "standard", 12],
    ["DEEP_ARCHIVE", "bulk", 48],
  ] satisfies [string, ThawTier | undefined, number][])("thaws %s by the tier %s within %i hours", async (...row) => {
    const [storageClass, tier, withinHours] = row;
    await using there = await open({ storageClass });
    const key = `${await putBoth(there)}/volume`;

    const answer = await there.thaw?.(key, { days: 3, tier, signal });

    expect(answer).toEqual({ state: "thawing", withinHours });
    expect(await there.stat(key, { signal })).toMatchObject({ thaw: "thawing", storageClass });
    expectReason(await failureOf(readAll(there, key)), "archived");
    fake.passHours(withinHours);
    expect(await there.stat(key, { signal })).toMatchObject({ thaw: "thawed", storageClass });
    expect(await readText(there, key)).toBe("volume");
  });

  test("tells until when a thawed object can be read, after which it is archived again", async () => {
    await using there = await open();
    const key = `${await putBoth(there)}/volume`;
    await there.thaw?.(key, { days: 2, signal });
    fake.passHours(5);

    const thawed = await there.stat(key, { signal });
    fake.passHours(2 * DAY_HOURS);
    const later = await there.stat(key, { signal });

    expect(thawed?.thawedUntil).toBeInstanceOf(Date);
    expect(thawed?.thawedUntil?.getTime()).toBeGreaterThan(Date.now());
    expect(later).toMatchObject({ thaw: "archived" });
    expectReason(await failureOf(readAll(there, key)), "archived");
  });

  test("takes a second request for the same, and asks the server once", async () => {
    await using there = await open();
    const key = `${await putBoth(there)}/volume`;
    const asked = () => fake.requests.filter((request) => request === `POST some/prefix/${key}`).length;

    const answers = [await there.thaw?.(key, { days: 1, signal }), await there.thaw?.(key, { days: 1, signal })];

    expect(answers).toEqual(Array(2).fill({ state: "thawing", withinHours: 5 }));
    expect(asked()).toBe(1);
  });

  test("takes it well when somebody else asked in between", async () => {
    await using there = await open();
    const key = `${await putBoth(there)}/volume`;
    fake.nextRestoreError = { status: 409, code: "RestoreAlreadyInProgress" };

    expect(await there.thaw?.(key, { days: 1, signal })).toEqual({ state: "thawing" });
  });

  test("keeps a thawed object readable for longer when asked again", async () => {
    await using there = await open();
    const key = `${await putBoth(there)}/volume`;
    await there.thaw?.(key, { days: 1, signal });
    fake.passHours(5 + DAY_HOURS - 1);

    const answer = await there.thaw?.(key, { days: 2, signal });
    fake.passHours(DAY_HOURS);

    expect(answer).toEqual({ state: "readable" });
    expect(await readText(there, key)).toBe("volume");
  });

  test("has nothing to thaw in a hot object", async () => {
    await using there = await open();
    const key = `${await putBoth(there)}/manifest`;

    expect(await there.thaw?.(key, { days: 1, signal })).toEqual({ state: "readable" });
    expect(fake.requests).not.toContain(`POST some/prefix/${key}`);
  });

  test("says not-found for a thaw of what does not exist, and invalid-key for what cannot", async () => {
    await using there = await open();

    expectReason(await failureOf(thaw(there, fresh())), "not-found");
    expectReason(await failureOf(thaw(there, "../x")), "invalid-key");
  });

  test("says which thaw a class does not have", async () => {
    await using there = await open({ storageClass: "DEEP_ARCHIVE" });
    const key = `${await putBoth(there)}/volume`;

    const failure = await failureOf(thaw(there, key, "expedited"));

    expectReason(failure, "unsupported");
    expect(failure.message).toContain("DEEP_ARCHIVE has no expedited thaw");
  });

  test("says busy when the server has no capacity for a fast thaw", async () => {
    await using there = await open();
    const key = `${await putBoth(there)}/volume`;
    fake.nextRestoreError = { status: 503, code: "GlacierExpeditedRetrievalNotAvailable" };

    expectReason(await failureOf(thaw(there, key, "expedited")), "busy");
  });

  test("leaves the console to the command when a put fails", async () => {
    const warn = vi.spyOn(console, "warn");
    await using there = await open();
    const key = await putBoth(there);

    expectReason(await failureOf(put(there, `${key}/volume`, "other", { exclusive: true })), "exists");

    expect(warn).not.toHaveBeenCalled();
    warn.mockRestore();
  });

  test("removes an archived object", async () => {
    await using there = await open();
    const key = await putBoth(there);

    await there.remove(`${key}/volume`, { signal });

    expect(await listKeys(there, key)).toEqual([`${key}/manifest`]);
  });

  test("does nothing when the signal is aborted already", async () => {
    await using there = await open();
    const aborted = AbortSignal.abort(new DOMException("enough", "AbortError"));

    const failure = await there.thaw?.(fresh(), { days: 1, signal: aborted }).catch((error: unknown) => error);

    expect(failure).toBe(aborted.reason);
  });

  test("believes a server whose class of that name can be read at once", async () => {
    const other = await startGlacierFake({ alwaysReadable: true });
    try {
      await using there = await open({ endpoint: other.endpoint });
      const key = `${await putBoth(there)}/volume`;
      await put(there, `${key}/empty`, "", { archival: true });

      for (const name of [key, `${key}/empty`]) {
        const info = await there.stat(name, { signal });

        expect(info?.storageClass).toBe("GLACIER");
        expect(info?.thaw).toBeUndefined();
        expect(await there.thaw?.(name, { days: 1, signal })).toEqual({ state: "readable" });
      }
      expect(await readText(there, key)).toBe("volume");
    } finally {
      await other.close();
    }
  });
});

/** Stores a snapshot in small: gives the key of its folder. */
async function putBoth(there: Destination): Promise<string> {
  const key = fresh();
  await put(there, `${key}/volume`, "volume", { exclusive: true, archival: true });
  await put(there, `${key}/manifest`, "manifest", { exclusive: true });
  return key;
}

async function thaw(there: Destination, key: string, tier?: ThawTier): Promise<unknown> {
  return there.thaw?.(key, { days: 1, tier, signal });
}
