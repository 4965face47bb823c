import { OperationalError } from "../base/errors.ts";
import { makeLimit } from "../base/limit.ts";
import type {
  Connection,
  Definition,
  OpenSourceOptions,
  ServerIdentity,
  Source,
  SourceTable,
} from "../drivers/driver.ts";
import {
  addSums,
  type BucketSums,
  type Fingerprints,
  type SumsRequest,
  type Waiting,
} from "../drivers/fingerprints.ts";
import { openSource } from "../drivers/open-driver.ts";
import { makeRowHash, type RowHash, RowHasher } from "../drivers/row-hash.ts";
import type { ComparedTable } from "../plan/plan-compare.ts";
import { CopyTextRows } from "../snapshot/copy-text-rows.ts";
import type { ChunkRef, StoredTable } from "../snapshot/manifest.ts";
import { ownEncodingOf } from "../snapshot/own-encoding.ts";
import { SnapshotFingerprints } from "../snapshot/snapshot-fingerprints.ts";
import type { SnapshotReader } from "../snapshot/snapshot-reader.ts";
import { beginAgain } from "./begin-again.ts";

type Requests = {
  readonly [Name in "list" | "find" | "show"]: (
    request: Parameters<Fingerprints[Name]>[1],
  ) => ReturnType<Fingerprints[Name]>;
};

/** One table of a side, with what can be asked of it. */
export interface SideTable extends ComparedTable, Requests {
  readonly estimatedRows: number;
  readonly bytes: number;
  /** Why its rows cannot be compared. */
  readonly problem?: string | undefined;
  count(options: Waiting): Promise<number>;
  sums(request: SumsRequest): Promise<BucketSums>;
}

/** One of the two things that are compared: a database at one instant, or a snapshot. */
export interface CompareSide extends AsyncDisposable {
  /** For people: `shop at db.example:5432`, or the id of a snapshot. */
  readonly label: string;
  readonly isLive: boolean;
  /** Of a live one. */
  readonly identity?: ServerIdentity | undefined;
  /** The instant that it shows, ISO 8601. */
  readonly takenAt: string;
  readonly tables: readonly SideTable[];
  readonly definitions: readonly Definition[];
  readonly majorVersion: number;
  readonly largeObjects: number;
  /** Encodings in which its text can be hashed, the preferred one first; bytes of no encoding count as UTF-8. */
  readonly encodings: readonly string[];
  agreesOn(hash: RowHash, options: Waiting): Promise<boolean>;
  /** One hash of all large objects, whatever their order. */
  hashLargeObjects(options: { readonly hash: RowHash } & Waiting): Promise<string>;
}

/** Never analysed tables say that they have no rows. */
const BYTES_A_ROW = 100;
const BATCH_BYTES = 1024 * 1024;
/** A scan of a snapshot fetches and decompresses while another one hashes. */
const SNAPSHOT_SCANS = 2;

/** Opens a database at one instant. Fails with kind `database`. */
export function openLiveSide(connection: Connection, options: OpenSourceOptions): Promise<CompareSide> {
  return beginAgain(() => tryOpenLiveSide(connection, options), options);
}

