import type { LocatedSnapshot } from "../snapshot/locate-snapshot.ts";
import type { Manifest, StoredTable } from "../snapshot/manifest.ts";
import { type SnapshotSummary, summaryOf } from "../snapshot/snapshot-summary.ts";

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

/** Gives what there is to show of a snapshot. */
export function showSnapshot({ manifest, destinations }: LocatedSnapshot): ShownSnapshot {
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
