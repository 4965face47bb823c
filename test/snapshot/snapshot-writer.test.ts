import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { parseIdentities } from "../../src/archive/age-keys.ts";
import { OperationalError } from "../../src/base/errors.ts";
import { type Destination, destinationError } from "../../src/destinations/destination.ts";
import { openLocalDestination } from "../../src/destinations/local-destination.ts";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { renderManifest } from "../../src/snapshot/manifest-text.ts";
import { openSnapshotReader } from "../../src/snapshot/open-snapshot-reader.ts";
import { parseManifest } from "../../src/snapshot/parse-manifest.ts";
import { openRepository } from "../../src/snapshot/repository.ts";
import { createKeyRing } from "../../src/snapshot/snapshot-key.ts";
import {
  collect,
  commitSample,
  createFolder,
  ID,
  never,
  openSampleWriter,
  PREFIX,
  sampleRows,
  writeSample,
} from "./sample-snapshot.ts";

const v1 = join(import.meta.dirname, "../fixtures/archives/v1");

/** A destination that fails from its n-th put on. */
function failingFrom(inner: Destination, count: number): Destination {
  let puts = 0;
  return {
    name: "failing",
    put: (key, open, options) =>
      ++puts >= count
        ? Promise.reject(destinationError("cannot write: it is broken", "failed"))
        : inner.put(key, open, options),
    get: (key, options) => inner.get(key, options),
    stat: (key, options) => inner.stat(key, options),
    list: (prefix, options) => inner.list(prefix, options),
    remove: (key, options) => inner.remove(key, options),
    [Symbol.asyncDispose]: async () => {},
  };
}

test("still reads an archive of version 1", async () => {
  await using destination = await openLocalDestination({ type: "local", path: v1 }, { signal: never });
  const manifest = await openRepository(destination, PREFIX).readManifest(ID, { signal: never });
  await using reader = openSnapshotReader({ destinations: [destination], prefix: PREFIX, manifest, signal: never });

  const rows = await collect(reader.chunks(manifest.tables[0]?.segments[1]?.chunks ?? [], { signal: never }));

  expect(rows.equals(Buffer.concat([sampleRows(1, 2, 1).raw, sampleRows(1, 2, 2).raw]))).toBe(true);
});

test("still reads an encrypted archive of version 1", async () => {
  const folder = join(import.meta.dirname, "../fixtures/archives/v1-encrypted");
  await using destination = await openLocalDestination({ type: "local", path: folder }, { signal: never });
  const parsed = await parseIdentities(await readFile(join(folder, "identity.txt"), "utf8"));
  if (typeof parsed === "string") throw new Error(parsed);
  const repository = openRepository(destination, PREFIX, { keys: createKeyRing(parsed) });
  const opened = await repository.open(ID, { signal: never });
  await using reader = openSnapshotReader({ ...opened, destinations: [destination], prefix: PREFIX, signal: never });

  const rows = await collect(reader.chunks(opened.manifest.tables[0]?.segments[1]?.chunks ?? [], { signal: never }));

  expect(rows.equals(Buffer.concat([sampleRows(1, 2, 1).raw, sampleRows(1, 2, 2).raw]))).toBe(true);
});

test("disposed before the commit it leaves nothing behind and lists nothing", async () => {
  await using folder = await createFolder();
  {
    await using writer = await openSampleWriter({
      destinations: [folder.destination],
      spoolFolder: folder.spool,
      volumeBytes: 600,
    });
    for (const name of ["a", "b", "c"]) await writer.addChunk(name, Buffer.from(`${name}\n`), 1);
  }

  expect(await openRepository(folder.destination, PREFIX).list({ signal: never })).toEqual({
    snapshots: [],
    damaged: [],
    locked: [],
  });
  expect(await readdir(folder.spool)).toEqual([]);
  const left = [];
  for await (const info of folder.destination.list("", { signal: never })) left.push(info.key);
  expect(left).toEqual([]);
});

test("a destination that fails drops out alone", async () => {
  await using folder = await createFolder();
  await using other = await createFolder();
  await using writer = await openSampleWriter({
    destinations: [failingFrom(other.destination, 2), folder.destination],
    spoolFolder: folder.spool,
    volumeBytes: 8 * 1024,
  });

  await commitSample(writer);

  expect(writer.fates.map(({ status }) => status)).toEqual(["failed", "stored"]);
  expect((await openRepository(other.destination, PREFIX).list({ signal: never })).snapshots).toEqual([]);
  expect((await openRepository(folder.destination, PREFIX).list({ signal: never })).snapshots).toHaveLength(1);
});

