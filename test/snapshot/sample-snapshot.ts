import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Lock } from "../../src/archive/age-keys.ts";
import type { Compression } from "../../src/archive/chunk-codec.ts";
import type { Destination } from "../../src/destinations/destination.ts";
import { type LocalDestination, openLocalDestination } from "../../src/destinations/local-destination.ts";
import type { ChunkRef, Manifest, StoredTable } from "../../src/snapshot/manifest.ts";
import { ReferenceBook } from "../../src/snapshot/reference-book.ts";
import { recoverEntries, renderSchemaSql } from "../../src/snapshot/recover-sql.ts";
import { renderRecoverText } from "../../src/snapshot/recover-text.ts";
import { createSnapshotKey } from "../../src/snapshot/snapshot-key.ts";
import { openSnapshotWriter, type SnapshotWriter } from "../../src/snapshot/snapshot-writer.ts";

export const PREFIX = "shop/shop";
export const ID = "20261121T020000Z-full";
export const TAKEN_AT = new Date("2026-11-21T02:00:00.000Z");

export const never = new AbortController().signal;

export interface TestFolder extends AsyncDisposable {
  readonly path: string;
  readonly spool: string;
  readonly destination: LocalDestination;
}

/** A fresh folder with a local destination and a place for the spool in it. */
export async function createFolder(): Promise<TestFolder> {
  const path = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  return {
    path,
    spool: join(path, "spool"),
    destination: await openLocalDestination({ type: "local", path: join(path, "store") }, { signal: never }),
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  };
}

export interface SampleOptions {
  readonly destinations: readonly Destination[];
  readonly spoolFolder: string;
  readonly prefix?: string;
  readonly id?: string;
  readonly compression?: Compression;
  readonly lock?: Lock | undefined;
  readonly volumeBytes?: number;
  /** What the manifest says instead of what the sample's says. */
  readonly manifest?: Partial<Manifest>;
  /** Makes an incremental: chunks of this snapshot, or of those that it refers to, for which `adopts` says so are not stored again. */
  readonly base?: Manifest;
  readonly adopts?: () => boolean;
  readonly signal?: AbortSignal;
}

export async function openSampleWriter(options: SampleOptions): Promise<SnapshotWriter> {
  return openSnapshotWriter({
    key: options.lock && (await createSnapshotKey(options.lock)),
    prefix: PREFIX,
    id: ID,
    compression: { codec: "zstd", level: 2 },
    createdAt: TAKEN_AT,
    signal: never,
    ...options,
  });
}

/** What a manifest says that needs earlier snapshots. */
export function referringTo(...ids: readonly string[]): Pick<Manifest, "version" | "references"> {
  return { version: 2, references: ids.map((id) => ({ id, codec: "zstd", volumes: [] })) };
}

/** The rows of the sample: 2 tables, the first one in two segments of two chunks each. */
export function sampleRows(table: number, segment: number, chunk: number): { raw: Buffer; rows: number } {
  const rows = 400;
  const line = (row: number) => `${row}\tname ${table}.${segment}.${chunk}.${(row * 2654435761) % 1000003}\n`;
  return { raw: Buffer.from(Array.from({ length: rows }, (_, row) => line(row)).join("")), rows };
}

/** Stores a small snapshot with everything in it that a snapshot can have. */
export async function writeSample(options: SampleOptions): Promise<Manifest> {
  await using writer = await openSampleWriter(options);
  return await commitSample(writer, options);
}

