import { OperationalError } from "../base/errors.ts";
import { assertAvailable } from "../job/availability.ts";
import { keyRingIfAny } from "../job/encryption.ts";
import type { Home } from "../job/home.ts";
import { takeJobLock } from "../job/job-lock.ts";
import type { Job } from "../job/read-job.ts";
import type { SecretSurroundings } from "../job/secrets.ts";
import { hashJobFile, openStateStore } from "../job/state-store.ts";
import { areAllMissing, findPrefixes, noneOpened, openDestinations } from "./open-job.ts";
import type { Report } from "./progress.ts";
import { pruneDatabase, type PruneResult } from "./prune-database.ts";
import { removeGarbage } from "./remove-garbage.ts";
import { hasRetention } from "./retention-at.ts";

export interface PruneJobOptions {
  readonly job: Job;
  readonly home: Home;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly now: () => Date;
  readonly dryRun: boolean;
  readonly acceptMissing: boolean;
  /** A file with secret keys. */
  readonly identity?: string | undefined;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/**
 * Applies the retention of a job to all its databases at all its destinations. A destination that does not answer, and a
 * removal that fails, are warnings; the others go on.
 * A key of the job that is not on this machine is a warning too. Fails with kind `locked`; kind `job`, `no-retention`; kind `refused` (see prune-database.ts); kind `destination` when
 * none can be read.
 */
export async function pruneJob(options: PruneJobOptions): Promise<PruneResult> {
  const { job, home, env, signal, report, now } = options;
  assertAvailable(job);
  if (!hasRetention(job)) throw noRetention(job.name);
  using _lock = await takeJobLock(home, job.name, { command: "prune", now: now() });
  const warnings: string[] = [];
  const warn = (message: string) => {
    warnings.push(message);
  };
  using state = await openStateStore(home, warn);
  const surroundings: SecretSurroundings = { env, folder: job.folder, signal, warn };
  const keys = await keyRingIfAny(job, surroundings, options.identity);
  // A missing folder tells nothing of what was stored there: it is not made, and its destination not pruned.
  await using places = await openDestinations(job, surroundings, { asItIs: true });
  const { destinations, failed } = places;
  const none = noneOpened(failed);
  const areMissing = areAllMissing(places);
  if (destinations.length === 0 && none && !areMissing) throw none;
  const prefixes = await findPrefixes(job.name, destinations, { signal });
  const { lastSuccess } = state.stateOf(job.name, await hashJobFile(job.path));
  if (prefixes.length === 0 && lastSuccess && !options.acceptMissing) throw nothingLeft(job.name, lastSuccess);
  // A job that never ran has no folder, and no snapshots.
  const isNew = areMissing && !lastSuccess;
  for (const { name, error } of isNew ? [] : failed) warn(`${name} was not pruned: ${error.message}`);
  const kept: PruneResult["kept"][number][] = [];
  const removed: PruneResult["removed"][number][] = [];
  for (const prefix of prefixes) {
    const result = await pruneDatabase({ ...options, keys, prefix, destinations, state, now: now() });
    kept.push(...result.kept);
    removed.push(...result.removed);
    warnings.push(...result.warnings);
    if (!options.dryRun) await removeGarbage({ destinations, prefix, now: now(), warn, signal });
  }
  for (const message of warnings) report({ type: "warning", message });
  return { kept, removed, warnings };
}

function noRetention(job: string): OperationalError {
  return new OperationalError(`cannot prune ${job}: it has no retention, so it keeps everything`, {
    kind: "job",
    code: "no-retention",
    hint: "Add one to the job file: retention: { keepDaily: 7, keepWeekly: 4 }.",
  });
}

function nothingLeft(job: string, lastSuccess: string): OperationalError {
  return new OperationalError(
    `cannot prune ${job}: no destination has a snapshot, though the run of ${lastSuccess} made one`,
    {
      kind: "refused",
      code: "suspicious-listing",
      hint: "Look what became of them: a drive that is not mounted, another bucket, somebody who removed them.",
    },
  );
}
