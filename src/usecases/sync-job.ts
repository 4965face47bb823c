import { openSpool, type Spool } from "../archive/spool.ts";
import { isAbort, OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import { destinationNameOf } from "../job/destination-name.ts";
import type { Home } from "../job/home.ts";
import { takeJobLock } from "../job/job-lock.ts";
import { openReadCopiesStore, type ReadCopiesStore } from "../job/read-copies-store.ts";
import type { Job } from "../job/read-job.ts";
import type { SecretSurroundings } from "../job/secrets.ts";
import { copySnapshot, readGoodParts, type SnapshotCopy } from "../snapshot/copy-snapshot.ts";
import { hasManifest } from "../snapshot/snapshot-folders.ts";
import { databaseOf } from "./database-of.ts";
import {
  chooseDestination,
  findPrefixes,
  noneOpened,
  type OpenedDestinations,
  openDestinations,
  type Patience,
} from "./open-job.ts";
import { type MissedSnapshot, planSync, type SyncPlan } from "./plan-sync.ts";
import type { Report } from "./progress.ts";
import { makeSpoolFolder } from "./spool-folder.ts";

export interface SyncJobOptions {
  readonly job: Job;
  readonly home: Home;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly now: () => Date;
  /** Name of the only destination to copy from. */
  readonly from?: string | undefined;
  /** Tell what is missing where, copy nothing. */
  readonly dryRun: boolean;
  /** Read every manifest, also those that were read before and are listed as they were then. */
  readonly readsAll?: boolean | undefined;
  readonly patience?: Patience | undefined;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/** One snapshot that one destination missed, wholly or in part. */
export interface SyncedSnapshot {
  readonly id: string;
  readonly database: string;
  readonly destination: string;
  readonly status: "planned" | "copied" | "failed";
  /** Destinations that gave volumes, or that could. */
  readonly from: readonly string[];
  /** Volumes that were copied, or must be. */
  readonly volumes: number;
  readonly bytes: number;
  readonly error?: OperationalError | undefined;
}

export interface SyncResult {
  readonly snapshots: readonly SyncedSnapshot[];
  /** How every destination of the job did. A failed one may miss more than `snapshots` says. */
  readonly destinations: readonly {
    readonly name: string;
    readonly status: "complete" | "incomplete" | "failed";
    readonly error?: OperationalError | undefined;
  }[];
  /** Snapshots that differ between destinations, and of which no destination has an undamaged manifest. */
  readonly unknown: SyncPlan["unknown"];
  readonly warnings: readonly string[];
}

/**
 * Copies every snapshot that a destination of a job misses from one that has it, the oldest first, without the database and
 * without a key. Destinations are served side by side, each with its own fate: what fails is in the result.
 * Fails with kind `locked`, `usage` for an unknown `from`, `destination` when no destination can be used.
 */
export async function syncJob(options: SyncJobOptions): Promise<SyncResult> {
  const { job, home, env, signal } = options;
  using _lock = options.dryRun ? undefined : await takeJobLock(home, job.name, { command: "sync", now: options.now() });
  const sync = new Sync(options);
  const surroundings: SecretSurroundings = { env, folder: job.folder, signal, warn: (message) => sync.warn(message) };
  await using places = await openDestinations(
    job,
    { ...surroundings, patience: options.patience },
    { asItIs: options.dryRun },
  );
  // Only for a dry run: else they were made.
  const missing = places.failed.filter(({ error }) => error.code === "not-found" && options.dryRun);
  const failed = places.failed.filter((one) => !missing.includes(one));
  for (const { name, error } of missing) sync.warnOfMissing(name, error);
  for (const { name, error } of failed) sync.fail(name, error);
  const destinations = [...places.destinations, ...missing.map(emptyDestination)];
  const none = noneOpened(failed);
  if (destinations.length === 0 && none) throw none;
  options.report({ type: "phase", text: "comparing destinations" });
  using memory = await openReadCopiesStore(home, options.now());
  await using spool = options.dryRun ? undefined : await openSpool(await makeSpoolFolder(job, home));
  for (const prefix of await findPrefixes(job.name, destinations, { signal })) {
    await sync.syncDatabase(prefix, destinations, { spool, memory });
  }
  return sync.result();
}

class Sync {
  readonly #options: SyncJobOptions;
  readonly #source: string | undefined;
  readonly #unknown: SyncPlan["unknown"][number][] = [];
  readonly #snapshots: SyncedSnapshot[] = [];
  readonly #failed = new Map<string, OperationalError>();
  readonly #warnings = new Set<string>();

  constructor(options: SyncJobOptions) {
    this.#options = options;
    this.#source = options.from === undefined ? undefined : chooseDestination(options.job, options.from);
  }

  warn(message: string): void {
    if (this.#warnings.has(message)) return;
    this.#warnings.add(message);
    this.#options.report({ type: "warning", message });
  }

  fail(name: string, error: OperationalError): void {
    if (!this.#failed.has(name)) this.#failed.set(name, error);
    this.warn(`${name} was not completed: ${error.message}`);
  }

  /** A sync makes the folder and copies everything to it, which is not what people want while its drive is away. */
  warnOfMissing(name: string, error: OperationalError): void {
    if (name === this.#source) this.fail(name, error);
    else this.warn(`${error.message}; sync makes it: look first whether its drive is mounted`);
  }

  /** Without the only source there is nothing to do. */
  #assertSource(): void {
    const error = this.#source === undefined ? undefined : this.#failed.get(this.#source);
    if (error) throw error;
  }

  async syncDatabase(
    prefix: string,
    destinations: readonly Destination[],
    { spool, memory }: { readonly spool: Spool | undefined; readonly memory: ReadCopiesStore | undefined },
  ): Promise<void> {
    const { readsAll, signal } = this.#options;
    const usable = destinations.filter(({ name }) => !this.#failed.has(name));
    const plan = await planSync({
      destinations: usable,
      prefix,
      isSource: ({ name }) => this.#source === undefined || name === this.#source,
      onUnread: (destination, error) => this.fail(destination.name, error),
      onDamaged: (error) => this.warn(error.message),
      memory,
      readsAll,
      signal,
    });
    this.#assertSource();
    this.#unknown.push(...plan.unknown);
    for (const { id, error } of plan.unknown) this.warn(`${id} cannot be copied: ${error.message}`);
    if (spool === undefined) this.#announce(plan.missed, prefix);
    else await Promise.all(usable.map((target) => this.#serve(target, plan.missed, { prefix, spool })));
  }

  result(): SyncResult {
    this.#assertSource();
    const { job } = this.#options;
    return {
      snapshots: this.#snapshots.toSorted((left, right) => (left.id < right.id ? -1 : left.id > right.id ? 1 : 0)),
      destinations: job.destinations.map((written) => {
        const name = destinationNameOf(written);
        const error = this.#failed.get(name);
        const isIncomplete = this.#snapshots.some(
          ({ destination, status }) => destination === name && status !== "copied",
        );
        if (error) return { name, status: "failed", error };
        return { name, status: isIncomplete ? "incomplete" : "complete" };
      }),
      unknown: this.#unknown,
      warnings: [...this.#warnings],
    };
  }

  #announce(missed: readonly MissedSnapshot[], prefix: string): void {
    for (const one of missed) this.#snapshots.push({ ...this.#describe(one, prefix), status: "planned" });
  }

  /** One destination, one snapshot behind the other: whole ones come soon, and bases before what refers to them. */
  async #serve(
    target: Destination,
    missed: readonly MissedSnapshot[],
    where: { readonly prefix: string; readonly spool: Spool },
  ): Promise<void> {
    for (const one of missed) {
      if (one.target.destination !== target) continue;
      const described = this.#describe(one, where.prefix);
      if (this.#failed.has(target.name)) {
        this.#snapshots.push({ ...described, status: "failed", volumes: 0, bytes: 0 });
        continue;
      }
      this.#snapshots.push(await this.#copy(one, described, where));
    }
  }

  async #copy(
    { id, listed, sources, target }: MissedSnapshot,
    described: Omit<SyncedSnapshot, "status">,
    where: { readonly prefix: string; readonly spool: Spool },
  ): Promise<SyncedSnapshot> {
    const { report, signal } = this.#options;
    const { prefix } = where;
    const onFailure = (error: OperationalError) => this.warn(error.message);
    report({ type: "phase", text: `copying ${id} to ${target.destination.name}` });
    try {
      // Read once more: the manifests of all snapshots together could be too much to keep.
      const parts = await readGoodParts({ id, prefix, signal, onFailure }, listed);
      const copied = await copySnapshot({
        ...where,
        id,
        parts,
        sources,
        target,
        onFailure,
        onBytes: (bytes) => report({ type: "stored", bytes }),
        signal,
      });
      return { ...described, ...copied, status: "copied" };
    } catch (error) {
      signal.throwIfAborted();
      if (isAbort(error) || !(error instanceof OperationalError)) throw error;
      // What no source has right is no fault of the target: the other snapshots may be good.
      if (isOfSnapshot(error)) this.warn(`${id} was not copied to ${target.destination.name}: ${error.message}`);
      else this.fail(target.destination.name, error);
      return { ...described, status: "failed", volumes: 0, bytes: 0, error };
    }
  }

  #describe({ id, target, sources, lacking }: MissedSnapshot, prefix: string): Omit<SyncedSnapshot, "status"> {
    return {
      id,
      database: databaseOf(this.#options.job, prefix),
      destination: target.destination.name,
      from: namesOf(sources.filter(({ folder }) => hasManifest(folder))),
      volumes: lacking.length,
      bytes: lacking.reduce((sum, { size }) => sum + size, 0),
    };
  }
}

/** Stands for a folder that only a sync would make: there is nothing in it. */
function emptyDestination({ name, error }: OpenedDestinations["failed"][number]): Destination {
  const refuse = () => Promise.reject(error);
  return {
    name,
    put: refuse,
    get: () => {
      throw error;
    },
    stat: async () => undefined,
    async *list() {},
    remove: refuse,
    [Symbol.asyncDispose]: async () => {},
  };
}

/** Tells a failure that concerns one snapshot from one that the next snapshot would meet as well. */
function isOfSnapshot(error: OperationalError): boolean {
  return error.code === "no-good-source" || error.kind === "archive";
}

function namesOf(copies: readonly SnapshotCopy[]): readonly string[] {
  return copies.map(({ destination }) => destination.name);
}
