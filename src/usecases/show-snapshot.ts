import type { SnapshotChoice } from "../snapshot/find-snapshot.ts";
import { type LocateOptions, locateSnapshot } from "../snapshot/locate-snapshot.ts";
import type { Manifest, StoredTable } from "../snapshot/manifest.ts";
import { type SnapshotSummary, summaryOf } from "../snapshot/snapshot-summary.ts";
import type { Report } from "./progress.ts";

export interface ShowSnapshotOptions extends LocateOptions {
  readonly choice: SnapshotChoice;
  readonly report: Report;
}

export interface ShownSnapshot {
  readonly snapshot: SnapshotSummary &
    Pick<Manifest, "finishedAt" | "rowkeepVersion" | "compression" | "carriedOver" | "notCaptured" | "warnings"> & {
      readonly destinations: readonly string[];
      readonly volumes: number;
      readonly files: number;
      readonly largeObjects: number;
    };
  readonly tables: readonly Pick<
    StoredTable,
    "schema" | "name" | "rows" | "rawBytes" | "storedBytes" | "method" | "reason"
  >[];
}

/** Shows one snapshot. Fails as `locateSnapshot` does. */
export async function showSnapshot(options: ShowSnapshotOptions): Promise<ShownSnapshot> {
  const { manifest, destinations, unread } = await locateSnapshot(options);
  for (const { destination, error } of unread) {
    options.report({ type: "warning", message: `${destination.name} was not read: ${error.message}` });
  }
  const { finishedAt, rowkeepVersion, compression, carriedOver, notCaptured, warnings } = manifest;
  return {
    snapshot: {
      ...summaryOf(manifest),
      finishedAt,
      rowkeepVersion,
      compression,
      ...(carriedOver ? { carriedOver } : {}),
      notCaptured,
      warnings,
      destinations: destinations.map(({ name }) => name),
      volumes: manifest.volumes.length,
      files: manifest.files.length,
      largeObjects: manifest.largeObjects.count,
    },
    tables: manifest.tables.map(({ schema, name, rows, rawBytes, storedBytes, method, reason }) => ({
      schema,
      name,
      rows,
      rawBytes,
      storedBytes,
      method,
      ...(reason ? { reason } : {}),
    })),
  };
}
