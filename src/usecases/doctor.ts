import { formatBytes } from "../base/byte-size.ts";
import { formatPlural } from "../base/counts.ts";
import { OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import { openDestination } from "../destinations/open-destination.ts";
import type { Connection, ServerIdentity } from "../drivers/driver.ts";
import { probeDatabase } from "../drivers/open-driver.ts";
import type { Inspection } from "../drivers/inspection.ts";
import { isSamePlace } from "../drivers/same-database.ts";
import { unavailableIn } from "../job/availability.ts";
import { connectionOf, isLocalHost } from "../job/connection.ts";
import { destinationNameOf } from "../job/destination-name.ts";
import { destinationSettingsOf } from "../job/destination-settings-of.ts";
import { jobKeysOf } from "../job/encryption.ts";
import type { Home } from "../job/home.ts";
import type { Job } from "../job/read-job.ts";
import type { SecretSurroundings } from "../job/secrets.ts";
import { openRepository } from "../snapshot/repository.ts";
import { jobFolder, snapshotPrefix } from "../snapshot/snapshot-prefix.ts";
import { type Check, Checks, type Finding, warningOf } from "./check.ts";
import { checkDatabase } from "./check-database.ts";
import { checkDestination } from "./check-destination.ts";
import { checkDrives, freeBytesAt } from "./check-drives.ts";
import type { Report } from "./progress.ts";
import { databasesOf } from "./run-databases.ts";
import { spoolFolderOf } from "./spool-folder.ts";

export interface DoctorOptions {
  readonly job: Job;
  readonly home: Home;
  readonly env: SecretSurroundings["env"];
  readonly now: () => Date;
  readonly signal: AbortSignal;
  readonly report: Report;
}

export interface Examination {
  readonly checks: readonly Check[];
  /** SQL for each database that lets a login do no more than back it up. */
  readonly grants: readonly { readonly database: string; readonly sql: string }[];
}

/** Volumes of 128 MB that may wait in the spool at once, and as much again. */
const SPOOL_BYTES = 1e9;
const LEFTOVER_AGE_MS = 24 * 3600 * 1000;
const CONNECT_MS = 60_000;

/** Tries everything that a job needs: database, keys, folders, destinations. Failures are results; leaves nothing behind. */
export async function examineJob(options: DoctorOptions): Promise<Examination> {
  const { job, env, signal, report } = options;
  const warnings: string[] = [];
  const surroundings = { env, folder: job.folder, signal, warn: (message: string) => warnings.push(message) };
  const ofJob = new Checks(job.name, signal);
  await ofJob.try("job", async () => jobFinding(job));
  await ofJob.try("encryption", () => encryptionFinding(job, surroundings));
  const databases = await examineDatabases(options, surroundings);
  const dr = await examineDr(options, surroundings, databases.identities);
  const spool = new Checks(spoolFolderOf(job, options.home), signal);
  await spool.try("spool", () => spoolFinding(options));
  const places = await Promise.all(
    job.destinations.map((written, index) => {
      report({ type: "phase", text: `trying ${destinationNameOf(written)}` });
      return examineDestination({ ...options, databases: databases.names }, surroundings, index);
    }),
  );
  const drives = await checkDrives({
    folders: places.flatMap(({ folder }) => folder ?? []),
    isDatabaseHere: databases.isHere,
    dataFolder: databases.dataFolder,
  });
  const ofFiles = [...new Set(warnings)].map((message) => ({
    name: "secrets",
    subject: job.name,
    ...warningOf(message),
  }));
  const ofPlaces = places.flatMap(({ checks }) => checks);
  return {
    checks: [...ofJob.list, ...ofFiles, ...databases.checks, ...dr, ...spool.list, ...ofPlaces, ...drives],
    grants: databases.grants,
  };
}

function jobFinding(job: Job): Finding {
  const missing = unavailableIn(job);
  if (missing.length === 0) return "everything that the job file asks for is available";
  return warningOf(`not available yet: ${missing.join(", ")}`, "Remove it from the job file: rowkeep run refuses it.");
}

async function encryptionFinding(job: Job, surroundings: SecretSurroundings): Promise<Finding> {
  const { lock, keys, missing } = await jobKeysOf(job, surroundings);
  if (!lock) return "the snapshots are not encrypted";
  if ("passphrase" in lock) return missing ? warningOf(missing) : "the passphrase can be read";
  const recipients = formatPlural(lock.recipients.length, "recipient");
  if (missing) {
    return warningOf(
      `${recipients}, and no identity here: ${missing}`,
      "Take identity out of the job on machines that only back up, and give it for a restore: --identity <file>.",
    );
  }
  return keys ? `${recipients}, and the identity opens what is encrypted to them` : `${recipients}; no identity here`;
}

async function spoolFinding({ job, home }: DoctorOptions): Promise<Finding> {
  const free = await freeBytesAt(spoolFolderOf(job, home));
  const message = `${formatBytes(free)} are free for volumes that are being written`;
  return free < SPOOL_BYTES
    ? warningOf(`only ${message}`, "Make room: a run needs up to four volumes of 128 MB.")
    : message;
}

interface ExaminedDatabases extends Examination {
  readonly names: readonly string[];
  /** Of those that could be looked at. */
  readonly identities: readonly ServerIdentity[];
  readonly isHere: boolean;
  readonly dataFolder: string | undefined;
}

async function examineDatabases(
  { job, signal, report }: DoctorOptions,
  surroundings: SecretSurroundings,
): Promise<ExaminedDatabases> {
  const checks: Check[] = [];
  const found: Inspection[] = [];
  let connection: Connection | undefined;
  let names: readonly string[] = [];
  const start = new Checks("source", signal);
  await start.try("connection", async () => {
    report({ type: "phase", text: "trying the database" });
    connection = await connectionOf(job.source, surroundings);
    names = await databasesOf(job, connection, signal);
    return undefined;
  });
  checks.push(...start.list);
  for (const database of connection ? names : []) {
    const one = await checkDatabase({ ...(connection as Connection), database }, job, { signal });
    checks.push(...one.checks);
    if (one.inspection) found.push(one.inspection);
  }
  return {
    checks,
    names,
    identities: found.map(({ identity }) => identity),
    grants: found.map(({ identity, grants }) => ({ database: identity.database, sql: grants })),
    isHere: connection !== undefined && isLocalHost(connection.host),
    dataFolder: found[0]?.dataFolder,
  };
}

/** The disaster-recovery site: only whether it can be reached, since a backup asks nothing of it. */
async function examineDr(
  { job, signal, report }: DoctorOptions,
  surroundings: SecretSurroundings,
  primaries: readonly ServerIdentity[],
): Promise<readonly Check[]> {
  const { dr } = job;
  if (!dr) return [];
  const checks = new Checks("dr", signal);
  await checks.try("connection", async () => {
    report({ type: "phase", text: "trying the dr site" });
    const connection = await connectionOf({ url: dr.url, tls: dr.tls }, surroundings, "dr");
    const { identity } = await probeDatabase(connection, { signal });
    if (primaries.some((primary) => isSamePlace(primary, identity))) {
      return warningOf(`it is the same database as the primary, ${identity.database}`, "Correct dr.url.");
    }
    return `PostgreSQL ${identity.version}, ${identity.database} at ${connection.host}:${connection.port} as ${identity.user}`;
  });
  return checks.list;
}

interface ExaminedPlace {
  readonly checks: readonly Check[];
  /** Where it lies on this machine. */
  readonly folder?: { readonly name: string; readonly path: string };
}

async function examineDestination(
  { job, now, signal, databases }: DoctorOptions & { readonly databases: readonly string[] },
  surroundings: SecretSurroundings,
  index: number,
): Promise<ExaminedPlace> {
  const written = job.destinations[index];
  if (!written) throw new RangeError(`the job has no destination ${index}`);
  const name = destinationNameOf(written);
  const opening = new Checks(name, signal);
  await using stack = new AsyncDisposableStack();
  let opened: { destination: Destination; path: string | undefined } | undefined;
  await opening.try("open", async () => {
    const settings = { ...(await destinationSettingsOf(written, index, surroundings)), name };
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(CONNECT_MS)]);
    const destination = stack.use(await openDestination(settings, { signal: bounded }));
    opened = { destination, path: settings.type === "local" ? settings.path : undefined };
    if (settings.type === "ftp" && settings.tls === "off" && !isLocalHost(settings.host)) {
      return warningOf(
        "it can be reached, but everybody on the way can read password and backups (tls: off)",
        "Set tls: explicit.",
      );
    }
    return "it can be reached";
  });
  if (!opened) return { checks: opening.list };
  const { destination, path } = opened;
  const checks = await checkDestination(destination, { folder: jobFolder(job.name), now, signal });
  const leftovers = new Checks(name, signal);
  if (checks.every(({ status }) => status !== "failed")) {
    await leftovers.try("leftovers", () => leftoverFinding(destination, { job, databases, now, signal }));
  }
  return {
    checks: [...opening.list, ...checks, ...leftovers.list],
    ...(path === undefined ? {} : { folder: { name, path } }),
  };
}

