import type { Anomaly } from "../snapshot/manifest.ts";
import { listEverywhere, type LocateOptions } from "../snapshot/locate-snapshot.ts";
import type { Report } from "./progress.ts";

export interface ListSnapshotsOptions extends LocateOptions {
  readonly report: Report;
}

export interface ListedSnapshot {
  readonly id: string;
  readonly job: string;
  readonly database: string;
  readonly kind: "full" | "incremental";
  readonly createdAt: string;
  readonly consistency: "snapshot" | "per-table" | "none";
  readonly tables: number;
  readonly rows: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  /** Names of the destinations that have it. */
  readonly destinations: readonly string[];
  readonly verifiedAt?: string | undefined;
  readonly drilledAt?: string | undefined;
  readonly pinned: boolean;
  /** Tables that lost more rows than the job calls normal. */
  readonly anomalies?: readonly Anomaly[] | undefined;
  /** When somebody said that this is as it should be. */
  readonly acknowledgedAt?: string | undefined;
  /** The snapshot whose restore made this safety snapshot. */
  readonly safetyOf?: string | undefined;
}

export interface ListedSnapshots {
  /** The oldest first. */
  readonly snapshots: readonly ListedSnapshot[];
  /** One sentence for each snapshot that is damaged somewhere and each destination that could not be read. */
  readonly warnings: readonly string[];
}

/** Lists the snapshots of one database of a job. Fails with kind `destination` when no destination can be read. */
export async function listSnapshots(options: ListSnapshotsOptions): Promise<ListedSnapshots> {
  const { snapshots, damaged, unread } = await listEverywhere(options);
  const warnings = [
    ...snapshots.flatMap(({ id, incompleteAt }) =>
      incompleteAt.map(({ name }) => `${id} at ${name} lacks volumes: rowkeep verify tells more`),
    ),
    ...unread.map(({ destination, error }) => `${destination.name} is not in the list: ${error.message}`),
    ...damaged.map(({ id, destination, error }) => `${id} at ${destination.name} is damaged: ${error.message}`),
  ];
  for (const message of warnings) options.report({ type: "warning", message });
  return {
    snapshots: snapshots.map(
      ({ source: _source, safetyOf, destinations, incompleteAt: _lacking, pinned, ...summary }) => ({
        ...summary,
        destinations: destinations.map(({ name }) => name),
        pinned: pinned === true,
        ...(safetyOf ? { safetyOf: safetyOf.restoredSnapshot } : {}),
      }),
    ),
    warnings,
  };
}
