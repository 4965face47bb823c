import type { OperationalError } from "../base/errors.ts";
import type { Manifest } from "./manifest.ts";

/** When a snapshot was last proved, and when a safety snapshot was put back; kept beside its manifest. ISO 8601. */
export interface Marks {
  readonly verifiedAt?: string | undefined;
  readonly drilledAt?: string | undefined;
  readonly undoneAt?: string | undefined;
}

/** What a list of snapshots tells of one. */
export interface SnapshotSummary
  extends Pick<Manifest, "id" | "job" | "database" | "kind" | "createdAt" | "consistency" | "source" | "safetyOf">,
    Marks {
  readonly encrypted: boolean;
  readonly tables: number;
  readonly rows: number;
  readonly rawBytes: number;
  /** Ids of the earlier snapshots that it needs: while it is kept, they are. Missing: none. */
  readonly references?: readonly string[] | undefined;
  /** Bytes of all its own volumes. */
  readonly storedBytes: number;
}

/** A snapshot that is encrypted to a key that nobody gave: what can be known without it. */
export interface LockedSnapshot extends Marks {
  readonly id: string;
  /** Bytes of the volumes that are there. */
  readonly storedBytes: number;
  /** Why it is not open: `key-needed` or `wrong-key`. */
  readonly error: OperationalError;
}

/** A folder with a manifest that cannot be used, and why. */
export interface DamagedSnapshot {
  readonly id: string;
  readonly error: OperationalError;
}

/** The oldest first. */
export interface SnapshotList {
  readonly snapshots: readonly SnapshotSummary[];
  readonly damaged: readonly DamagedSnapshot[];
  readonly locked: readonly LockedSnapshot[];
}

export function summaryOf(manifest: Manifest): SnapshotSummary {
  const { id, job, database, kind, createdAt, consistency, source, safetyOf, tables } = manifest;
  return {
    id,
    job,
    database,
    kind,
    createdAt,
    consistency,
    source,
    encrypted: manifest.encryption !== undefined,
    ...(safetyOf ? { safetyOf } : {}),
    ...(manifest.references ? { references: manifest.references.map((reference) => reference.id) } : {}),
    tables: tables.length,
    rows: tables.reduce((sum, table) => sum + table.rows, 0),
    rawBytes: tables.reduce((sum, table) => sum + table.rawBytes, 0),
    storedBytes: manifest.volumes.reduce((sum, volume) => sum + volume.size, 0),
  };
}