/** What dead runs left: told, not removed; the next run removes what is its own. */
async function leftoverFinding(
  destination: Destination,
  {
    job,
    databases,
    now,
    signal,
  }: Pick<DoctorOptions, "job" | "now" | "signal"> & { readonly databases: readonly string[] },
): Promise<Finding> {
  const age = { olderThanMs: LEFTOVER_AGE_MS, countOnly: true, signal };
  const unfinished = (await destination.removeUnfinished?.(`${jobFolder(job.name)}/`, age)) ?? 0;
  let objects = 0;
  for (const database of databases) {
    const repository = openRepository(destination, snapshotPrefix(job.name, database));
    const garbage = await repository.findGarbage({ now: now(), leaseMs: LEFTOVER_AGE_MS, signal });
    objects += garbage.reduce((sum, { keys }) => sum + keys.length, 0);
  }
  if (unfinished + objects === 0) return "dead runs left nothing";
  return warningOf(
    `dead runs left ${formatPlural(unfinished, "unfinished file")} and ${formatPlural(objects, "object")} without a manifest`,
    `rowkeep run ${job.name} removes them.`,
  );
}

/** The error that the first failed check ends with; undefined when none failed. */
export function firstFailure(checks: readonly Check[]): OperationalError | undefined {
  const failed = checks.find(({ status }) => status === "failed");
  if (!failed) return undefined;
  return failed.error ?? new OperationalError(failed.message, { kind: "destination", code: "failed" });
}
