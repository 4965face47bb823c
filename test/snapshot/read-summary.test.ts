import { join } from "node:path";
import { mkdir, writeFile } from "node:fs/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { renderManifest } from "../../src/snapshot/manifest-text.ts";
import { readSummary } from "../../src/snapshot/read-summary.ts";
import { summaryOf } from "../../src/snapshot/snapshot-summary.ts";
import { createFolder, never, PREFIX, type TestFolder, writeSample } from "./sample-snapshot.ts";

let folder: TestFolder;
let sample: Manifest;

beforeAll(async () => {
  folder = await createFolder();
  sample = await writeSample({ destinations: [folder.destination], spoolFolder: folder.spool });
});

afterAll(() => folder[Symbol.asyncDispose]());

async function read(manifest: Manifest) {
  const key = `${PREFIX}/${manifest.id}/manifest.json`;
  const path = join(folder.path, "store", key);
  const bytes = renderManifest(manifest);
  await mkdir(join(path, ".."), { recursive: true });
  await writeFile(path, bytes);
  return await readSummary(folder.destination, { key, size: bytes.length }, { id: manifest.id, signal: never });
}

const [definition] = [{ section: "pre-data", kind: "comment", name: "x", sql: "" }] as const;
const hostile = [
  ',"definitions":[',
  '],"notCaptured":[',
  '\\"],"notCaptured":["',
  '"}],"notCaptured":[],"tables":[],"x":[{"y":"',
].map((sql): Manifest["definitions"][number] => ({ ...definition, sql }));

test("the summary of a manifest is that of the whole, whatever its definitions hold", async () => {
  const manifest = { ...sample, definitions: [...sample.definitions, ...hostile] };

  expect(await read(manifest)).toEqual(summaryOf(manifest));
});

test("the summary of a manifest whose fields stand in another order is that of the whole", async () => {
  const { notCaptured, definitions, ...rest } = sample;
  const manifest = {
    notCaptured: hostile.map(({ sql }) => sql),
    ...rest,
    job: sample.job,
    definitions: [...definitions, ...hostile],
  };

  expect(notCaptured).not.toEqual([]);
  expect(await read(manifest)).toEqual(summaryOf(manifest));
});
