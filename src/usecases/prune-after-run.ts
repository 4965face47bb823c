import { OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import type { Home } from "../job/home.ts";
import type { Job } from "../job/read-job.ts";
import type { StateStore } from "../job/state-store.ts";
import { MAX_CLOCK_SKEW_MS } from "../plan/plan-retention.ts";
import type { KeyRing } from "../snapshot/snapshot-key.ts";
import { serverIdOf } from "../snapshot/retention-facts.ts";
import type { Brake } from "./anomaly-brake.ts";
import type { BackUpResult } from "./back-up.ts";
import type { Report } from "./progress.ts";
import { pruneDatabase, type PruneResult } from "./prune-database.ts";
import { hasRetention } from "./retention-at.ts";

export interface PruneAfterRunOptions {
  readonly job: Job;
  readonly home: Home;
  readonly prefix: string;
  readonly destinations: readonly Destination[];
  readonly state: StateStore;
  /** When the run of this database began, by this machine's clock; the snapshot was taken between then and `now`. */
  readonly startedAt: Date;
  readonly now: Date;
  readonly result: BackUpResult;
  readonly brake: Brake;
  /** What opens encrypted snapshots, where there is something. */
  readonly keys?: KeyRing | undefined;
  readonly warn: (message: string) => void;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/**
 * Remembers where the new snapshot is, and applies the retention of the job there and nowhere else. Whatever keeps it
 * from doing so is a warning: the snapshot is good all the same. Gives what was removed.
 */
export async function pruneAfterRun(options: PruneAfterRunOptions): Promise<PruneResult["removed"]> {
  const { job, prefix, state, result, brake, warn, signal } = options;
  const stored = new Set(result.destinations.filter(({ status }) => status === "stored").map(({ name }) => name));
  for (const name of stored) state.addStored(prefix, name, result.manifest.id);
  if (result.envelopeSha256 !== undefined) {
    const { id, tables } = result.manifest;
    state.addEncrypted(prefix, { id, envelopeSha256: result.envelopeSha256, tables });
  }
  if (result.manifest.anomalies?.length) state.addBrake(prefix, result.manifest.id);
  if (!hasRetention(job)) {
    if (brake.problem) warn(`the new snapshot could not be compared with the one before: ${brake.problem}`);
    return [];
  }
  const reason = reasonToWait(options);
  if (reason !== undefined) {
    warn(`nothing was pruned: ${reason}`);
    return [];
  }
  try {
    const only = options.destinations.filter(({ name }) => stored.has(name));
    const server = serverIdOf(result.manifest);
    const pruned = await pruneDatabase({ ...options, only, server, dryRun: false, acceptMissing: false });
    pruned.warnings.forEach(warn);
    return pruned.removed;
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof OperationalError)) throw error;
    warn(`nothing was pruned: ${error.hint ? `${error.message}. ${error.hint}` : error.message}`);
    return [];
  }
}

function reasonToWait({ job, result, brake, startedAt, now }: PruneAfterRunOptions): string | undefined {
  if (result.manifest.anomalies?.length) {
    return `older snapshots may hold what was lost; if all is well, rowkeep acknowledge ${job.name}`;
  }
  if (brake.problem) return `the new snapshot could not be compared with the one before: ${brake.problem}`;
  const takenAt = Date.parse(result.manifest.createdAt);
  const early = startedAt.getTime() - takenAt;
  const late = takenAt - now.getTime();
  if (Math.max(early, late) <= MAX_CLOCK_SKEW_MS) return undefined;
  return `the clocks of the server and of this machine differ by ${Math.round(Math.max(early, late) / 60_000)} minutes`;
}