export async function commitSample(writer: SnapshotWriter, options: Partial<SampleOptions> = {}): Promise<Manifest> {
  const compression = options.compression ?? { codec: "zstd", level: 2 };
  await writer.addPlain("RECOVER.md", Buffer.from(renderRecoverText({ compression, lock: options.lock })));
  await writer.addPlain("schema.sql", Buffer.from(renderSchemaSql(DEFINITIONS)));
  const book = options.base && new ReferenceBook(options.base);
  const adopted = (...[table, segment, chunk]: [number, number, number]) => {
    const known = options.base?.tables[table - 1]?.segments[segment - 1]?.chunks[chunk - 1];
    return known && options.adopts?.() ? book?.adopt(known) : undefined;
  };
  const tables = [
    await storeTable(writer, { group: 1, name: "orders", segments: 2, adopted }),
    await storeTable(writer, { group: 2, name: 'odd "name";\n--', segments: 1, adopted }),
  ];
  const content = Buffer.from("server { listen 443; }\n");
  const file = await writer.addChunk("files/000001/000001", content, 0);
  const largeObject = await writer.addChunk(
    { group: 0, label: "large-objects", segment: 1, index: 1, extension: "tsv" },
    Buffer.from("16400\t0\t\\\\xdeadbeef\n"),
    1,
  );
  const rest: Omit<Manifest, "volumes"> = {
    ...HEAD,
    ...(book && book.references.length > 0 ? { version: 2, references: book.references } : {}),
    ...options.manifest,
    id: options.id ?? ID,
    compression,
    definitions: DEFINITIONS,
    tables,
    largeObjects: { count: 1, chunks: [largeObject] },
    files: [
      { path: "/etc/shop", type: "directory", mode: 0o755, modifiedAt: TAKEN_AT.toISOString(), size: 0, chunks: [] },
      {
        path: "/etc/shop/nginx.conf",
        type: "file",
        mode: 0o644,
        modifiedAt: TAKEN_AT.toISOString(),
        size: content.length,
        chunks: [file],
      },
    ],
  };
  for (const { name, text } of recoverEntries(rest)) await writer.addPlain(name, Buffer.from(text));
  // In the order in which a run writes them.
  const { definitions, notCaptured, warnings, ...first } = rest;
  const manifest = (volumes: Manifest["volumes"]) => ({ ...first, volumes, definitions, notCaptured, warnings });
  return (await writer.commit(manifest)).manifest;
}

interface SampleTable {
  readonly group: number;
  readonly name: string;
  readonly segments: number;
  readonly adopted: (table: number, segment: number, chunk: number) => ChunkRef | undefined;
}

async function storeTable(writer: SnapshotWriter, sample: SampleTable): Promise<StoredTable> {
  const { group, name, segments, adopted } = sample;
  const stored: { chunks: ChunkRef[] }[] = [];
  for (let segment = 1; segment <= segments; segment++) {
    const chunks: ChunkRef[] = [];
    for (let index = 1; index <= 2; index++) {
      const { raw, rows } = sampleRows(group, segment, index);
      const entry = { group, label: `public.${name}`, segment, index, extension: "tsv" };
      chunks.push(adopted(group, segment, index) ?? (await writer.addChunk(entry, raw, rows)));
    }
    stored.push({ chunks });
  }
  const all = stored.flatMap(({ chunks }) => chunks);
  const total = (field: "rows" | "rawSize" | "size") => all.reduce((sum, chunk) => sum + chunk[field], 0);
  return {
    schema: "public",
    name,
    columns: [
      { name: "id", type: "bigint", notNull: true },
      { name: "label", type: "text", notNull: false },
    ],
    primaryKey: ["id"],
    format: "text",
    rows: total("rows"),
    rawBytes: total("rawSize"),
    storedBytes: total("size"),
    method: "full",
    segments: stored,
  };
}

const DEFINITIONS: Manifest["definitions"] = [
  {
    section: "pre-data",
    kind: "table",
    schema: "public",
    name: "orders",
    sql: "CREATE TABLE public.orders (id bigint NOT NULL, label text)",
  },
  {
    section: "post-data",
    kind: "index",
    schema: "public",
    name: "orders_label",
    table: { schema: "public", name: "orders" },
    sql: "CREATE INDEX orders_label ON public.orders (label);",
  },
];

const HEAD = {
  format: "rowkeep-snapshot",
  version: 1,
  job: "shop",
  database: "shop",
  kind: "full",
  createdAt: TAKEN_AT.toISOString(),
  finishedAt: "2026-11-21T02:00:09.000Z",
  rowkeepVersion: "0.1.0",
  source: {
    engine: "postgres",
    version: "18.4",
    database: "shop",
    encoding: "UTF8",
    systemIdentifier: "7400000000000000001",
    host: "localhost",
    port: 5432,
    user: "backup",
    isReplica: false,
  },
  consistency: "snapshot",
  settings: { client_encoding: "UTF8", datestyle: "ISO, YMD", standard_conforming_strings: "on" },
  notCaptured: ['publication "p" is not captured'],
  sequences: [{ schema: "public", name: "orders_id_seq", lastValue: "400", isCalled: true, increment: "1" }],
  warnings: [],
} as const satisfies Partial<Manifest>;

/** Collects a stream in memory. */
export async function collect(bytes: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of bytes) parts.push(part);
  return Buffer.concat(parts);
}
