import { formatPlural } from "../base/counts.ts";
import { codeOf } from "../base/errors.ts";
import { sideBySide } from "../base/side-by-side.ts";
import type { Lock } from "../archive/age-keys.ts";
import type { Destination } from "../destinations/destination.ts";
import type { TrustToken } from "../drivers/change-tracker.ts";
import type {
  ChosenTable,
  Connection,
  DatabaseDescription,
  EarlyConnections,
  Source,
  TableChoice,
} from "../drivers/driver.ts";
import { openSource } from "../drivers/open-driver.ts";
import type { EarlierSnapshot } from "../plan/plan-carry-over.ts";
import { type PlannedTable, planBackup } from "../plan/plan-backup.ts";
import type { Anomaly, ChunkRef, Manifest, SafetyOf, StoredLargeObjects, StoredTable } from "../snapshot/manifest.ts";
import { ownEncodingOf } from "../snapshot/own-encoding.ts";
import { recoverEntries } from "../snapshot/recover-sql.ts";
import { renderRecoverText } from "../snapshot/recover-text.ts";
import { makeSnapshotId } from "../snapshot/snapshot-id.ts";
import { createSnapshotKey } from "../snapshot/snapshot-key.ts";
import { type DestinationFate, openSnapshotWriter } from "../snapshot/snapshot-writer.ts";
import { ROWKEEP_VERSION } from "../snapshot/version.ts";
import { storeFiles } from "./back-up-files.ts";
import { beginAgain } from "./begin-again.ts";
import { carryOver, type ChunkHolders, type ReferringContent } from "./carry-over.ts";
import { convertingWherePossible } from "./keep-encoding.ts";
import type { BaseKeeper } from "./keep-base.ts";
import type { Report } from "./progress.ts";
import { baseOf, type BaseSnapshot, type ChunkSink, reuseChunks } from "./reuse-chunks.ts";
import type { ServerHashUse } from "./server-hash.ts";
import { BATCH_BYTES } from "./store-rows.ts";
import { storeDefinitions } from "./store-definitions.ts";
import { type StoredTables, storeTables } from "./store-tables.ts";

export interface BackUpOptions {
  readonly connection: Connection;
  /** Connections of it that are open, or nearly. */
  readonly early?: EarlyConnections | undefined;
  readonly choose: (table: ChosenTable) => TableChoice;
  readonly parallel: number;
  readonly stallTimeoutMs: number;
  readonly destinations: readonly Destination[];
  readonly job: string;
  /** Folder of the database's snapshots at every destination: `shop/shop`. */
  readonly prefix: string;
  readonly compression: Manifest["compression"];
  /** What the snapshot is encrypted to; undefined: nothing is encrypted. */
  readonly lock?: Lock | undefined;
  /** Files and directories that are kept in the same snapshot. */
  readonly files: readonly string[];
  readonly spoolFolder: string;
  /** Compares the rows that were stored with what is known of earlier ones. */
  readonly findAnomalies?: ((tables: readonly StoredTable[]) => readonly Anomaly[]) | undefined;
  /** Whether large objects are kept too; undefined: they are. */
  readonly largeObjects?: boolean | undefined;
  /** Note what an incremental on this snapshot will need. */
  readonly track?: boolean | undefined;
  /** Keeps text in the encoding of the database; `backUp` decides that by itself. */
  readonly ownEncoding?: boolean | undefined;
  /** Remembers what the next incremental needs, where this machine cannot open what it encrypts. */
  readonly keeper?: BaseKeeper | undefined;
  /** Makes an incremental on this snapshot. */
  readonly base?: BaseSnapshot | undefined;
  /** Those that are there, by id: what is needed of those that are mostly dead is carried over. Left out: of none. */
  readonly earlier?: ReadonlyMap<string, EarlierSnapshot> | undefined;
  /** Whether the server hashes tables whose row headers prove nothing; left out: it never does. */
  readonly serverHash?: ServerHashUse | undefined;
  readonly safetyOf?: SafetyOf | undefined;
  /** See `OpenSourceOptions`. */
  readonly isAwaited?: boolean | undefined;
  /** Gives ids that begin like this and that other databases of the job have, as far as they are known. */
  readonly otherIds?: ((start: string) => readonly string[]) | undefined;
  /** Called with the id before anything is stored. */
  readonly onBegin?: ((id: string) => void) | undefined;
  /** Called with an id that turned out to be somebody else's: nothing below it is ours. */
  readonly onTaken?: ((id: string) => void) | undefined;
  /** Size at which a volume is full; left out: 128 MiB. */
  readonly volumeBytes?: number | undefined;
  readonly signal: AbortSignal;
  readonly report: Report;
}

