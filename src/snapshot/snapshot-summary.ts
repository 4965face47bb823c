import type { OperationalError } from "../base/errors.ts";
import type { Anomaly, Manifest } from "./manifest.ts";
import type { RetentionFacts } from "./retention-facts.ts";

/**
 * When a snapshot was last proved, when bytes of this copy were found damaged, and not good since, when a safety snapshot was put
 * back, when a later restore of its database began that took none, when somebody said that its anomalies are as they should be;
 * kept beside its manifest. ISO 8601.
 */
export interface Marks {
  readonly verifiedAt?: string | undefined;
  readonly damagedAt?: string | undefined;
  readonly drilledAt?: string | undefined;
  readonly undoneAt?: string | undefined;
  /** The transaction of the last `undo` that was about to put it back (PostgreSQL's xid8): it may have been killed. */
  readonly undoingBy?: string | undefined;
  readonly passedAt?: string | undefined;
  readonly acknowledgedAt?: string | undefined;
}

/** What a list of snapshots tells of one. */
export interface SnapshotSummary
  extends Pick<Manifest, "id" | "job" | "database" | "kind" | "createdAt" | "consistency" | "source" | "safetyOf">,
    Omit<Marks, "damagedAt"> {
  /** No retention removes it. */
  readonly pinned?: boolean | undefined;
  /** A volume is missing, or the list is cut short: it shows fewer bytes than the manifest names. Or `verify` found damage. */
  readonly isIncomplete?: boolean | undefined;
  readonly anomalies?: readonly Anomaly[] | undefined;
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
export interface LockedSnapshot extends Omit<Marks, "damagedAt"> {
  readonly id: string;
  readonly pinned?: boolean | undefined;
  /** Bytes of the volumes that are there. */
  readonly storedBytes: number;
  /** Why it is not open: `key-needed` or `wrong-key`. */
  readonly error: OperationalError;
  /** What its envelope tells, which anybody could have written; undefined where it is missing or damaged. */
  readonly envelope?: ClosedEnvelope | undefined;
  /** The list shows less than the envelope names, or `verify` found damage. */
  readonly isIncomplete?: boolean | undefined;
}

export interface ClosedEnvelope {
  readonly sha256: string;
  readonly keyIds: readonly string[];
  /** Undefined where it tells nothing, or something that does not fit the id. */
  readonly facts?: RetentionFacts | undefined;
}

/** A folder with a manifest that cannot be used, and why. */
export interface DamagedSnapshot {
  readonly id: string;
  readonly error: OperationalError;
  readonly pinned?: boolean | undefined;
}

/** The oldest first. */
export interface SnapshotList {
  readonly snapshots: readonly SnapshotSummary[];
  readonly damaged: readonly DamagedSnapshot[];
  readonly locked: readonly LockedSnapshot[];
}

export function summaryOf(manifest: Manifest): SnapshotSummary {
  const { id, job, database, kind, createdAt, consistency, source, safetyOf, tables } = manifest;
  const { references = [], anomalies = [] } = manifest;
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
    ...(references.length > 0 ? { references: references.map((reference) => reference.id) } : {}),
    ...(anomalies.length > 0 ? { anomalies } : {}),
    tables: tables.length,
    rows: tables.reduce((sum, table) => sum + table.rows, 0),
    rawBytes: tables.reduce((sum, table) => sum + table.rawBytes, 0),
    storedBytes: manifest.volumes.reduce((sum, volume) => sum + volume.size, 0),
  };
}
