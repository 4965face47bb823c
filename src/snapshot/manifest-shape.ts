import { MAX_CHUNK_BYTES } from "../archive/chunk-codec.ts";
import type { DefinitionsMark, TableMark, TrustToken } from "../drivers/change-tracker.ts";
import type { Column, Definition, ObjectOwner, SequenceState, ServerIdentity, TableName } from "../drivers/driver.ts";
import type {
  Anomaly,
  ChunkRef,
  Manifest,
  PageMapPlace,
  SafetyOf,
  SnapshotReference,
  StoredFile,
  StoredSegment,
  StoredTable,
  Volume,
} from "./manifest.ts";
import { boolean, dictionary, integer, list, oneOf, optional, record, type Shape, text } from "./shape.ts";

/** Every field of the type has its check: the compiler says so. */
type Fields<T> = Readonly<Record<keyof T, Shape>>;

const SHA256 = /^[0-9a-f]{64}$/;
const INSTANT = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?Z$/;
const DIGITS = /^-?\d{1,20}$/;

const name = text(1024);
const phrase = text(64 * 1024);
const hash = text(64, SHA256);

const instant: Shape = (value) =>
  text(40, INSTANT)(value) ?? (Number.isNaN(Date.parse(value as string)) ? " is not an instant" : undefined);

const tableName = record({ schema: name, name } satisfies Fields<TableName>);

const identity = record({
  engine: oneOf("postgres"),
  version: name,
  database: name,
  encoding: name,
  collation: optional(name),
  systemIdentifier: optional(name),
  databaseOid: optional(name),
  host: optional(phrase),
  port: optional(integer(0, 65_535)),
  user: name,
  isReplica: boolean,
} satisfies Fields<ServerIdentity>);

const column = record({
  name,
  type: phrase,
  notNull: boolean,
  generated: optional(oneOf("stored", "virtual")),
  identity: optional(oneOf("always", "by-default")),
} satisfies Fields<Column>);

const chunk = record({
  snapshot: optional(integer()),
  volume: integer(),
  offset: integer(),
  size: integer(0, MAX_CHUNK_BYTES + (MAX_CHUNK_BYTES >> 6)),
  sha256: hash,
  rawSize: integer(0, MAX_CHUNK_BYTES),
  rows: integer(),
  rawSha256: optional(hash),
} satisfies Fields<ChunkRef>);

const segment = record({
  pages: optional(record({ lo: integer(), hi: optional(integer()) })),
  pageMap: optional(record({ map: integer(), line: integer() } satisfies Fields<PageMapPlace>)),
  chunks: list(chunk),
} satisfies Fields<StoredSegment>);

const table = record({
  schema: name,
  name,
  columns: list(column, 10_000),
  primaryKey: list(name, 10_000),
  partitionRoot: optional(tableName),
  isRootPartial: optional(boolean),
  format: oneOf("text", "binary"),
  rows: integer(),
  rawBytes: integer(),
  storedBytes: integer(),
  method: oneOf("full", "delta", "unchanged"),
  reason: optional(phrase),
  condition: optional(phrase),
  segments: list(segment),
  removed: optional(record({ rows: integer(1), chunks: list(chunk) })),
  pageMaps: optional(list(chunk)),
  mark: optional(
    record({ oid: text(10, DIGITS), filenode: text(10, DIGITS), digest: hash } satisfies Fields<TableMark>),
  ),
} satisfies Fields<StoredTable>);

const definition = record({
  section: oneOf("pre-data", "post-data"),
  kind: name,
  schema: optional(name),
  name: phrase,
  table: optional(tableName),
  owner: optional(record({ role: name, object: phrase } satisfies Fields<ObjectOwner>)),
  needs: optional(list(integer())),
  sql: text(256 * 1024 * 1024),
} satisfies Fields<Definition>);

const sequence = record({
  schema: name,
  name,
  lastValue: text(40, DIGITS),
  isCalled: boolean,
  increment: text(40, DIGITS),
  ownedBy: optional(record({ schema: name, table: name, column: name })),
} satisfies Fields<SequenceState>);

const file = record({
  path: phrase,
  type: oneOf("file", "directory", "symlink"),
  mode: integer(0, 0o7777),
  modifiedAt: instant,
  size: integer(),
  linkTarget: optional(phrase),
  chunks: list(chunk),
} satisfies Fields<StoredFile>);

export const volumeShape = record({
  name: text(40, /^volume-\d{4,9}\.tar$/),
  size: integer(1024),
  sha256: hash,
} satisfies Fields<Volume>);

const anomaly = record({
  schema: name,
  name,
  kind: oneOf("shrunk", "vanished"),
  rowsBefore: integer(),
  rows: integer(),
} satisfies Fields<Anomaly>);

const encryption = optional(record({ format: oneOf("age") }));
const codec = oneOf("zstd", "gzip", "none");

const reference = record({
  id: text(64),
  codec,
  encryption,
  volumes: list(volumeShape),
} satisfies Fields<SnapshotReference>);

const trust = record({
  systemIdentifier: text(40, DIGITS),
  databaseOid: text(10, DIGITS),
  databaseXmin: optional(text(10, DIGITS)),
  timeline: text(8),
  startedAt: text(40),
  major: integer(),
  snapshot: phrase,
  xmin: text(20, DIGITS),
  lsn: text(20, DIGITS),
  witness: optional(text(1000, /^\d+[cr](?: \d+[cr])*$/)),
} satisfies Fields<TrustToken>);

const safetyOf = optional(
  record({
    restoredSnapshot: name,
    target: identity,
    transaction: optional(text(20, DIGITS)),
  } satisfies Fields<SafetyOf>),
);

/** The form of what a list shows of a manifest. */
export const summaryShape = record({
  format: oneOf("rowkeep-snapshot"),
  version: oneOf(1, 2, 3),
  id: text(64),
  job: name,
  database: name,
  kind: oneOf("full", "incremental"),
  createdAt: instant,
  source: identity,
  consistency: oneOf("snapshot", "per-table", "none"),
  volumes: list(volumeShape),
  references: optional(list(record({ id: text(64) }))),
  tables: list(record({ rows: integer(), rawBytes: integer() })),
  anomalies: optional(list(anomaly)),
  safetyOf,
});

/** The form of a manifest of versions 1 to 3, without what its parts say about each other. */
export const manifestShape = record({
  format: oneOf("rowkeep-snapshot"),
  version: oneOf(1, 2, 3),
  id: text(64),
  job: name,
  database: name,
  kind: oneOf("full", "incremental"),
  createdAt: instant,
  finishedAt: instant,
  rowkeepVersion: name,
  source: identity,
  consistency: oneOf("snapshot", "per-table", "none"),
  settings: dictionary(/^[a-z_][a-z0-9_.]{0,99}$/i, phrase, 1000),
  compression: record({ codec, level: integer(-200, 200) }),
  encryption,
  volumes: list(volumeShape),
  references: optional(list(reference)),
  carriedOver: optional(record({ bytes: integer(), from: list(text(64)) })),
  trust: optional(trust),
  definitionsMark: optional(record({ rows: integer(1), digest: hash } satisfies Fields<DefinitionsMark>)),
  definitions: list(definition),
  notCaptured: list(phrase),
  tables: list(table),
  sequences: list(sequence),
  largeObjects: record({ count: integer(), chunks: list(chunk) }),
  files: list(file),
  warnings: list(phrase),
  anomalies: optional(list(anomaly)),
  safetyOf,
} satisfies Fields<Manifest>);
