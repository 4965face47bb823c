import type { Codec } from "../archive/chunk-codec.ts";
import type { DefinitionsMark, TableMark, TrustToken } from "../drivers/change-tracker.ts";
import type {
  Column,
  Consistency,
  Definition,
  RowFormat,
  SequenceState,
  ServerIdentity,
  TableName,
} from "../drivers/driver.ts";

export type SnapshotKind = "full" | "incremental";

/** Where the stored bytes of one chunk lie and what they are. */
export interface ChunkRef {
  /** Index into `Manifest.references`: the chunk lies in that earlier snapshot. Left out: in this one. */
  readonly snapshot?: number | undefined;
  /** Index into the `volumes` of the manifest, or of the reference. */
  readonly volume: number;
  /** Byte offset of the stored bytes in the volume (behind the tar header). */
  readonly offset: number;
  /** Stored bytes (compressed, perhaps encrypted). */
  readonly size: number;
  /** Lower-case hex SHA-256 of the stored bytes. */
  readonly sha256: string;
  /** Bytes before compression. A reader refuses a chunk that gives more. */
  readonly rawSize: number;
  /** How many rows end in this chunk. */
  readonly rows: number;
  /** Lower-case hex SHA-256 of the raw bytes, where an incremental may come: what is read again and equal is not stored again. */
  readonly rawSha256?: string | undefined;
}

/** Which line of which of the table's page maps tells where the rows of a segment were. */
export interface PageMapPlace {
  /** Index into `StoredTable.pageMaps`. */
  readonly map: number;
  /** From 0. */
  readonly line: number;
}

export interface StoredSegment {
  readonly pages?: { readonly lo: number; readonly hi?: number | undefined } | undefined;
  readonly pageMap?: PageMapPlace | undefined;
  /** In order: their raw bytes, put one behind the other, are the rows of the segment. */
  readonly chunks: readonly ChunkRef[];
}

export interface StoredTable extends TableName {
  readonly columns: readonly Column[];
  readonly primaryKey: readonly string[];
  readonly partitionRoot?: TableName | undefined;
  /** Rows of another partition of that root are not in the snapshot: its partitions are restored one by one. */
  readonly isRootPartial?: boolean | undefined;
  /** `text`: COPY text. `binary`: COPY binary, each segment with its own header and trailer. */
  readonly format: RowFormat;
  readonly rows: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  readonly method: "full" | "delta" | "unchanged";
  readonly reason?: string | undefined;
  readonly condition?: string | undefined;
  readonly segments: readonly StoredSegment[];
  /**
   * Rows of the segments that were gone at the instant of the snapshot: lines `<number>d` in ascending order, each the
   * number (from 1) of a row among those of all segments, put one behind the other. Only for `text`.
   */
  readonly removed?: { readonly rows: number; readonly chunks: readonly ChunkRef[] } | undefined;
  /** For the next incremental: see page-map.ts. */
  readonly pageMaps?: readonly ChunkRef[] | undefined;
  /** For the next incremental: what must be the same then, so that row headers tell what changed. */
  readonly mark?: TableMark | undefined;
}

/** An earlier snapshot that holds chunks of this one. */
export interface SnapshotReference {
  readonly id: string;
  readonly codec: Codec;
  readonly encryption?: { readonly format: "age" } | undefined;
  /** All of its volumes, as its own manifest has them. */
  readonly volumes: readonly Volume[];
}

/** Chunks of earlier snapshots that lie in the volumes of a later one by now. It leads to no bytes. */
export interface CarriedOver {
  /** Stored bytes of these chunks. */
  readonly bytes: number;
  /** Ids of the snapshots that they come from. */
  readonly from: readonly string[];
}

export interface Volume {
  /** Name of the object below the snapshot's folder: `volume-0001.tar`. */
  readonly name: string;
  readonly size: number;
  readonly sha256: string;
}

export interface StoredLargeObjects {
  readonly count: number;
  /** COPY text rows of `oid, offset, bytea`. */
  readonly chunks: readonly ChunkRef[];
}

/** One file, directory or symbolic link of the job's `files:`. */
export interface StoredFile {
  /** Absolute path at the source. */
  readonly path: string;
  readonly type: "file" | "directory" | "symlink";
  readonly mode: number;
  /** ISO 8601. */
  readonly modifiedAt: string;
  readonly size: number;
  readonly linkTarget?: string | undefined;
  /** The content of a file in order. */
  readonly chunks: readonly ChunkRef[];
}

/** A table that lost more rows since the snapshot before than the job calls normal. */
export interface Anomaly extends TableName {
  readonly kind: "shrunk" | "vanished";
  readonly rowsBefore: number;
  readonly rows: number;
}

/** Which restore took a safety snapshot of what it was about to replace. */
export interface SafetyOf {
  readonly restoredSnapshot: string;
  readonly target: ServerIdentity;
  /** The transaction of the restore (PostgreSQL's xid8), by which the server tells whether it was committed; missing in older ones. */
  readonly transaction?: string | undefined;
}

/** The record of one snapshot; written last, so a snapshot exists from the moment it is stored. */
export interface Manifest {
  readonly format: "rowkeep-snapshot";
  /**
   * 3 where rows have an encoding of their own, which an earlier reader would take for UTF-8; else 2 where there are references, which
   * a reader of version 1 would pass over.
   */
  readonly version: 1 | 2 | 3;
  /** `20261121T020000Z-full`; sorts by time. */
  readonly id: string;
  readonly job: string;
  readonly database: string;
  readonly kind: SnapshotKind;
  /** The instant of the snapshot, ISO 8601, by the server's clock. */
  readonly createdAt: string;
  readonly finishedAt: string;
  readonly rowkeepVersion: string;
  readonly source: ServerIdentity;
  readonly consistency: Consistency;
  readonly settings: Readonly<Record<string, string>>;
  readonly compression: { readonly codec: "zstd" | "gzip" | "none"; readonly level: number };
  /** How chunks and manifest are encrypted; left out: not at all. */
  readonly encryption?: { readonly format: "age" } | undefined;
  readonly volumes: readonly Volume[];
  /**
   * The earlier snapshots of the same database whose volumes hold chunks of this one, all of them: nothing has to be
   * followed further. They stay as long as it does.
   */
  readonly references?: readonly SnapshotReference[] | undefined;
  /** What this incremental stored again so that it does not need earlier snapshots which are mostly dead. */
  readonly carriedOver?: CarriedOver | undefined;
  /** For the next incremental: what the server said of its history. */
  readonly trust?: TrustToken | undefined;
  /** For the next incremental: what must be the same then, so that it can take over the definitions. */
  readonly definitionsMark?: DefinitionsMark | undefined;
  readonly definitions: readonly Definition[];
  readonly notCaptured: readonly string[];
  readonly tables: readonly StoredTable[];
  readonly sequences: readonly SequenceState[];
  readonly largeObjects: StoredLargeObjects;
  readonly files: readonly StoredFile[];
  readonly warnings: readonly string[];
  /** While nobody acknowledged them, nothing is pruned: older snapshots may hold what was lost. */
  readonly anomalies?: readonly Anomaly[] | undefined;
  /** Taken by a restore of what it was about to replace; what `undo` puts back. */
  readonly safetyOf?: SafetyOf | undefined;
}
