import { hash } from "node:crypto";
import type { ServerIdentity } from "../drivers/driver.ts";
import type { Manifest, SnapshotKind } from "./manifest.ts";
import { parseSnapshotId } from "./snapshot-id.ts";
import { snapshotPrefix } from "./snapshot-prefix.ts";

/** What a retention must know of an encrypted snapshot where there is no key; it stands in the envelope. */
export interface RetentionFacts {
  readonly kind: SnapshotKind;
  readonly createdAt: string;
  /** See `serverIdOf`. */
  readonly server: string;
  readonly references: readonly string[];
  /** Taken by a restore of what it was about to replace. */
  readonly isSafety: boolean;
  /** Whether tables shrank or vanished, and not which. */
  readonly hasAnomalies: boolean;
}

/** Gives what the envelope of a snapshot tells of its manifest. */
export function retentionFactsOf(manifest: Manifest): RetentionFacts {
  return {
    kind: manifest.kind,
    createdAt: manifest.createdAt,
    server: serverIdOf(manifest),
    references: (manifest.references ?? []).map(({ id }) => id),
    isSafety: manifest.safetyOf !== undefined,
    hasAnomalies: (manifest.anomalies ?? []).length > 0,
  };
}

/** Names the server of a snapshot without giving it away: snapshots of another one are not for a job to remove. */
export function serverIdOf(snapshot: {
  readonly source: ServerIdentity;
  readonly job: string;
  readonly database: string;
}): string {
  const { engine, systemIdentifier, host, port } = snapshot.source;
  const server = `${engine}:${systemIdentifier ?? `${host}:${port}`}`;
  return hash("sha256", `${snapshotPrefix(snapshot.job, snapshot.database)}\n${server}`).slice(0, 32);
}

/** Tells whether facts fit the folder in which they lie: one that was renamed, or another one's envelope, does not. */
export function fitsId({ kind, createdAt, references }: RetentionFacts, text: string): boolean {
  const id = parseSnapshotId(text);
  if (!id || id.kind !== kind || references.some((one) => one === text || !parseSnapshotId(one))) return false;
  return Math.floor(Date.parse(createdAt) / 1000) * 1000 === id.takenAt.getTime();
}
