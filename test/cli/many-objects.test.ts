import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ChunkRef } from "../../src/snapshot/manifest.ts";
import { renderManifest } from "../../src/snapshot/manifest-text.ts";
import { renderSnapshotId } from "../../src/snapshot/snapshot-id.ts";
import { createFolder, openSampleWriter, PREFIX, type TestFolder, writeSample } from "../snapshot/sample-snapshot.ts";
import { type CliResult, runCli } from "../support/cli.ts";
import { type GcsFake, startGcsFake } from "../support/gcs-fake.ts";

/** In CI a tenth of it, in a smaller heap: `npm run bench:objects` takes minutes. */
const OBJECTS = Number(process.env["ROWKEEP_OBJECTS"] ?? 10_000);
const SNAPSHOTS = OBJECTS / 100;
/** With the manifest a hundred objects for each snapshot. */
const VOLUMES = 99;
const STEP_MS = 8 * 3_600_000;
const NEWEST = Date.parse("2026-11-21T02:00:00Z");
const KEPT = SNAPSHOTS - 2;

/** Of V8's heap. Without a limit it uses what the machine has before it tidies. */
const HEAP_MIB = OBJECTS > 10_000 ? 64 : 40;
/** Of the whole process, with the heap's young part, code, libraries and buffers: the same for any number of objects. */
const MOST_MIB = 280;

let folder: TestFolder;
let gcs: GcsFake;

beforeAll(async () => {
  folder = await createFolder();
  gcs = await startGcsFake();
  const { bodies, manifests } = await makeSnapshots();
  let generation = 1;
  const [created, storageClass] = [new Date(NEWEST), "STANDARD"];
  for (const [id, manifest] of manifests) {
    const path = join(folder.path, "many", PREFIX, id);
    mkdirSync(path, { recursive: true });
    for (const [name, bytes] of [...bodies, ["manifest.json", manifest] as const]) {
      writeFileSync(join(path, name), bytes);
      gcs.objects.set(`${PREFIX}/${id}/${name}`, { bytes, generation: generation++, storageClass, created });
    }
  }
  writeJob("local", { type: "local", path: join(folder.path, "many") });
  writeJob("gcs", { type: "gcs", bucket: "backups", endpoint: gcs.endpoint, keyFile: gcs.keyFile });
}, 300_000);
afterAll(async () => {
  await gcs?.close();
  await folder?.[Symbol.asyncDispose]();
});

function writeJob(name: string, destination: object): void {
  const job = { version: 1, name: "shop", source: { url: "postgres://u@h/shop" }, destinations: [destination] };
  writeFileSync(join(folder.path, `${name}.yaml`), JSON.stringify({ ...job, retention: { keepLast: KEPT } }));
}

/** One snapshot of many small volumes, under many ids. */
async function makeSnapshots() {
  const options = { destinations: [folder.destination], spoolFolder: folder.spool, volumeBytes: 1 };
  const sample = await writeSample(options);
  const id = "20260101T000000Z-full";
  await using writer = await openSampleWriter({ ...options, id });
  const chunks: ChunkRef[] = [];
  for (let index = 1; index <= VOLUMES; index++) {
    const entry = { group: 1, label: "public.orders", segment: 1, index, extension: "tsv" };
    chunks.push(await writer.addChunk(entry, Buffer.from(`${index}\tan order\n`), 1));
  }
  const [table] = sample.tables;
  if (!table) throw new Error("the sample has no table");
  const sum = (of: (chunk: ChunkRef) => number) => chunks.reduce((total, chunk) => total + of(chunk), 0);
  const rest = { rows: VOLUMES, rawBytes: sum(({ rawSize }) => rawSize), storedBytes: sum(({ size }) => size) };
  const none = { files: [], largeObjects: { count: 0, chunks: [] } };
  const tables = [{ ...table, ...rest, segments: [{ chunks }] }];
  const { manifest } = await writer.commit((volumes) => ({ ...sample, ...none, id, tables, volumes }));
  const path = join(folder.path, "store", PREFIX, id);
  const names = readdirSync(path).filter((name) => name.startsWith("volume-"));
  const bodies = names.map((name) => [name, readFileSync(join(path, name))] as const);
  const manifests = Array.from({ length: SNAPSHOTS }, (_, index) => {
    const at = new Date(NEWEST - index * STEP_MS);
    const own = renderSnapshotId(at, "full");
    return [own, Buffer.from(renderManifest({ ...manifest, id: own, createdAt: at.toISOString() }))] as const;
  });
  return { bodies, manifests };
}

/** Runs rowkeep and looks at the highest memory that its process ever had. */
async function rowkeep(...args: string[]): Promise<CliResult & { readonly peakMiB: number }> {
  let peakMiB = 0;
  let watch: NodeJS.Timeout | undefined;
  const result = await runCli([...args, "--json"], {
    home: join(folder.path, "home"),
    env: { NODE_OPTIONS: `--max-old-space-size=${HEAP_MIB}` },
    during: ({ pid }) => {
      watch = setInterval(() => {
        void readFile(`/proc/${pid}/status`, "utf8").then(
          (text) => {
            peakMiB = Math.max(peakMiB, Number(/^VmHWM:\s+(\d+)/m.exec(text)?.[1] ?? 0) / 1024);
          },
          () => undefined,
        );
      }, 20);
    },
  });
  clearInterval(watch);
  return { ...result, peakMiB };
}

describe.each(["local", "gcs"])("many small objects at a destination: %s", (type) => {
  const job = () => join(folder.path, `${type}.yaml`);

  test("are listed, verified and pruned in bounded memory", { timeout: 300_000 }, async () => {
    const listed = await rowkeep("list", job());
    const verified = await rowkeep("verify", job());
    const pruned = await rowkeep("prune", job());
    const peaks = [listed, verified, pruned].map(({ peakMiB }) => Math.round(peakMiB));
    console.log(`${OBJECTS} objects, ${type}: list, verify, prune in ${peaks.join(", ")} MiB`);

    expect([listed.exitCode, verified.exitCode, pruned.exitCode], pruned.stderr).toEqual([0, 0, 0]);
    expect(listed.last()["snapshots"]).toHaveLength(SNAPSHOTS);
    expect(pruned.last()["removed"]).toHaveLength(SNAPSHOTS - KEPT);
    expect(Math.max(...peaks)).toBeLessThan(MOST_MIB);
    expect(Math.min(...peaks)).toBeGreaterThan(30);
  });
});
