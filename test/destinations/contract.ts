import { createHash, randomBytes } from "node:crypto";
import { utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { OperationalError } from "../../src/base/errors.ts";
import type { Destination, DestinationReason, OpenBytes, PutOptions } from "../../src/destinations/destination.ts";
import { describeUnknownSize } from "./unknown-size.ts";

export interface DestinationHarness extends AsyncDisposable {
  readonly destination: Destination;
  /** Another connection to the same place, as another process would have it. The suite disposes it. */
  another(): Promise<Destination>;
  /** Every name that is stored, unfinished ones too, as the server's own disk shows them; without it `list` has to do. */
  rawNames?(): Promise<readonly string[]>;
}

export interface ContractOptions {
  /** How many objects the paging test stores; more than one page of the protocol where it has pages. */
  readonly manyObjects?: number;
  /**
   * Puts a file of this name (its folder exists) and age there, past the destination, as a process that died leaves it.
   * To be given by a destination that has `removeUnfinished`.
   */
  readonly leaveFile?: (name: string, ageMs: number) => Promise<void>;
}

const MINUTE_MS = 60_000;

const signal = new AbortController().signal;

/** The promises of the `Destination` interface, each one a test. Every destination calls this, and so does every new one. */
export function describeDestination(
  name: string,
  makeHarness: () => Promise<DestinationHarness>,
  { manyObjects = 60, leaveFile }: ContractOptions = {},
): void {
  describe(`${name} keeps the promises of a destination:`, () => {
    let harness: DestinationHarness;
    let there: Destination;

    beforeAll(async () => {
      harness = await makeHarness();
      there = harness.destination;
    });
    afterAll(async () => {
      await harness?.[Symbol.asyncDispose]();
    });

    describe("keys", () => {
      test.each([
        ["", "is empty"],
        ["../escape", "climbs"],
        ["a/../../b", "climbs in the middle"],
        ["a/./b", "has a dot segment"],
        ["/etc/passwd", "is absolute"],
        ["a//b", "has an empty segment"],
        ["a/", "ends in a slash"],
        ["C:\\x", "is a Windows path"],
        ["a\\b", "has a backslash"],
        ["a b", "has a space"],
        ["a\0b", "has a NUL"],
        ["é", "is not ASCII"],
        ["x".repeat(901), "is too long"],
      ])("refuses %j, which %s, before anything is touched", async (key) => {
        let opened = false;
        const open = async function* () {
          opened = true;
          yield Buffer.from("x");
        };

        const failures = await Promise.all([
          failureOf(there.put(key, open, { size: 1, signal })),
          failureOf(readAll(there, key)),
          failureOf(there.stat(key, { signal })),
          failureOf(there.remove(key, { signal })),
        ]);

        expect(failures.map((failure) => failure.code)).toEqual(Array(4).fill("invalid-key"));
        expect(opened).toBe(false);
      });

      test("keeps two keys apart of which one is the start of the other", async () => {
        const key = fresh();
        await put(there, `${key}/a`, "short");
        await put(there, `${key}/ab`, "longer");

        expect(await readText(there, `${key}/a`)).toBe("short");
        expect(await readText(there, `${key}/ab`)).toBe("longer");
      });
    });

    describe("put and get", () => {
      test.each([0, 1, 65_536, 3_000_001])("gives back an object of %i bytes as it was", async (size) => {
        const key = fresh();
        const bytes = randomBytes(size);

        await there.put(key, sliced(bytes, 100_003), { size, sha256: hashOf(bytes), signal });

        expect((await readAll(there, key)).equals(bytes)).toBe(true);
        expect(await there.stat(key, { signal })).toMatchObject({ key, size });
      });

      test("works without a hash and with a source of many small pieces", async () => {
        const key = fresh();
        const bytes = randomBytes(20_000);

        await there.put(key, sliced(bytes, 7), { size: bytes.length, signal });

        expect((await readAll(there, key)).equals(bytes)).toBe(true);
      });

      test("replaces an object as a whole, by a shorter one too", async () => {
        const key = fresh();
        await put(there, key, "the old and longer one");

        await put(there, key, "new");

        expect(await readText(there, key)).toBe("new");
      });

      test("shows either the old or the new object while it is replaced", async () => {
        const key = fresh();
        const [old, young] = [Buffer.alloc(400_000, "o"), Buffer.alloc(500_000, "n")];
        await there.put(key, sliced(old, 400_000), { size: old.length, signal });
        await using other = await harness.another();
        const seen: string[] = [];

        const replacing = there.put(key, slowly(young, 5), { size: young.length, signal });
        for (let reads = 0; reads < 4; reads++) seen.push(hashOf(await readAll(other, key)));
        await replacing;

        expect([hashOf(old), hashOf(young)]).toEqual(expect.arrayContaining([...new Set(seen)]));
        expect(hashOf(await readAll(there, key))).toBe(hashOf(young));
      });

      test("leaves the bytes that it is given as they are, for other destinations", async () => {
        const bytes = randomBytes(3_000_001);
        // As a shared file gives them: each block is memory of its own, which could be taken away.
        const blocks = Array.from({ length: 3 }, (_, block) =>
          Buffer.from(bytes.subarray(block << 20, (block + 1) << 20)),
        );
        const shared = async function* () {
          yield* blocks;
        };

        await there.put(fresh(), shared, { size: bytes.length, sha256: hashOf(bytes), signal });

        expect(Buffer.concat(blocks).equals(bytes)).toBe(true);
      });

      test("takes several objects at once", async () => {
        const key = fresh();
        const objects = Array.from({ length: 6 }, (_, index) => [`${key}/${index}`, randomBytes(150_000)] as const);

        await Promise.all(
          objects.map(([name, bytes]) => there.put(name, sliced(bytes, 9_999), { size: bytes.length, signal })),
        );

        const back = await Promise.all(objects.map(([name]) => readAll(there, name)));
        expect(back.every((bytes, index) => bytes.equals(objects[index]?.[1] ?? Buffer.of()))).toBe(true);
      });

      test("says what is missing when a missing object is read", async () => {
        const key = fresh();

        const failure = await failureOf(readAll(there, key));

        expectReason(failure, "not-found");
        expect(failure.message).toContain(`${there.name}/${key}`);
      });
    });

    describe("ranges", () => {
      const bytes = randomBytes(300_000);
      const key = `ranges-${randomBytes(4).toString("hex")}/object`;
      beforeAll(() => there.put(key, sliced(bytes, 65_536), { size: bytes.length, signal }));

      test.each([
        [0, 1],
        [0, 300_000],
        [299_999, 300_000],
        [12_345, 234_567],
        [150_000, 150_000],
      ])("reads the bytes from %i up to %i", async (start, end) => {
        const part = await readAll(there, key, { start, end });

        expect(part.equals(bytes.subarray(start, end))).toBe(true);
      });

      test.each([
        [0, 300_001],
        [299_999, 300_010],
        [400_000, 400_001],
      ])("never takes fewer bytes than from %i to %i for an answer", async (start, end) => {
        expectReason(await failureOf(readAll(there, key, { start, end })), "failed");
      });

      test("goes on working after a reader left early", async () => {
        for await (const part of there.get(key, { signal })) if (part.length > 0) break;

        expect((await readAll(there, key)).equals(bytes)).toBe(true);
        expect(await there.stat(key, { signal })).toMatchObject({ size: bytes.length });
      });

      test("may use its memory again for a reader that is done with each part, and for no other", async () => {
        const large = randomBytes(3_000_000);
        const at = `${key}-large`;
        await there.put(at, sliced(large, 1_000_000), { size: large.length, signal });

        const copied: Buffer[] = [];
        for await (const part of there.get(at, { reuse: true, signal })) copied.push(Buffer.from(part));
        const kept: Uint8Array[] = [];
        for await (const part of there.get(at, { signal })) kept.push(part);

        expect(Buffer.concat(copied).equals(large)).toBe(true);
        expect(Buffer.concat(kept).equals(large)).toBe(true);
      });

      test("reads several ranges at once", async () => {
        const starts = [0, 50_000, 100_000, 150_000, 200_000];

        const parts = await Promise.all(starts.map((start) => readAll(there, key, { start, end: start + 50_000 })));

        expect(Buffer.concat(parts).equals(bytes.subarray(0, 250_000))).toBe(true);
      });
    });

    describe("a put that does not work out", () => {
      const sources: readonly [string, OpenBytes, number][] = [
        ["gives too few bytes", sliced(Buffer.alloc(70_000), 10_000), 70_001],
        ["gives too many bytes", sliced(Buffer.alloc(70_000), 10_000), 69_999],
        ["gives nothing", sliced(Buffer.of(), 1), 10],
        ["gives something instead of nothing", sliced(Buffer.from("x"), 1), 0],
      ];
      test.each(sources)("leaves nothing when its source %s", async (_, open, size) => {
        const key = fresh();

        const failure = await failureOf(there.put(key, open, { size, signal }));

        expectReason(failure, "failed");
        expect(await traces(key)).toEqual([]);
      });

      test("leaves nothing when its source fails, and reports that failure", async () => {
        const key = fresh();
        const broken = new Error("the spool is broken");

        const failure = await there.put(key, failing(broken), { size: 500_000, signal }).catch((error) => error);

        expect(failure === broken || failure.cause === broken).toBe(true);
        expect(await traces(key)).toEqual([]);
      });

      test("leaves the old object when its source fails", async () => {
        const key = fresh();
        await put(there, key, "old");

        await there.put(key, failing(new Error("broken")), { size: 500_000, signal }).catch(() => undefined);

        expect(await readText(there, key)).toBe("old");
      });

      test("leaves nothing when it is aborted in the middle, and rejects with the signal's reason", async () => {
        const key = fresh();
        const stop = new AbortController();
        const reason = new DOMException("enough", "AbortError");

        const failure = await there
          .put(
            key,
            stuck(Buffer.alloc(200_000), () => stop.abort(reason)),
            { size: 400_000, signal: stop.signal },
          )
          .catch((error) => error);

        expect(failure).toBe(reason);
        expect(await traces(key)).toEqual([]);
      });

      test("leaves the old object when it is aborted in the middle", async () => {
        const key = fresh();
        await put(there, key, "old");
        const stop = new AbortController();

        await there
          .put(
            key,
            stuck(Buffer.alloc(200_000), () => stop.abort()),
            { size: 400_000, signal: stop.signal },
          )
          .catch(() => undefined);

        expect(await readText(there, key)).toBe("old");
      });

      test("does nothing at all when the signal is aborted already", async () => {
        const key = fresh();
        const aborted = AbortSignal.abort(new DOMException("enough", "AbortError"));

        const failures = await Promise.all([
          there.put(key, text("x"), { size: 1, signal: aborted }).catch((error) => error),
          readAll(there, key, undefined, aborted).catch((error) => error),
          there.stat(key, { signal: aborted }).catch((error) => error),
          listKeys(there, key, aborted).catch((error) => error),
          there.remove(key, { signal: aborted }).catch((error) => error),
        ]);

        expect(failures).toEqual(Array(5).fill(aborted.reason));
        expect(await traces(key)).toEqual([]);
      });

      test("goes on working afterwards", async () => {
        const key = fresh();
        await there.put(key, failing(new Error("broken")), { size: 500_000, signal }).catch(() => undefined);

        await put(there, key, "fine");

        expect(await readText(there, key)).toBe("fine");
      });
    });

    describe("exclusive", () => {
      test("stores an object under a free key", async () => {
        const key = fresh();

        await put(there, key, "first", { exclusive: true });

        expect(await readText(there, key)).toBe("first");
      });

      test("refuses a key that is taken and leaves its object", async () => {
        const key = fresh();
        await put(there, key, "first");

        const failure = await failureOf(put(there, key, "second", { exclusive: true }));

        expectReason(failure, "exists");
        expect(await readText(there, key)).toBe("first");
      });

      test("lets one of ten racing creators win", async () => {
        const key = fresh();
        await using other = await harness.another();

        const outcomes = await Promise.allSettled(
          Array.from({ length: 10 }, (_, index) =>
            put(index % 2 === 0 ? there : other, key, `creator ${index}`, { exclusive: true }),
          ),
        );

        const winners = outcomes.flatMap((outcome, index) => (outcome.status === "fulfilled" ? [index] : []));
        expect(winners).toHaveLength(1);
        for (const outcome of outcomes) if (outcome.status === "rejected") expectReason(outcome.reason, "exists");
        expect(await readText(there, key)).toBe(`creator ${winners[0]}`);
      });
    });

    describe("stat, list and remove", () => {
      test("knows nothing about a missing object", async () => {
        expect(await there.stat(fresh(), { signal })).toBeUndefined();
        expect(await there.stat(`${fresh()}/deep/down`, { signal })).toBeUndefined();
      });

      test("does not take a folder for an object", async () => {
        const key = fresh();
        await put(there, `${key}/inside`, "x");

        expect(await there.stat(key, { signal })).toBeUndefined();
      });

      test("tells size and time of what it lists", async () => {
        const key = fresh();
        await put(there, key, "12345");

        const [info] = await Array.fromAsync(there.list(key, { signal }));

        expect(info).toMatchObject({ key, size: 5 });
        expect(Math.abs((info?.modifiedAt.getTime() ?? 0) - Date.now())).toBeLessThan(120_000);
      });

      test("lists by the start of the key, wherever it ends", async () => {
        const key = fresh();
        const names = ["a", "ab", "b", "d/e", "d/f/g", "dx"].map((name) => `${key}/${name}`);
        for (const name of names) await put(there, name, "x");
        const below = async (prefix: string) =>
          (await listKeys(there, `${key}/${prefix}`)).map((found) => found.slice(key.length + 1)).sort();

        expect(await below("")).toEqual(["a", "ab", "b", "d/e", "d/f/g", "dx"]);
        expect(await below("a")).toEqual(["a", "ab"]);
        expect(await below("d")).toEqual(["d/e", "d/f/g", "dx"]);
        expect(await below("d/")).toEqual(["d/e", "d/f/g"]);
        expect(await below("d/f/g")).toEqual(["d/f/g"]);
        expect(await below("z")).toEqual([]);
        expect(await below("z/z/")).toEqual([]);
      });

      test("lists everything for an empty prefix", async () => {
        const key = fresh();
        await put(there, `${key}/x`, "x");

        expect(await listKeys(there, "")).toContain(`${key}/x`);
      });

      test(`lists ${manyObjects} objects, each one once`, async () => {
        const key = fresh();
        const names = Array.from({ length: manyObjects }, (_, index) => `${key}/${index}`);
        await eachOf(names, 16, (name) => put(there, name, ""));

        expect((await listKeys(there, `${key}/`)).sort()).toEqual(names.sort());
      });

      test("names the folders right below one, each one once, where it can without a list", async () => {
        const key = fresh();
        for (const name of ["a/x", "a/y", "b/deeper/x", "file"]) await put(there, `${key}/${name}`, "x");
        await put(there, `${key}2/c/x`, "x");

        const folders = await there.listFolders?.(key, { signal });
        const missing = await there.listFolders?.(`${key}/none`, { signal });

        expect([folders?.toSorted() ?? ["a", "b"], missing ?? []]).toEqual([["a", "b"], []]);
      });

      test("can be left in the middle of a listing", async () => {
        const key = fresh();
        for (const name of ["a", "b", "c"]) await put(there, `${key}/${name}`, "x");

        for await (const info of there.list(`${key}/`, { signal })) {
          expect(info.size).toBe(1);
          break;
        }

        expect(await listKeys(there, `${key}/`)).toHaveLength(3);
      });

      test("never lists an object that is not finished", async () => {
        const key = fresh();
        await using other = await harness.another();
        let seen: string[] = ["not asked"];

        await there.put(
          key,
          pausing(Buffer.alloc(300_000), async () => {
            seen = [...(await listKeys(other, key)), ...((await other.stat(key, { signal })) ? ["stat"] : [])];
          }),
          { size: 300_000, signal },
        );

        expect(seen).toEqual([]);
        expect(await listKeys(there, key)).toEqual([key]);
      });

      test("removes an object, and a missing one without complaint", async () => {
        const key = fresh();
        await put(there, `${key}/a/b`, "x");
        await put(there, `${key}/a/c`, "y");

        await there.remove(`${key}/a/b`, { signal });
        await there.remove(`${key}/a/b`, { signal });
        await there.remove(`${key}/never/was`, { signal });

        expect(await there.stat(`${key}/a/b`, { signal })).toBeUndefined();
        expect(await listKeys(there, key)).toEqual([`${key}/a/c`]);
      });

      test("shows another connection what was stored", async () => {
        const key = fresh();
        await put(there, key, "shown");

        await using other = await harness.another();

        expect(await readText(other, key)).toBe("shown");
      });
    });

    // Object stores publish whole objects: nothing unfinished can be left there.
    if (leaveFile) {
      describe("removeUnfinished", () => {
        test("removes what a dead process left, and neither what is young nor what is elsewhere", async () => {
          const [key, elsewhere] = [fresh(), fresh()];
          await put(there, `${key}/deep/whole`, "x");
          await put(there, `${elsewhere}/whole`, "x");
          await leaveFile(`${key}/deep/old.tar.0a1b2c3d4e5f.in-progress`, 90 * MINUTE_MS);
          await leaveFile(`${key}/deep/young.tar.0a1b2c3d4e5f.in-progress`, 10 * MINUTE_MS);
          await leaveFile(`${key}/deep/in-progress`, 90 * MINUTE_MS);
          await leaveFile(`${elsewhere}/old.0a1b2c3d4e5f.in-progress`, 90 * MINUTE_MS);

          const removed = await there.removeUnfinished?.(`${key}/`, { olderThanMs: 60 * MINUTE_MS, signal });

          const listed = ["deep/in-progress", "deep/whole"];
          const stored = [...listed, "deep", "deep/young.tar.0a1b2c3d4e5f.in-progress"];
          expect(removed).toBe(1);
          expect((await traces(`${key}/`)).map((name) => name.slice(key.length + 1)).sort()).toEqual(
            [...listed, ...stored].sort(),
          );
          expect(await traces(elsewhere)).toContain(`${elsewhere}/old.0a1b2c3d4e5f.in-progress`);
        });

        test("finds nothing where nothing is", async () => {
          expect(await there.removeUnfinished?.(`${fresh()}/deep/`, { olderThanMs: 0, signal })).toBe(0);
        });

        test("leaves alone what another process writes at this moment", async () => {
          const key = fresh();
          await using other = await harness.another();
          let removed: number | undefined;

          await there.put(
            key,
            pausing(Buffer.alloc(300_000), async () => {
              removed = await other.removeUnfinished?.(key, { olderThanMs: MINUTE_MS, signal });
            }),
            { size: 300_000, signal },
          );

          expect(removed).toBe(0);
          expect(await there.stat(key, { signal })).toMatchObject({ size: 300_000 });
        });

        test("stops when the signal is aborted already", async () => {
          const aborted = AbortSignal.abort(new DOMException("enough", "AbortError"));

          const stopped = there.removeUnfinished?.("", { olderThanMs: 0, signal: aborted }).catch((error) => error);

          expect(await stopped).toBe(aborted.reason);
        });
      });
    }

    function traces(key: string): Promise<readonly string[]> {
      return tracesIn(harness, key);
    }
  });
  describeUnknownSize(name, makeHarness);
}

/** Everything there whose name holds the key, unfinished or not. */
export async function tracesIn(harness: DestinationHarness, key: string): Promise<readonly string[]> {
  const names = [...(await listKeys(harness.destination, key)), ...((await harness.rawNames?.()) ?? [])];
  return names.filter((name) => name.includes(key));
}

/** Writes a file into a folder of the server's disk, as old as told. */
export async function leaveFileIn(folder: string, name: string, ageMs: number): Promise<void> {
  const then = new Date(Date.now() - ageMs);
  await writeFile(join(folder, name), "half");
  await utimes(join(folder, name), then, then);
}

/** A key that no other test uses. */
export function fresh(): string {
  return `t-${randomBytes(6).toString("hex")}`;
}

export function text(value: string): OpenBytes {
  return sliced(Buffer.from(value), 64 * 1024);
}

export function put(
  destination: Destination,
  key: string,
  value: string,
  options: Partial<PutOptions> = {},
): Promise<void> {
  return destination.put(key, text(value), { size: Buffer.byteLength(value), signal, ...options });
}

export async function readAll(
  destination: Destination,
  key: string,
  range?: { readonly start: number; readonly end: number },
  stop: AbortSignal = signal,
): Promise<Buffer> {
  // At most a few megabytes: the tests' own objects.
  return Buffer.concat(await Array.fromAsync(destination.get(key, { range, signal: stop })));
}

export async function readText(destination: Destination, key: string): Promise<string> {
  return (await readAll(destination, key)).toString();
}

export async function listKeys(
  destination: Destination,
  prefix: string,
  stop: AbortSignal = signal,
): Promise<string[]> {
  return (await Array.fromAsync(destination.list(prefix, { signal: stop }))).map((info) => info.key);
}

export async function failureOf(promise: Promise<unknown>): Promise<OperationalError> {
  const outcome = await promise.then(
    () => new Error("it did not fail"),
    (error: unknown) => error,
  );
  if (outcome instanceof OperationalError) return outcome;
  throw outcome;
}

export function expectReason(failure: unknown, reason: DestinationReason): void {
  expect(failure).toBeInstanceOf(OperationalError);
  expect(failure).toMatchObject({ kind: "destination", code: reason });
  expect((failure as Error).message).toMatch(/^cannot [a-z]/);
}

export function sliced(bytes: Buffer, pieceSize: number): OpenBytes {
  return async function* () {
    for (let start = 0; start < bytes.length; start += pieceSize) yield bytes.subarray(start, start + pieceSize);
  };
}

function slowly(bytes: Buffer, pauseMs: number): OpenBytes {
  return async function* () {
    for (let start = 0; start < bytes.length; start += 50_000) {
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      yield bytes.subarray(start, start + 50_000);
    }
  };
}

function pausing(bytes: Buffer, during: () => Promise<void>): OpenBytes {
  return async function* () {
    yield bytes.subarray(0, bytes.length / 2);
    await during();
    yield bytes.subarray(bytes.length / 2);
  };
}

export function failing(error: Error, size = 200_000): OpenBytes {
  return async function* () {
    yield* sliced(Buffer.alloc(size), 1_000_000)();
    throw error;
  };
}

/** Gives its bytes, calls, and then says nothing any more. */
export function stuck(bytes: Buffer, then: () => void): OpenBytes {
  return async function* () {
    yield bytes;
    setTimeout(then, 30);
    await new Promise(() => undefined);
  };
}

async function eachOf<T>(items: readonly T[], atOnce: number, act: (item: T) => Promise<void>): Promise<void> {
  const waiting = [...items];
  const worker = async () => {
    for (let item = waiting.pop(); item !== undefined; item = waiting.pop()) await act(item);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

function hashOf(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}