async function tryOpenLiveSide(connection: Connection, options: OpenSourceOptions): Promise<CompareSide> {
  await using stack = new AsyncDisposableStack();
  const source = stack.use(await openSource(connection, options));
  const description = await source.describe(options);
  const limit = makeLimit(source.concurrency);
  const { identity } = source;
  const kept = stack.move();
  return {
    label: `${identity.database} at ${identity.host}:${identity.port}`,
    isLive: true,
    identity,
    takenAt: source.takenAt.toISOString(),
    tables: source.tables.map((table) => liveTable(source, table, limit)),
    definitions: description.definitions,
    majorVersion: Number.parseInt(identity.version, 10),
    largeObjects: description.largeObjects,
    encodings: identity.encoding === "SQL_ASCII" ? ["UTF8"] : ["UTF8", identity.encoding],
    agreesOn: (hash, waiting) => source.fingerprints.agreesOn(hash, waiting),
    hashLargeObjects: ({ hash, signal }) =>
      hashRows(hash, bytesOf(source.largeObjects({ batchBytes: BATCH_BYTES, signal }))),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

function liveTable(source: Source, table: SourceTable, limit: ReturnType<typeof makeLimit>): SideTable {
  const { fingerprints } = source;
  return {
    ...table,
    estimatedRows: table.estimatedRows || Math.ceil(table.bytes / BYTES_A_ROW),
    count: (options) => limit(() => fingerprints.count(table, options)),
    sums: async (request) => {
      const segments = source.segments(table, source.concurrency);
      return addSums(
        await Promise.all(segments.map((segment) => limit(() => fingerprints.sums(table, segment, request)))),
      );
    },
    list: (request) => limit(() => fingerprints.list(table, request)),
    find: (request) => limit(() => fingerprints.find(table, request)),
    show: (request) => limit(() => fingerprints.show(table, request)),
  };
}

/** Makes a side of a snapshot, or of what `manifest` leaves of it. The reader is disposed with it. */
export function openSnapshotSide(reader: SnapshotReader, manifest = reader.manifest): CompareSide {
  const fingerprints = new SnapshotFingerprints(reader);
  const limit = makeLimit(SNAPSHOT_SCANS);
  return {
    label: manifest.id,
    isLive: false,
    takenAt: manifest.createdAt,
    tables: manifest.tables.map((table) => snapshotTable(fingerprints, table, limit)),
    definitions: manifest.definitions,
    majorVersion: Number.parseInt(manifest.source.version, 10),
    largeObjects: manifest.largeObjects.count,
    encodings: [ownEncodingOf(manifest) ?? "UTF8"],
    agreesOn: async () => true,
    hashLargeObjects: ({ hash, signal }) => hashChunks(reader, manifest.largeObjects.chunks, { hash, signal }),
    [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose](),
  };
}

function snapshotTable(
  fingerprints: SnapshotFingerprints,
  table: StoredTable,
  limit: ReturnType<typeof makeLimit>,
): SideTable {
  return {
    ...table,
    estimatedRows: table.rows,
    bytes: table.rawBytes,
    ...(table.format === "text" ? {} : { problem: "the snapshot holds its rows in binary form" }),
    count: async () => table.rows,
    sums: (request) => limit(() => fingerprints.sums(table, request)),
    list: (request) => limit(() => fingerprints.list(table, request)),
    find: (request) => limit(() => fingerprints.find(table, request)),
    show: (request) => limit(() => fingerprints.show(table, request)),
  };
}

function hashChunks(
  reader: SnapshotReader,
  chunks: readonly ChunkRef[],
  { hash, signal }: { readonly hash: RowHash } & Waiting,
): Promise<string> {
  return hashRows(hash, reader.chunks(chunks, { signal }));
}

async function* bytesOf(batches: AsyncIterable<{ readonly bytes: Uint8Array }>): AsyncIterable<Uint8Array> {
  for await (const { bytes } of batches) yield bytes;
}

/** Sums of the hashes of all rows, as COPY text has them. */
async function hashRows(hash: RowHash, chunks: AsyncIterable<Uint8Array>): Promise<string> {
  const hasher = new RowHasher(hash);
  let [first, second, count] = [0n, 0n, 0];
  const rows = new CopyTextRows((bytes, start, end) => {
    hasher.update(bytes.subarray(start, end), end - start);
    first += hasher.first;
    second += hasher.second;
    count += 1;
  });
  for await (const chunk of chunks) rows.push(chunk);
  rows.finish();
  return `${count}:${first}:${second}`;
}

/** A hash of its own for one comparison: the servers' own function where all of them compute the same, else SHA-256. */
export async function chooseHash(sides: readonly CompareSide[], options: Waiting): Promise<RowHash> {
  const encoding = commonEncoding(sides);
  const hash = makeRowHash(encoding === "UTF8" ? undefined : encoding);
  const answers = await Promise.all(sides.map((side) => side.agreesOn(hash, options)));
  return answers.every(Boolean) ? hash : { ...hash, method: "sha256" };
}

function commonEncoding(sides: readonly CompareSide[]): string {
  const common = sides[0]?.encodings.find((one) => sides.every(({ encodings }) => encodings.includes(one)));
  if (common !== undefined) return common;
  const [fixed] = sides.filter(({ encodings }) => !encodings.includes("UTF8"));
  throw new OperationalError(
    `cannot compare ${sides.map(({ label }) => label).join(" with ")}: text of ${fixed?.label} is kept in ${fixed?.encodings.join()}`,
    {
      kind: "refused",
      code: "encoding",
      hint: "Restore the snapshot into a database of that encoding and compare that.",
    },
  );
}