export interface BackUpResult {
  readonly manifest: Manifest;
  readonly destinations: readonly DestinationFate[];
  /** SHA-256 of the envelope of an encrypted snapshot. */
  readonly envelopeSha256?: string | undefined;
  readonly durationMs: number;
}

/**
 * Takes one snapshot of one database and stores it at every destination. It is listed nowhere before its manifest
 * was stored and read back. Fails with kind `database`, `destination` (all of them failed) or the abort's reason;
 * then nothing that a list or restore would use is left behind.
 */
export async function backUp(options: BackUpOptions): Promise<BackUpResult> {
  const startedAt = performance.now();
  const own = options.base !== undefined && ownEncodingOf(options.base.reader.manifest) !== undefined;
  const attemptIn = (ownEncoding: boolean) => {
    // Its rows are those of the database only in the same encoding.
    const base = ownEncoding === own ? options.base : undefined;
    const attempt = (count: number) => {
      // Without what the attempt before took over from it.
      const fresh = count > 0 && base ? baseOf(base.reader, { isRemembered: base.isRemembered }) : base;
      return backUpUnlessTaken({ ...options, base: fresh, ownEncoding });
    };
    return beginAgain(attempt, options);
  };
  const result = await convertingWherePossible(attemptIn, { ...options, ownEncoding: own });
  return { ...result, durationMs: Math.round(performance.now() - startedAt) };
}

async function backUpUnlessTaken(options: BackUpOptions): Promise<BackUpResult> {
  let begun: string | undefined;
  const onBegin = (id: string) => {
    begun = id;
    options.onBegin?.(id);
  };
  try {
    return await backUpOnce({ ...options, onBegin });
  } catch (error) {
    if (begun !== undefined && codeOf(error) === "id-taken") options.onTaken?.(begun);
    throw error;
  }
}

