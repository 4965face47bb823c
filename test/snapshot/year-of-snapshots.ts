import { linkSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { renderManifest } from "../../src/snapshot/manifest-text.ts";
import { renderSnapshotId } from "../../src/snapshot/snapshot-id.ts";
import { createFolder, PREFIX, type TestFolder, writeSample } from "./sample-snapshot.ts";

/** When the newest of them was taken. */
export const NEWEST = Date.parse("2026-11-21T02:00:00Z");

export interface YearOptions {
  readonly count: number;
  readonly stepMs: number;
  /** More of them, so that manifests are as large as those of a real database. */
  readonly definitions?: Manifest["definitions"];
}

/** Makes a folder with a job, `shop.yaml`, and fulls of one small database, each a step older than the one before. */
export async function makeYear({ count, stepMs, definitions = [] }: YearOptions): Promise<TestFolder> {
  const folder = await createFolder();
  const sample = await writeSample({ destinations: [folder.destination], spoolFolder: folder.spool });
  const store = join(folder.path, "store", PREFIX);
  for (let index = 1; index < count; index++) {
    const at = new Date(NEWEST - index * stepMs);
    const id = renderSnapshotId(at, "full");
    mkdirSync(join(store, id));
    linkSync(join(store, sample.id, "volume-0001.tar"), join(store, id, "volume-0001.tar"));
    const own = { ...sample, id, createdAt: at.toISOString() };
    const manifest = { ...own, definitions: [...sample.definitions, ...definitions] };
    writeFileSync(join(store, id, "manifest.json"), renderManifest(manifest));
  }
  writeFileSync(
    join(folder.path, "shop.yaml"),
    `version: 1\nname: shop\nsource: { url: "postgres://u@h/shop" }\ndestinations: [{ type: local, path: store }]\n` +
      `retention: { keepHourly: 24, keepDaily: 7, keepWeekly: 4, keepMonthly: 12 }\nschedule: { timezone: Europe/Paris }\n`,
  );
  return folder;
}
