import type { NoLongerWanted } from "../plan/find-anomalies.ts";
import type { Manifest } from "../snapshot/manifest.ts";
import { type SnapshotSummary, summaryOf } from "../snapshot/snapshot-summary.ts";
import type { DestinationFate } from "../snapshot/snapshot-writer.ts";
import { describeAnomaly } from "./anomaly-brake.ts";
import type { BackUpResult } from "./back-up.ts";

/** One snapshot that a run made. */
export interface MadeSnapshot
  extends Pick<
    SnapshotSummary,
    "id" | "job" | "database" | "kind" | "createdAt" | "consistency" | "tables" | "rows" | "rawBytes" | "storedBytes"
  > {
  /** Why a full was made although an incremental was wanted. */
  readonly reason?: string | undefined;
  /** What the job was changed to leave out: the snapshot before has it. */
  readonly noLongerWanted?: NoLongerWanted | undefined;
  /** What was stored again, so that earlier snapshots which are mostly dead can go; its bytes are among `storedBytes`. */
  readonly carriedOver?: Manifest["carriedOver"];
  readonly durationMs: number;
  readonly destinations: readonly {
    readonly name: string;
    readonly status: "stored" | "failed";
    readonly error?: string;
  }[];
}

/** Gives what people and scripts are told of a snapshot that was just made. */
export function madeSnapshotOf(result: BackUpResult, fates: readonly DestinationFate[]): MadeSnapshot {
  const { manifest } = result;
  // The same numbers as those of a list.
  const { id, job, database, kind, createdAt, consistency, tables, rows, rawBytes, storedBytes } = summaryOf(manifest);
  return {
    id,
    job,
    database,
    kind,
    createdAt,
    consistency,
    tables,
    rows,
    rawBytes,
    storedBytes,
    ...(manifest.carriedOver ? { carriedOver: manifest.carriedOver } : {}),
    durationMs: result.durationMs,
    destinations: fates.map(({ name, status, error }) => ({
      name,
      status,
      ...(error ? { error: error.message } : {}),
    })),
  };
}

/** What people should know of a snapshot that was just made; the destinations first: the history keeps only the first warnings. */
export function warningsOf(result: BackUpResult, fates: readonly DestinationFate[]): readonly string[] {
  const missed = fates.filter(({ status }) => status === "failed");
  return [
    ...missed.map(({ name, error }) => `${name} does not have ${result.manifest.id}: ${error?.message ?? "it failed"}`),
    ...result.manifest.notCaptured,
    ...result.manifest.warnings,
    ...(result.manifest.anomalies ?? []).map(describeAnomaly),
  ];
}
