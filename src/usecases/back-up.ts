import type { Lock } from "../archive/age-keys.ts";
import { OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import type {
  ChosenTable,
  Connection,
  RowFormat,
  Segment,
  ServerIdentity,
  Source,
  SourceTable,
  TableChoice,
} from "../drivers/driver.ts";
import { openSource } from "../drivers/open-driver.ts";
import { type PlannedTable, planBackup } from "../plan/plan-backup.ts";
import type { Anomaly, ChunkRef, Manifest, StoredLargeObjects, StoredTable } from "../snapshot/manifest.ts";
import { recoverEntries, renderSchemaSql } from "../snapshot/recover-sql.ts";
import { renderRecoverText } from "../snapshot/recover-text.ts";
import { makeSnapshotId } from "../snapshot/snapshot-id.ts";
import { createSnapshotKey } from "../snapshot/snapshot-key.ts";
import { type DestinationFate, openSnapshotWriter, type SnapshotWriter } from "../snapshot/snapshot-writer.ts";
import { ROWKEEP_VERSION } from "../snapshot/version.ts";
import { storeFiles } from "./back-up-files.ts";
import type { Report } from "./progress.ts";

/** Raw bytes of a chunk: small enough to be read alone, large enough to compress well. */
const BATCH_BYTES = 4 * 1024 * 1024;

export interface BackUpOptions {
  readonly connection: Connection;
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
  readonly safetyOf?: { readonly restoredSnapshot: string; readonly target: ServerIdentity } | undefined;
  /** Called with the id before anything is stored. */
  readonly onBegin?: ((id: string) => void) | undefined;
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
  readonly storedBytes: number;
  readonly durationMs: number;
}

/**
 * Takes one full snapshot of one database and stores it at every destination. It is listed nowhere before its manifest
 * was stored and read back. Fails with kind `database`, `destination` (all of them failed) or the abort's reason;
 * then nothing that a list or restore would use is left behind.
 */
export async function backUp(options: BackUpOptions): Promise<BackUpResult> {
  const startedAt = performance.now();
  const { signal, report } = options;
  // Before the database is read: a passphrase takes a second, and a mistake in a key ends the run here.
  const key = options.lock && (await createSnapshotKey(options.lock));
  report({ type: "phase", text: `connecting to ${options.connection.database}` });
  await using source = await openSource(options.connection, options);
  report({ type: "phase", text: "reading definitions" });
  const description = await source.describe({ signal });
  const plan = planBackup(description.tables, source.concurrency);
  const id = await makeSnapshotId({ ...options, takenAt: source.takenAt, kind: "full" });
  options.onBegin?.(id);
  await using writer = await openSnapshotWriter({ ...options, key, id, createdAt: source.takenAt });
  await writer.addPlain("RECOVER.md", Buffer.from(renderRecoverText(options)));
  await writer.addPlain("schema.sql", Buffer.from(renderSchemaSql(description.definitions)));
  announce(plan, report);
  const tables = await storeTables(source, writer, plan, options);
  const largeObjectCount = options.largeObjects === false ? 0 : description.largeObjects;
  const largeObjects = await storeLargeObjects(source, writer, largeObjectCount, options);
  const { files, warnings } = await storeFiles(writer, options);
  const sequences = await source.sequences({ signal });
  report({ type: "phase", text: "finishing" });
  const content = { settings: source.settings, tables, sequences, largeObjects };
  for (const { name, text } of recoverEntries(content)) await writer.addPlain(name, Buffer.from(text));
  const anomalies = options.findAnomalies?.(tables) ?? [];
  const manifest = (volumes: Manifest["volumes"]): Manifest => ({
    format: "rowkeep-snapshot",
    version: 1,
    id,
    job: options.job,
    database: source.identity.database,
    kind: "full",
    createdAt: source.takenAt.toISOString(),
    finishedAt: new Date().toISOString(),
    rowkeepVersion: ROWKEEP_VERSION,
    source: source.identity,
    consistency: source.consistency,
    ...content,
    compression: options.compression,
    volumes,
    definitions: description.definitions,
    notCaptured: description.notCaptured,
    files,
    warnings,
    ...(anomalies.length > 0 ? { anomalies } : {}),
    ...(options.safetyOf ? { safetyOf: options.safetyOf } : {}),
  });
  const committed = await writer.commit(manifest);
  return {
    manifest: committed.manifest,
    destinations: committed.destinations,
    envelopeSha256: committed.envelopeSha256,
    storedBytes: writer.storedBytes,
    durationMs: Math.round(performance.now() - startedAt),
  };
}

function announce(plan: readonly PlannedTable[], report: Report): void {
  const tables = plan.map(({ table }) => ({
    table: `${table.schema}.${table.name}`,
    estimatedRows: table.estimatedRows,
    bytes: table.bytes,
  }));
  report({ type: "plan", tables });
}

/** What is known of one table while its segments are being stored. */
class TableProgress {
  readonly table: SourceTable;
  readonly number: number;
  format: RowFormat = "text";
  segments: { readonly segment: Segment; readonly chunks: ChunkRef[] }[] = [];
  segmentsLeft = 0;
  isStarted = false;

  constructor(table: SourceTable, number: number) {
    this.table = table;
    this.number = number;
  }

  get name(): string {
    return `${this.table.schema}.${this.table.name}`;
  }

  get chunks(): readonly ChunkRef[] {
    return this.segments.flatMap((segment) => segment.chunks);
  }
}

interface SegmentWork {
  readonly progress: TableProgress;
  readonly segment: Segment;
  /** Its number in the table, from 1. */
  readonly number: number;
  readonly format: RowFormat;
  readonly chunks: ChunkRef[];
}

/** Stores the rows of all tables by `concurrency` streams that take segments from one queue. */
async function storeTables(
  source: Source,
  writer: SnapshotWriter,
  plan: readonly PlannedTable[],
  options: BackUpOptions,
): Promise<readonly StoredTable[]> {
  const tables = plan.map(({ table }, index) => new TableProgress(table, index + 1));
  const queue = tables.flatMap((progress, index) =>
    divide(progress, source.segments(progress.table, plan[index]?.pieces ?? 1), "text"),
  );
  const stopped = new AbortController();
  const signal = AbortSignal.any([options.signal, stopped.signal]);
  const stream = async () => {
    for (let work = queue.shift(); work; work = queue.shift()) {
      try {
        await storeSegment(source, writer, work, { ...options, signal });
      } catch (error) {
        if (!isTooLargeForText(error) || work.format === "binary") throw error;
        // Nothing of this table is used that was stored as text: it is read again as a whole.
        if (work.progress.format === "text") queue.unshift(...divide(work.progress, [{ estimatedBytes: 0 }], "binary"));
      }
    }
  };
  const streams = Array.from({ length: source.concurrency }, () =>
    stream().catch((error: unknown) => {
      stopped.abort(error);
      throw error;
    }),
  );
  const failed = (await Promise.allSettled(streams)).find((result) => result.status === "rejected");
  if (failed) throw options.signal.aborted ? options.signal.reason : (stopped.signal.reason ?? failed.reason);
  return tables.map(storedTableOf);
}

/** Puts a table's segments to work in this format; what was stored of it before no longer counts. */
function divide(progress: TableProgress, segments: readonly Segment[], format: RowFormat): SegmentWork[] {
  progress.format = format;
  progress.segmentsLeft = segments.length;
  progress.segments = segments.map((segment) => ({ segment, chunks: [] }));
  return progress.segments.map(({ segment, chunks }, index) => ({
    progress,
    segment,
    number: index + 1,
    format,
    chunks,
  }));
}

function isTooLargeForText(error: unknown): boolean {
  return error instanceof OperationalError && error.code === "value-too-large";
}

async function storeSegment(
  source: Source,
  writer: SnapshotWriter,
  work: SegmentWork,
  { signal, report }: Pick<BackUpOptions, "signal" | "report">,
): Promise<void> {
  const { progress, segment, format, chunks } = work;
  // A sibling found a value that text cannot carry: the table is read again, this part would count for nothing.
  if (format !== progress.format) return;
  if (!progress.isStarted) report({ type: "table-start", table: progress.name });
  progress.isStarted = true;
  const extension = format === "text" ? "tsv" : "bin";
  const name = { group: progress.number, label: progress.name, segment: work.number, extension };
  for await (const batch of source.rows(progress.table, segment, { format, batchBytes: BATCH_BYTES, signal })) {
    chunks.push(await writer.addChunk({ ...name, index: chunks.length + 1 }, batch.bytes, batch.rows));
    report({ type: "rows", table: progress.name, rows: batch.rows, bytes: batch.bytes.length });
  }
  if (format !== progress.format) return;
  progress.segmentsLeft -= 1;
  if (progress.segmentsLeft > 0) return;
  const { rows, storedBytes } = totalsOf(progress.chunks);
  report({ type: "table-done", table: progress.name, rows, storedBytes });
}

function totalsOf(chunks: readonly ChunkRef[]): { rows: number; rawBytes: number; storedBytes: number } {
  const total = { rows: 0, rawBytes: 0, storedBytes: 0 };
  for (const chunk of chunks) {
    total.rows += chunk.rows;
    total.rawBytes += chunk.rawSize;
    total.storedBytes += chunk.size;
  }
  return total;
}

function storedTableOf(progress: TableProgress): StoredTable {
  const { table } = progress;
  return {
    schema: table.schema,
    name: table.name,
    columns: table.columns,
    primaryKey: table.primaryKey,
    ...(table.partitionRoot ? { partitionRoot: table.partitionRoot } : {}),
    ...(table.isRootPartial ? { isRootPartial: true } : {}),
    ...(table.condition ? { condition: table.condition } : {}),
    format: progress.format,
    ...totalsOf(progress.chunks),
    method: "full",
    segments: progress.segments.map(({ segment, chunks }) => ({
      ...(segment.pages ? { pages: segment.pages } : {}),
      chunks,
    })),
  };
}

async function storeLargeObjects(
  source: Source,
  writer: SnapshotWriter,
  count: number,
  { signal, report }: Pick<BackUpOptions, "signal" | "report">,
): Promise<StoredLargeObjects> {
  const chunks: ChunkRef[] = [];
  if (count === 0) return { count, chunks };
  report({ type: "phase", text: `reading ${count} large objects` });
  for await (const batch of source.largeObjects({ batchBytes: BATCH_BYTES, signal })) {
    const entry = { group: 0, label: "large-objects", segment: 1, index: chunks.length + 1, extension: "tsv" };
    chunks.push(await writer.addChunk(entry, batch.bytes, batch.rows));
  }
  return { count, chunks };
}
