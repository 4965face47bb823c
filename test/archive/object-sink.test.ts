import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openObjectSink } from "../../src/archive/object-sink.ts";
import type { Destination } from "../../src/destinations/destination.ts";
import { destinationError } from "../../src/destinations/destination.ts";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import { altered } from "../support/fault-destination.ts";

const { signal } = new AbortController();
const PIECE = Buffer.alloc(300_000, "x");

let path = "";
beforeEach(async () => {
  path = await mkdtemp(join(tmpdir(), "rowkeep-sink-"));
});
afterEach(() => rm(path, { recursive: true }));

async function openSink(changes: (inner: Destination) => Partial<Destination> = () => ({})) {
  const inner = await openLocalDestination({ type: "local", path }, { signal });
  return openObjectSink({ destination: altered(inner, changes(inner)), key: "file", place: "the file", signal });
}

test("stores what was appended, in order, and reads it back", async () => {
  await using sink = await openSink();
  await sink.append(PIECE, signal);
  await sink.append(Buffer.of(), signal);
  await sink.append(Buffer.from("end"), signal);

  await using stored = await sink.finish(signal);

  const read = async (start: number, end: number) =>
    Buffer.concat(await Array.fromAsync(stored?.read(start, end, signal) ?? [])).toString(); // some bytes
  expect([stored?.size, await read(299_999, 300_003)]).toEqual([300_003, "xend"]);
});

test("leaves nothing when it is disposed before its end", async () => {
  {
    await using sink = await openSink();
    await sink.append(PIECE, signal);
    await sink.append(PIECE, signal);
  }

  expect(await readdir(path)).toEqual([]);
});

test("tells whoever appends why the destination gave up, then and later", async () => {
  const full = destinationError("cannot write file: it is full", "full");
  await using sink = await openSink(() => ({
    async put(_key, open) {
      for await (const _ of open()) throw full;
    },
  }));

  const failures = [
    await sink.append(PIECE, signal).catch((error) => error),
    await sink.append(PIECE, signal).catch((error) => error),
    await sink.finish(signal).catch((error) => error),
  ];

  expect(failures).toEqual([full, full, full]);
});

test("does not wait for a destination that takes nothing once it is aborted", async () => {
  await using sink = await openSink(() => ({
    async put(_key, open, options) {
      for await (const _ of open()) {
        await new Promise((_resolve, reject) =>
          options.signal.addEventListener("abort", () => reject(new Error("cut"))),
        );
      }
    },
  }));
  const stop = new AbortController();
  const reason = new DOMException("enough", "AbortError");
  setTimeout(() => stop.abort(reason), 20);

  const failure = await sink.append(PIECE, stop.signal).catch((error) => error);

  expect(failure).toBe(reason);
});

test("removes an object that has another size than what was sent", async () => {
  await using sink = await openSink((inner) => ({
    put: (key, open, options) => inner.put(key, () => without(open()), options),
  }));
  await sink.append(PIECE, signal);
  await sink.append(Buffer.from("end"), signal);

  const failure = await sink.finish(signal).catch((error) => error);

  expect(failure).toMatchObject({
    code: "failed",
    message: "cannot write the file: the server has 300000 of 300003 bytes",
  });
  expect(await readdir(path)).toEqual([]);
});

/** Loses the last piece. */
async function* without(bytes: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  let last: Uint8Array | undefined;
  for await (const piece of bytes) {
    if (last) yield last;
    last = piece;
  }
}
