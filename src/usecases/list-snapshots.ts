import type { Anomaly } from "../snapshot/manifest.ts";
import { findBroken } from "../snapshot/find-broken.ts";
import { listEverywhere, type LocateOptions, type PlacedList } from "../snapshot/locate-snapshot.ts";
import { parseSnapshotId } from "../snapshot/snapshot-id.ts";
import type { Report } from "./progress.ts";

export interface ListSnapshotsOptions extends LocateOptions {
  /** Names of both as people wrote them, for snapshots that no key opens; left out: those of the folders. */
  readonly names?: { readonly job: string; readonly database: string } | undefined;
  readonly report: Report;
}

export interface ListedSnapshot {
  readonly id: string;
  readonly job: string;
  readonly database: string;
  readonly kind: "full" | "incremental";
  readonly createdAt: string;
  readonly encrypted: boolean;
  /** Why an encrypted snapshot is closed; then the fields that only its manifest knows are missing. */
  readonly locked?: "key-needed" | "wrong-key" | undefined;
  readonly consistency?: "snapshot" | "per-table" | "none" | undefined;
  readonly tables?: number | undefined;
  readonly rows?: number | undefined;
  readonly rawBytes?: number | undefined;
  readonly storedBytes: number;
  /** Names of the destinations that have it. */
  readonly destinations: readonly string[];
  readonly verifiedAt?: string | undefined;
  readonly drilledAt?: string | undefined;
  readonly pinned: boolean;
  /** Tables that lost more rows than the job calls normal. */
  readonly anomalies?: readonly Anomaly[] | undefined;
  /** Of a locked one only whether there are some is known. */
  readonly hasAnomalies?: boolean | undefined;
  /** When somebody said that this is as it should be. */
  readonly acknowledgedAt?: string | undefined;
  /** The snapshot whose restore made this safety snapshot. */
  readonly safetyOf?: string | undefined;
}

export interface ListedSnapshots {
  /** The oldest first. */
  readonly snapshots: readonly ListedSnapshot[];
  /** One sentence for each snapshot that is damaged somewhere or takes another key, and each destination that could not be read. */
  readonly warnings: readonly string[];
}

/** Lists the snapshots of one database of a job. Fails with kind `destination` when no destination can be read. */
export async function listSnapshots(options: ListSnapshotsOptions): Promise<ListedSnapshots> {
  const { at, snapshots, damaged, locked, unread } = await listEverywhere(options);
  const warnings = [
    ...[...at].flatMap(([{ name }, there]) =>
      [...findBroken(there)].map(
        ([id, lacking]) => `${id} at ${name} needs ${lacking}, which is not there or not whole`,
      ),
    ),
    ...snapshots.flatMap(({ id, incompleteAt }) =>
      incompleteAt.map(({ name }) => `${id} at ${name} is damaged or lacks volumes: rowkeep verify tells more`),
    ),
    ...locked
      .filter(({ isIncomplete }) => isIncomplete)
      .map(
        ({ id, destination }) => `${id} at ${destination.name} is damaged or lacks volumes: rowkeep verify tells more`,
      ),
    ...unread.map(({ destination, error }) => `${destination.name} is not in the list: ${error.message}`),
    ...damaged.map(({ id, destination, error }) => `${id} at ${destination.name} is damaged: ${error.message}`),
    ...locked.filter(({ error }) => error.code === "wrong-key").map(({ error }) => error.message),
  ];
  for (const message of warnings) options.report({ type: "warning", message });
  const open = snapshots.map(
    ({ source: _source, safetyOf, destinations, incompleteAt: _lacking, pinned, ...summary }): ListedSnapshot => ({
      ...summary,
      destinations: destinations.map(({ name }) => name),
      pinned: pinned === true,
      ...(safetyOf ? { safetyOf: safetyOf.restoredSnapshot } : {}),
    }),
  );
  const ids = new Set(open.map(({ id }) => id));
  const closed = listLocked(
    locked.filter(({ id }) => !ids.has(id)),
    options,
  );
  return {
    snapshots: [...open, ...closed].sort((left, right) => (left.createdAt < right.createdAt ? -1 : 1)),
    warnings,
  };
}

/** What the id, the folder and the objects tell of snapshots that no key was given for. */
function listLocked(
  locked: PlacedList["locked"],
  { prefix, names }: Pick<ListSnapshotsOptions, "prefix" | "names">,
): readonly ListedSnapshot[] {
  const [jobFolder = "", databaseFolder = ""] = prefix.split("/");
  const { job, database } = names ?? { job: jobFolder, database: databaseFolder };
  const byId = new Map<string, ListedSnapshot & { readonly destinations: string[] }>();
  const isPinned = new Set(locked.filter(({ pinned }) => pinned).map(({ id }) => id));
  for (const one of locked) {
    const { id, storedBytes, error, destination, envelope, isIncomplete: _lacking, ...marks } = one;
    const known = byId.get(id);
    const parsed = parseSnapshotId(id);
    if (known) byId.set(id, { ...marks, ...known, destinations: [...known.destinations, destination.name] });
    else if (parsed) {
      byId.set(id, {
        id,
        job,
        database,
        kind: parsed.kind,
        createdAt: parsed.takenAt.toISOString(),
        encrypted: true,
        locked: error.code === "wrong-key" ? "wrong-key" : "key-needed",
        storedBytes,
        destinations: [destination.name],
        ...marks,
        ...(envelope?.facts?.hasAnomalies ? { hasAnomalies: true } : {}),
        pinned: isPinned.has(id),
      });
    }
  }
  return [...byId.values()];
}
