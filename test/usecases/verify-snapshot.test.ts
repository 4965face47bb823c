import { readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { openRepository } from "../../src/snapshot/repository.ts";
import { verifySnapshot } from "../../src/usecases/verify-snapshot.ts";
import { createFolder, ID, never, PREFIX, type TestFolder, writeSample } from "../snapshot/sample-snapshot.ts";

const report = () => {};

async function createSample(): Promise<TestFolder & { readonly objects: string }> {
  const folder = await createFolder();
  await writeSample({ destinations: [folder.destination], spoolFolder: folder.spool, volumeBytes: 16 * 1024 });
  return { ...folder, objects: join(folder.path, "store", PREFIX, ID) };
}

function verify(folder: TestFolder, more: Partial<Parameters<typeof verifySnapshot>[0]> = {}) {
  return verifySnapshot({ destinations: [folder.destination], prefix: PREFIX, signal: never, report, ...more });
}

test("finds nothing wrong with a snapshot that was just stored and records the proof", async () => {
  await using folder = await createSample();
  const now = new Date("2026-11-22T00:00:00.000Z");

  const result = await verify(folder, { now: () => now });

  expect(result.ok).toBe(true);
  expect(result.snapshots).toMatchObject([{ id: ID, ok: true, chunks: 8, sample: 1, problems: [] }]);
  const { snapshots } = await openRepository(folder.destination, PREFIX).list({ signal: never });
  expect(snapshots[0]?.verifiedAt).toBe(now.toISOString());
});

test("finds one flipped bit anywhere in any stored file, tar headers and padding included", async () => {
  await using folder = await createSample();
  const names = await readdir(folder.objects);
  expect(names.toSorted()).toEqual(["manifest.json", "volume-0001.tar", "volume-0002.tar"]);

  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...names), fc.nat(), fc.nat(7), async (name, at, bit) => {
      const path = join(folder.objects, name);
      const good = await readFile(path);
      const bad = Buffer.from(good);
      const position = at % bad.length;
      bad[position] = (bad[position] ?? 0) ^ (1 << bit);
      await writeFile(path, bad);
      try {
        const result = await verify(folder);
        expect(result.ok, `${name} at ${position}`).toBe(false);
      } finally {
        await writeFile(path, good);
      }
    }),
    { numRuns: 150 },
  );
});

test("names the chunk that holds the flipped bit", async () => {
  await using folder = await createSample();
  const manifest = await openRepository(folder.destination, PREFIX).readManifest(ID, { signal: never });
  const chunk = manifest.tables[0]?.segments[1]?.chunks[0];
  if (!chunk) throw new Error("the sample has no such chunk");
  const volume = manifest.volumes[chunk.volume]?.name ?? "";
  const bytes = await readFile(join(folder.objects, volume));
  bytes[chunk.offset + 5] = (bytes[chunk.offset + 5] ?? 0) ^ 1;
  await writeFile(join(folder.objects, volume), bytes);

  const result = await verify(folder);

  expect(result.snapshots[0]?.problems).toEqual([
    { volume, chunk: "", problem: "its SHA-256 is not the one recorded" },
    { volume, chunk: "public.orders 2/1", problem: "its SHA-256 is not the one recorded" },
  ]);
});

test("finds a truncated volume and says what it lost", async () => {
  await using folder = await createSample();
  await truncate(join(folder.objects, "volume-0001.tar"), 700);

  const result = await verify(folder);

  expect(result.snapshots[0]?.problems[0]).toMatchObject({ volume: "volume-0001.tar", chunk: "" });
  expect(result.snapshots[0]?.problems[0]?.problem).toMatch(/^it has 700 bytes, not \d+$/);
});

test("finds a missing volume and a missing manifest", async () => {
  await using folder = await createSample();
  await rm(join(folder.objects, "volume-0001.tar"));

  const result = await verify(folder);

  expect(result.snapshots[0]?.problems).toContainEqual({
    volume: "volume-0001.tar",
    chunk: "",
    problem: "it is missing",
  });
  await rm(join(folder.objects, "manifest.json"));
  await expect(verify(folder)).rejects.toMatchObject({ kind: "usage", code: "not-found" });
});

test("finds two chunks of the same size that were swapped", async () => {
  await using folder = await createFolder();
  await writeSample({
    destinations: [folder.destination],
    spoolFolder: folder.spool,
    compression: { codec: "none", level: 0 },
  });
  const manifest = await openRepository(folder.destination, PREFIX).readManifest(ID, { signal: never });
  const [first, second] = manifest.tables[0]?.segments[0]?.chunks ?? [];
  if (!first || !second) throw new Error("the sample has no two chunks");
  const path = join(folder.path, "store", PREFIX, ID, "volume-0001.tar");
  const bytes = await readFile(path);
  const copy = Buffer.from(bytes);
  const size = Math.min(first.size, second.size);
  copy.copy(bytes, first.offset, second.offset, second.offset + size);
  copy.copy(bytes, second.offset, first.offset, first.offset + size);
  await writeFile(path, bytes);

  const result = await verify(folder);

  const chunks = result.snapshots[0]?.problems.map(({ chunk }) => chunk);
  expect(chunks).toEqual(["", "public.orders 1/1", "public.orders 1/2"]);
});

test("reads only the chosen part of the chunks with a sample, the same part for the same seed", async () => {
  await using folder = await createSample();

  const result = await verify(folder, { sample: 0.25, seed: 7 });

  expect(result).toEqual(await verify(folder, { sample: 0.25, seed: 7 }));
  expect(result.snapshots).toMatchObject([{ ok: true, chunks: 2, sample: 0.25 }]);
  const { snapshots } = await openRepository(folder.destination, PREFIX).list({ signal: never });
  expect(snapshots[0]?.verifiedAt).toBeUndefined();
});

test("a sample of everything finds a flipped bit of a chunk and a volume of the wrong size", async () => {
  await using folder = await createSample();
  const path = join(folder.objects, "volume-0001.tar");
  const good = await readFile(path);
  await writeFile(path, Buffer.concat([good, Buffer.alloc(512)]));

  const result = await verify(folder, { sample: 0.999 });

  expect(result.snapshots[0]?.problems[0]?.problem).toBe(`it has ${good.length + 512} bytes, not ${good.length}`);
});

test("leaves the abort to its caller", async () => {
  await using folder = await createSample();
  const reason = new DOMException("stop", "AbortError");

  await expect(verify(folder, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
});
