import { resolve } from "node:path";
import type { Job } from "../job/read-job.ts";
import type { Destination } from "../destinations/destination.ts";
import type { Lock } from "../archive/age-keys.ts";
import type { LocatedSnapshot, UnopenedDestination } from "../snapshot/locate-snapshot.ts";
import type { SnapshotReader } from "../snapshot/snapshot-reader.ts";
import type { KeyRing } from "../snapshot/snapshot-key.ts";
import type { JobDatabase } from "../usecases/choose-database.ts";
import type { CliContext } from "./context.ts";

/** A job as the commands that read snapshots need it. Disposal closes the destinations. */
export interface OpenedJob extends AsyncDisposable {
  readonly name: string;
  /** What its file says; without a schedule where that cannot be used. */
  readonly job: Job;
  readonly databases: readonly JobDatabase[];
  /** In the order of the job file; only the one of `--from` when that was given. */
  readonly destinations: readonly Destination[];
  /** What opens encrypted snapshots, as far as the job or `--identity` names it. */
  readonly keys: KeyRing | undefined;
  /** The job names a key, and it is not at hand; people were warned why. */
  readonly isKeyMissing: boolean;
  /** Those that could not be opened; people were warned. */
  readonly unopened: readonly UnopenedDestination[];
  /** People were warned of something: a command that did its work ends with 3. */
  readonly hasWarnings: boolean;
}

export interface OpenJobOptions {
  /** Name of a job in the jobs folder, or path of a job file. */
  readonly job: string;
  /** Value of `--from`. */
  readonly from?: string | undefined;
  /** Value of `--identity`: a file with secret keys. */
  readonly identity?: string | undefined;
  /** A snapshot may be stored at each destination, so a missing folder is made, as a run makes it. */
  readonly stores?: boolean | undefined;
}

/** Reads a job and opens its destinations. A destination that cannot be opened is a warning while another one can. */
export async function openJob(context: CliContext, options: OpenJobOptions): Promise<OpenedJob> {
  const { readJobWithoutSchedule, surroundingsOf } = await import("./job-context.ts");
  const { areAllMissing, openDestinations, findPrefixes, noneOpened } = await import("../usecases/open-job.ts");
  const { databaseOf } = await import("../usecases/database-of.ts");
  const { job, hasWarnings } = await readJobWithoutSchedule(context, options.job);
  const { keys, isMissing } = await keysOf(context, job, options.identity);
  const opened = await openDestinations(job, surroundingsOf(context, job), {
    only: options.from,
    asItIs: !options.stores,
  });
  // A job that never ran has no folder, and no snapshots.
  const isNew = areAllMissing(opened);
  for (const { error } of opened.failed) {
    if (isNew) context.output.note([error.message, error.hint].join(". "));
    else context.output.warn(error.message);
  }
  const unopened = isNew ? [] : opened.failed;
  const none = noneOpened(unopened);
  if (opened.destinations.length === 0 && none) throw none;
  const prefixes = await findPrefixes(job.name, opened.destinations, context);
  return {
    name: job.name,
    job,
    databases: prefixes.map((prefix) => ({ name: databaseOf(job, prefix), prefix })),
    destinations: opened.destinations,
    keys,
    isKeyMissing: isMissing,
    unopened,
    hasWarnings: hasWarnings || unopened.length > 0,
    [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose](),
  };
}

async function keysOf(
  context: CliContext,
  job: Job,
  identity: string | undefined,
): Promise<{ readonly keys: KeyRing | undefined; readonly isMissing: boolean }> {
  if (!job.encryption && identity === undefined) return { keys: undefined, isMissing: false };
  const { surroundingsOf } = await import("./job-context.ts");
  const { keyRingIfAny } = await import("../job/encryption.ts");
  let isMissing = false;
  const surroundings = surroundingsOf(context, job);
  const warn = (message: string) => {
    // With --identity there is another one.
    isMissing = identity === undefined;
    surroundings.warn?.(message);
  };
  const file = identity === undefined ? undefined : resolve(context.cwd, identity);
  return { keys: await keyRingIfAny(job, { ...surroundings, warn }, file), isMissing };
}

/** Gives what a job's snapshots are encrypted to, checked; undefined when they are not. */
export async function lockFor(context: CliContext, job: Job): Promise<Lock | undefined> {
  if (!job.encryption) return undefined;
  const { surroundingsOf } = await import("./job-context.ts");
  const { lockOf } = await import("../job/encryption.ts");
  return lockOf(job, surroundingsOf(context, job));
}

/**
 * Finds the chosen snapshot, as `locateSnapshot` does, and warns of the destinations that were not read. Where people were warned of
 * these, or when the job was opened, it `hasWarnings`: a command that did its work ends with 3 all the same.
 */
export async function locateIn(
  context: CliContext,
  opened: OpenedJob,
  { prefix, name }: { readonly prefix: string; readonly name: string },
): Promise<LocatedSnapshot & { readonly hasWarnings: boolean }> {
  const { locateSnapshot } = await import("../snapshot/locate-snapshot.ts");
  const { destinations, unopened, keys } = opened;
  const where = { destinations, unopened, prefix, keys, signal: context.signal };
  const located = await locateSnapshot({ ...where, choice: { name } });
  return { ...located, hasWarnings: warnOfUnread(context, located) || opened.hasWarnings };
}

/** Warns of what was wrong where these snapshots were read, if anything was. */
export function warnOfPassedOver(
  context: CliContext,
  ...readers: readonly Pick<SnapshotReader, "passedOver">[]
): boolean {
  const told = readers.flatMap(({ passedOver }) => passedOver);
  for (const sentence of told) context.output.warn(sentence);
  return told.length > 0;
}

function warnOfUnread(context: CliContext, { id, failedAt, unread }: LocatedSnapshot): boolean {
  for (const { destination, error } of unread)
    context.output.warn(`${destination.name} was not read: ${error.message}`);
  for (const { destination, error } of failedAt)
    context.output.warn(`${id} was not read at ${destination.name}: ${error.message}`);
  return unread.length + failedAt.length > 0;
}

/** Gives the database that a command works on: that of `--database`, the only one, or the only one that has these snapshots. */
export async function chooseDatabase(
  context: CliContext,
  { name: job, databases, destinations, unopened }: OpenedJob,
  { database: wanted, snapshots }: { readonly database: string | undefined; readonly snapshots: readonly string[] },
): Promise<JobDatabase> {
  const choosing = await import("../usecases/choose-database.ts");
  const { signal } = context;
  return choosing.chooseDatabase({ job, databases, destinations, unopened, wanted, snapshots, signal });
}