/** The same with one attempt: it fails with `schema-changed`, `schema-locked` or `id-taken`, too. */
export async function backUpOnce(options: BackUpOptions): Promise<BackUpResult> {
  const startedAt = performance.now();
  const { base, signal, report } = options;
  // Before the database is read: a passphrase takes a second, and a mistake in a key ends the run here.
  const key = options.lock && (await createSnapshotKey(options.lock));
  // A lock of somebody else may be waited for without end: the words must not say that the network is at fault.
  report({ type: "phase", text: `connecting to ${options.connection.database} and locking its tables` });
  const track = options.track || base !== undefined;
  await using source = await openSource(options.connection, { ...options, track, since: base?.reader.manifest.trust });
  const plan = planBackup(source.tables, source.concurrency);
  const kind = base ? "incremental" : "full";
  const id = await makeSnapshotId({ ...options, takenAt: source.takenAt, kind });
  options.onBegin?.(id);
  await using writer = await openSnapshotWriter({ ...options, key, id, createdAt: source.takenAt });
  const { encoding } = source.identity;
  await writer.addPlain("RECOVER.md", Buffer.from(renderRecoverText({ ...options, kind, encoding })));
  report({ type: "phase", text: base ? "reading changes" : "reading rows" });
  announce(plan, report);
  const reusing = source.tracker ? reuseChunks(writer, base) : writer;
  const sink = options.keeper ? options.keeper.watch(reusing) : reusing;
  const { serverHash } = options;
  // A large schema takes seconds to read, in which the server has a processor left for rows.
  const [described, { tables, isBaseDoubted }] = await sideBySide<[DatabaseDescription, StoredTables, unknown]>(
    signal,
    (signal) => [
      storeDefinitions({ source, writer, base, signal }),
      storeTables({ source, sink, plan, base, serverHash, signal, report }),
      // None can be dropped from now on until they are read; and who may not read one is told now.
      source.sequences({ signal }),
    ],
  );
  const description = isBaseDoubted ? await storeDefinitions({ source, writer, signal }) : described;
  const largeObjectCount = options.largeObjects === false ? 0 : description.largeObjects;
  const largeObjects = await storeLargeObjects(source, sink, largeObjectCount, options);
  const { files, warnings } = await storeFiles(sink, options);
  const trust = await trustOf(source);
  const sequences = await source.sequences({ signal });
  // What is left needs nothing of the server, and may take long.
  source.leave();
  const { references, carriedOver, ...chunks } = await settleReferences(
    writer,
    { tables, largeObjects, files },
    options,
  );
  report({ type: "phase", text: "finishing" });
  const content = { settings: source.settings, sequences, ...chunks };
  for (const { name, text } of recoverEntries({ ...content, definitions: description.definitions }))
    await writer.addPlain(name, Buffer.from(text));
  const anomalies = options.findAnomalies?.(tables) ?? [];
  const manifest = (volumes: Manifest["volumes"]): Manifest => ({
    format: "rowkeep-snapshot",
    version: versionOf(content, references),
    id,
    job: options.job,
    database: source.identity.database,
    kind,
    createdAt: source.takenAt.toISOString(),
    finishedAt: new Date().toISOString(),
    rowkeepVersion: ROWKEEP_VERSION,
    source: source.identity,
    consistency: source.consistency,
    ...content,
    compression: options.compression,
    volumes,
    ...(references.length > 0 ? { references } : {}),
    ...(carriedOver ? { carriedOver } : {}),
    ...(trust ? { trust } : {}),
    ...(trust && description.mark ? { definitionsMark: description.mark } : {}),
    definitions: description.definitions,
    notCaptured: description.notCaptured,
    warnings: [...warnings, ...(options.base?.reader.passedOver ?? [])],
    ...(anomalies.length > 0 ? { anomalies } : {}),
    ...(options.safetyOf ? { safetyOf: options.safetyOf } : {}),
  });
  const committed = await writer.commit(manifest);
  return {
    manifest: committed.manifest,
    destinations: committed.destinations,
    envelopeSha256: committed.envelopeSha256,
    durationMs: Math.round(performance.now() - startedAt),
  };
}

function versionOf(content: Pick<Manifest, "settings">, references: readonly unknown[]): Manifest["version"] {
  if (ownEncodingOf(content)) return 3;
  return references.length > 0 ? 2 : 1;
}

async function settleReferences(
  sink: ChunkSink,
  content: ChunkHolders,
  { base, earlier, signal, report }: BackUpOptions,
): Promise<ReferringContent> {
  if (!base || base.isRemembered || !earlier) return { ...content, references: base?.book.references ?? [] };
  return carryOver(content, { base, earlier, sink, signal, report });
}

/** What the server may lose again when it crashes proves nothing. */
async function trustOf({ tracker }: Source): Promise<TrustToken | undefined> {
  if (!tracker || typeof tracker.token === "string") return undefined;
  return (await tracker.isDurable()) ? tracker.token : undefined;
}

function announce(plan: readonly PlannedTable[], report: Report): void {
  const tables = plan.map(({ table }) => ({
    table: `${table.schema}.${table.name}`,
    estimatedRows: table.estimatedRows,
    bytes: table.bytes,
  }));
  report({ type: "plan", tables });
}

async function storeLargeObjects(
  source: Source,
  writer: ChunkSink,
  count: number,
  { signal, report }: Pick<BackUpOptions, "signal" | "report">,
): Promise<StoredLargeObjects> {
  const chunks: ChunkRef[] = [];
  if (count === 0) return { count, chunks };
  report({ type: "phase", text: `reading ${formatPlural(count, "large object")}` });
  for await (const batch of source.largeObjects({ batchBytes: BATCH_BYTES, signal })) {
    const entry = { group: 0, label: "large-objects", segment: 1, index: chunks.length + 1, extension: "tsv" };
    chunks.push(await writer.addChunk(entry, batch.bytes, batch.rows));
  }
  return { count, chunks };
}
