import { randomBytes } from "node:crypto";
import { beforeAll, afterAll, describe, expect, test } from "vitest";
import {
  type DestinationHarness,
  expectReason,
  failing,
  failureOf,
  fresh,
  put,
  readAll,
  readText,
  sliced,
  stuck,
  tracesIn,
} from "./contract.ts";

/** More than what any destination collects for one request, but S3, which is told less. */
const LARGE_BYTES = 17 * 1024 ** 2 + 1;

const signal = new AbortController().signal;

/** The promises of a `put` whose size nobody knows; a part of the contract suite. */
export function describeUnknownSize(name: string, makeHarness: () => Promise<DestinationHarness>): void {
  describe(`${name} keeps the promises of a put of unknown size:`, () => {
    let harness: DestinationHarness;

    beforeAll(async () => {
      harness = await makeHarness();
    });
    afterAll(async () => {
      await harness?.[Symbol.asyncDispose]();
    });

    test.each([0, 1, 300_001, 16 * 1024 ** 2, LARGE_BYTES])("gives back an object of %i bytes", async (size) => {
      const [key, bytes] = [fresh(), randomBytes(size)];
      const there = harness.destination;
      let opened = 0;
      const open = () => {
        opened += 1;
        return sliced(bytes, 1_000_003)();
      };

      await there.put(key, open, { exclusive: true, signal });

      expect((await readAll(there, key)).equals(bytes)).toBe(true);
      expect(await there.stat(key, { signal })).toMatchObject({ key, size });
      expect(opened).toBe(1);
      await there.remove(key, { signal });
    });

    test.each([200_000, LARGE_BYTES])("leaves nothing when its source fails after %i bytes", async (size) => {
      const [key, broken] = [fresh(), new Error("the database is gone")];

      const failure = await harness.destination.put(key, failing(broken, size), { signal }).catch((error) => error);

      expect(failure === broken || failure.cause === broken).toBe(true);
      expect(await tracesIn(harness, key)).toEqual([]);
    });

    test.each([200_000, LARGE_BYTES])("leaves nothing when it is aborted after %i bytes", async (size) => {
      const [key, stop] = [fresh(), new AbortController()];
      const reason = new DOMException("enough", "AbortError");
      const open = stuck(Buffer.alloc(size), () => stop.abort(reason));

      const failure = await harness.destination.put(key, open, { signal: stop.signal }).catch((error) => error);

      expect(failure).toBe(reason);
      expect(await tracesIn(harness, key)).toEqual([]);
    });

    test("leaves the old object when its source fails", async () => {
      const [key, there] = [fresh(), harness.destination];
      await put(there, key, "old");

      await there.put(key, failing(new Error("broken"), LARGE_BYTES), { signal }).catch(() => undefined);

      expect(await readText(there, key)).toBe("old");
    });

    test.each([1000, LARGE_BYTES])("refuses a key that is taken, for %i bytes", async (size) => {
      const [key, there] = [fresh(), harness.destination];
      await put(there, key, "first");

      const failure = await failureOf(
        there.put(key, sliced(Buffer.alloc(size), 1_000_003), { exclusive: true, signal }),
      );

      expectReason(failure, "exists");
      expect(await readText(there, key)).toBe("first");
    });

    test("refuses a key that is taken while it is written", async () => {
      const [key, there] = [fresh(), harness.destination];
      const open = async function* () {
        yield* sliced(Buffer.alloc(LARGE_BYTES), 1_000_003)();
        await put(there, key, "first");
      };

      expectReason(await failureOf(there.put(key, open, { exclusive: true, signal })), "exists");
      expect(await readText(there, key)).toBe("first");
    });

    test("tells, when it sends what it has collected, that bytes move", async () => {
      const there = harness.destination;
      let pulledAt = 0;
      let moves = 0;
      const open = async function* () {
        for await (const part of sliced(Buffer.alloc(LARGE_BYTES), 1_000_003)()) {
          pulledAt = moves;
          yield part;
        }
      };

      await there.put(fresh(), open, { onMoved: () => moves++, signal });

      // None are told by what collects nothing.
      expect(moves === 0 || moves > pulledAt).toBe(true);
    });
  });
}