test("fails with the destination's error when none is left", async () => {
  await using folder = await createFolder();
  await using writer = await openSampleWriter({
    destinations: [failingFrom(folder.destination, 1)],
    spoolFolder: folder.spool,
  });

  await expect(commitSample(writer)).rejects.toMatchObject({ kind: "destination", code: "failed" });
});

test("never replaces a snapshot that has the same id, and leaves it whole", async () => {
  await using folder = await createFolder();
  await writeSample({ destinations: [folder.destination], spoolFolder: folder.spool });

  await expect(writeSample({ destinations: [folder.destination], spoolFolder: folder.spool })).rejects.toMatchObject({
    code: "id-taken",
  });

  expect((await openRepository(folder.destination, PREFIX).list({ signal: never })).snapshots).toHaveLength(1);
});

test("leaves alone what another machine stored below the same id before it had a volume there", async () => {
  await using folder = await createFolder();
  const { destination, spool } = folder;
  const failing = new AbortController();
  const key = `${PREFIX}/${ID}/volume-0001.tar`;
  const foreign = Buffer.from("of the other one");
  const interrupted: Destination = {
    ...failingFrom(destination, 1),
    async put(_key, _open, { signal }) {
      const other = async function* () {
        yield foreign;
      };
      await destination.put(key, other, { size: foreign.length, signal: never });
      failing.abort(new Error("the database is gone"));
      signal.throwIfAborted();
    },
  };
  const storing = writeSample({ destinations: [interrupted], spoolFolder: spool, signal: failing.signal });

  await expect(storing).rejects.toThrow("the database is gone");

  expect(await destination.stat(key, { signal: never })).toMatchObject({ size: foreign.length });
});

test("a hostile manifest never gives anything but an operational error", async () => {
  await using folder = await createFolder();
  const manifest = await writeSample({ destinations: [folder.destination], spoolFolder: folder.spool });
  const paths = pathsOf(manifest);

  fc.assert(
    fc.property(fc.constantFrom(...paths), fc.oneof(fc.jsonValue(), fc.integer()), (path, value) => {
      const copy = JSON.parse(JSON.stringify(manifest)) as Manifest;
      let at = copy as unknown as Record<string, unknown>;
      for (const key of path.slice(0, -1)) at = at[key] as Record<string, unknown>;
      at[path.at(-1) ?? ""] = value;
      try {
        parseManifest(renderManifest(copy), "m");
      } catch (error) {
        expect(error).toBeInstanceOf(OperationalError);
      }
    }),
    { numRuns: 500 },
  );
});

test("tells a manifest of a future version to upgrade, and refuses duplicate keys and prototypes", () => {
  const parse = (text: string) => () => parseManifest(Buffer.from(text), "m");

  expect(parse('{"format":"rowkeep-snapshot","version":4}')).toThrow(
    expect.objectContaining({ code: "future-version" }),
  );
  expect(parse('{"version":1,"ver\\u0073ion":1}')).toThrow(/twice/);
  expect(parse('{"__proto__":{}}')).toThrow(/not allowed/);
  expect(parse("[".repeat(100_000))).toThrow(/nested/);
});

test("rows in an encoding of their own need version 3, of which earlier readers say that they cannot read it", async () => {
  await using folder = await createFolder();
  const manifest = await writeSample({ destinations: [folder.destination], spoolFolder: folder.spool });
  const settings = { ...manifest.settings, client_encoding: "WIN1252" };
  const parse = (version: Manifest["version"]) => () =>
    parseManifest(renderManifest({ ...manifest, version, settings }), "m");

  expect(parse(2)).toThrow(/its rows have an encoding that its version does not know/);
  expect(parse(3)().settings["client_encoding"]).toBe("WIN1252");
});

function pathsOf(value: unknown, path: readonly string[] = []): string[][] {
  if (typeof value !== "object" || value === null) return [[...path]];
  const deeper = Object.entries(value).flatMap(([key, item]) => pathsOf(item, [...path, key]));
  return path.length > 0 ? [[...path], ...deeper] : deeper;
}
