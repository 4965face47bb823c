import { chownSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { makeLimit } from "../../src/base/limit.ts";
import type { ChunkRef } from "../../src/snapshot/manifest.ts";
import { renderManifest } from "../../src/snapshot/manifest-text.ts";
import { bytesOf } from "../../src/snapshot/object-bytes.ts";
import { renderSnapshotId } from "../../src/snapshot/snapshot-id.ts";
import { openSampleWriter, PREFIX, type TestFolder, writeSample } from "../snapshot/sample-snapshot.ts";
import { NEWEST } from "../snapshot/year-of-snapshots.ts";
import type { DestinationType, SixDestinations } from "./six-destinations.ts";

/** With the manifest a hundred objects for each snapshot. */
const VOLUMES = 99;
const STEP_MS = 8 * 3_600_000;
const PUTS_AT_ONCE = 32;

/** Many snapshots of the same many small volumes. */
export interface ManySnapshots {
  /** Names and bytes of the volumes of each. */
  readonly volumes: readonly (readonly [name: string, bytes: Buffer])[];
  /** Manifests by id. */
  readonly manifests: ReadonlyMap<string, Buffer>;
}

/** Makes one snapshot of 99 small volumes under many ids, a hundred objects each. */
export async function makeManySnapshots(folder: TestFolder, count: number): Promise<ManySnapshots> {
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
  const manifests = Array.from({ length: count }, (_, index) => {
    const at = new Date(NEWEST - index * STEP_MS);
    const own = renderSnapshotId(at, "full");
    return [own, Buffer.from(renderManifest({ ...manifest, id: own, createdAt: at.toISOString() }))] as const;
  });
  return {
    volumes: names.map((name) => [name, readFileSync(join(path, name))] as const),
    manifests: new Map(manifests),
  };
}

/** Puts them at a destination, past the server where that is faster: nobody measures this. */
export async function storeManySnapshots(
  snapshots: ManySnapshots,
  six: SixDestinations,
  { type, place }: { readonly type: DestinationType; readonly place: string },
): Promise<void> {
  const { path } = six.written(type, place);
  if (type === "gcs") return storeInFake(snapshots, six, place);
  if (typeof path === "string") return storeInFolder(snapshots, path);
  const signal = new AbortController().signal;
  await using destination = await six.open(type, place);
  const limit = makeLimit(PUTS_AT_ONCE);
  for (const [id, manifest] of snapshots.manifests) {
    const objects = objectsOf(snapshots, manifest);
    const put = ([name, bytes]: readonly [string, Buffer]) =>
      destination.put(`${PREFIX}/${id}/${name}`, () => bytesOf(bytes), { size: bytes.length, signal });
    await Promise.all(objects.map((object) => limit(() => put(object))));
  }
}

function objectsOf({ volumes }: ManySnapshots, manifest: Buffer): ManySnapshots["volumes"] {
  return [...volumes, ["manifest.json", manifest]];
}

function storeInFake(snapshots: ManySnapshots, { gcs }: SixDestinations, place: string): void {
  let generation = 1;
  const [created, storageClass] = [new Date(NEWEST), "STANDARD"];
  for (const [id, manifest] of snapshots.manifests) {
    for (const [name, bytes] of objectsOf(snapshots, manifest)) {
      gcs.objects.set(`${place}/${PREFIX}/${id}/${name}`, { bytes, generation: generation++, storageClass, created });
    }
  }
}

/** All of it belongs to whom the folder above belongs to: the user as whom its server runs. */
function storeInFolder(snapshots: ManySnapshots, path: string): void {
  const { uid, gid } = statSync(dirname(path));
  const own = (made: string) => chownSync(made, uid, gid);
  const make = (folder: string) => {
    mkdirSync(folder);
    own(folder);
  };
  make(path);
  const parts = PREFIX.split("/");
  for (const [index] of parts.entries()) make(join(path, ...parts.slice(0, index + 1)));
  for (const [id, manifest] of snapshots.manifests) {
    const folder = join(path, PREFIX, id);
    make(folder);
    for (const [name, bytes] of objectsOf(snapshots, manifest)) {
      writeFileSync(join(folder, name), bytes);
      own(join(folder, name));
    }
  }
}
