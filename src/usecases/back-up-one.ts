import { join } from "node:path";
import { parseByteSize } from "../base/byte-size.ts";
import { messageOf, OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import type { Home } from "../job/home.ts";
import type { Job } from "../job/read-job.ts";
import { openSummaryStore } from "../job/summary-store.ts";
import type { EarlierSnapshot } from "../plan/plan-carry-over.ts";
import type { Manifest } from "../snapshot/manifest.ts";
import type { KeyRing } from "../snapshot/snapshot-key.ts";
import { snapshotPrefix } from "../snapshot/snapshot-prefix.ts";
import type { SnapshotSummary } from "../snapshot/snapshot-summary.ts";
import type { DestinationFate } from "../snapshot/snapshot-writer.ts";
import { ownEncodingOf } from "../snapshot/own-encoding.ts";
import type { Brake } from "./anomaly-brake.ts";
import { type BackUpOptions, type BackUpResult, backUp } from "./back-up.ts";
import { chooseBase, type ChooseBaseOptions, type ChosenBase } from "./choose-base.ts";
import { type BaseKeeper, openBaseKeeper } from "./keep-base.ts";
import type { Report } from "./progress.ts";
import type { BaseSnapshot } from "./reuse-chunks.ts";
import type { FindOnlyForOthers } from "./retention-at.ts";
import { makeSpoolFolder, resolveFrom } from "./spool-folder.ts";

/** Streams of a job that says nothing of them. */
export const DEFAULT_PARALLEL = 2;

export interface OneBackUpOptions {
  readonly job: Job;
  /** Default: full. An incremental without a snapshot to build on becomes a full. */
  readonly kind?: "full" | "incremental" | undefined;
  /** Has the server hash what must else be read again; left out: where that is faster. */
  readonly serverHash?: boolean | undefined;
  readonly home: Home;
  readonly stallTimeoutMs: number;
  readonly signal: AbortSignal;
  readonly report: Report;
}

interface OneDatabase
  extends Pick<
    BackUpOptions,
    "choose" | "connection" | "early" | "lock" | "destinations" | "otherIds" | "onBegin" | "onTaken"
  > {
  readonly keys: KeyRing | undefined;
  readonly brake: Brake;
  /** What an incremental shall not need any more where it is mostly dead; left out: nothing. */
  readonly onlyForOthersAt?: FindOnlyForOthers | undefined;
  readonly warn: (message: string) => void;
}

interface OneResult {
  readonly result: BackUpResult;
  readonly reason?: string | undefined;
  /** Destinations that could not be asked what they have. */
  readonly unread: readonly DestinationFate[];
}

/**
 * Backs up one database of a job, as an incremental where that is wanted and can be. Where what it builds on turns out to be
 * damaged, or another machine removes it before the new one is complete, a full is made instead.
 */
export async function backUpOne(options: OneBackUpOptions, one: OneDatabase): Promise<OneResult> {
  const wanted = options.kind === "incremental";
  try {
    return await tryBackUp(options, one, wanted);
  } catch (error) {
    options.signal.throwIfAborted();
    if (!wanted || !(error instanceof OperationalError) || !isOfBase(error)) throw error;
    const full = await tryBackUp(options, one, false);
    return { ...full, reason: error.message };
  }
}

/** A run reads nothing of an archive but the snapshot that it builds on. */
function isOfBase({ kind, code }: OperationalError): boolean {
  return kind === "archive" || code === "missing-reference";
}

async function tryBackUp(options: OneBackUpOptions, one: OneDatabase, wanted: boolean): Promise<OneResult> {
  const { job, home, signal, report } = options;
  const { connection, early, lock, keys } = one;
  const prefix = snapshotPrefix(job.name, connection.database);
  const track = options.kind === "incremental" || job.schedule?.incremental !== undefined;
  const keeper = openBaseKeeper(join(home.state, "bases", ...prefix.split("/")));
  if (wanted) report({ type: "phase", text: "looking for the snapshot to build on" });
  const { base, reason, earlier, destinations, unread } = wanted
    ? await chooseKnownBase(home, {
        destinations: one.destinations,
        prefix,
        lock,
        keys,
        keeper,
        read: one.brake.read,
        signal,
      })
    : { ...NO_BASE, destinations: one.destinations };
  const mustRemember = track && lock !== undefined && keys === undefined;
  const result = await backUp({
    connection,
    early,
    lock,
    choose: one.choose,
    parallel: job.parallel ?? DEFAULT_PARALLEL,
    stallTimeoutMs: options.stallTimeoutMs,
    destinations,
    job: job.name,
    prefix,
    compression: compressionOf(job),
    files: (job.files ?? []).map((path) => resolveFrom(job.folder, path)),
    spoolFolder: await makeSpoolFolder(job, home),
    findAnomalies: one.brake.findAnomalies,
    otherIds: one.otherIds,
    onBegin: one.onBegin,
    onTaken: one.onTaken,
    volumeBytes: job.volumeSize === undefined ? undefined : parseByteSize(job.volumeSize),
    track,
    base,
    earlier: one.onlyForOthersAt && earlierFor(destinations, earlier, one.onlyForOthersAt),
    serverHash: options.serverHash ? "always" : hasNearBase(job, destinations) ? "on-slow-links" : undefined,
    keeper: mustRemember ? keeper : undefined,
    signal,
    report,
  });
  if (mustRemember) await remember(keeper, result.manifest, base, one.warn);
  return { result, reason: reason ?? (base && whyNotIncremental(result.manifest)), unread };
}

function whyNotIncremental(manifest: Manifest): string | undefined {
  if (manifest.kind === "incremental") return undefined;
  return `text that has no equivalent in UTF-8 came to the database, so all of it is kept in ${ownEncodingOf(manifest)} now`;
}

async function chooseKnownBase(home: Home, options: ChooseBaseOptions): Promise<ChosenBase> {
  using cache = await openSummaryStore(home);
  return await chooseBase({ ...options, cache });
}

/** To compare hashes the base is read: from a far destination that takes as long as reading the database. */
function hasNearBase(job: Job, { length }: readonly Destination[]): boolean {
  return job.destinations[0]?.type === "local" && length === job.destinations.length;
}

const NO_BASE = { base: undefined, reason: undefined, earlier: [], unread: [] };

/**
 * One that is wanted for itself at any of the destinations stays there whatever the new snapshot does, and so does what a pinned one
 * needs: a pin at one of them holds at all.
 */
function earlierFor(
  destinations: readonly Destination[],
  summaries: readonly SnapshotSummary[],
  onlyForOthersAt: FindOnlyForOthers,
): ReadonlyMap<string, EarlierSnapshot> {
  const dispensable = destinations.map(({ name }) => onlyForOthersAt(name));
  const pinned = new Set(
    summaries.filter((one) => one.pinned).flatMap(({ id, references = [] }) => [id, ...references]),
  );
  const earlier = new Map<string, EarlierSnapshot>();
  for (const { id, references = [], storedBytes } of summaries) {
    const staysOnlyForOthers = !pinned.has(id) && dispensable.every((ids) => ids.has(id));
    earlier.set(id, { references, volumeBytes: storedBytes, staysOnlyForOthers });
  }
  return earlier;
}

/** Without it the next incremental is a full: no reason to fail. */
async function remember(
  keeper: BaseKeeper,
  manifest: Manifest,
  base: BaseSnapshot | undefined,
  warn: (message: string) => void,
): Promise<void> {
  try {
    await keeper.keep(manifest, base?.reader);
  } catch (error) {
    warn(`the next incremental will be a full: what it needs could not be kept on this machine: ${messageOf(error)}`);
  }
}

function compressionOf(job: Job): Manifest["compression"] {
  const codec = job.compression?.codec ?? "zstd";
  return { codec, level: job.compression?.level ?? (codec === "gzip" ? 6 : 2) };
}
