import type { ChunkRef, Manifest, StoredTable } from "../snapshot/manifest.ts";

/** Where bytes lie, and what the next backup needs to find changes: none of it tells two contents apart. */
const PLACES: ReadonlySet<string> = new Set([
  "snapshot",
  "volume",
  "offset",
  "pages",
  "pageMap",
  "pageMaps",
  "mark",
  "method",
  "reason",
  "storedBytes",
]);

export interface SharedContent {
  readonly left: Manifest;
  readonly right: Manifest;
  /** Tables whose rows are the same, because their stored bytes are. */
  readonly tables: readonly StoredTable[];
}

/**
 * Takes out of two manifests the rows that both hold in the same bytes, so that they are not read to be compared: such tables
 * are there with no rows. Anything else that is told of a table must be the same too, or it is left to be read.
 */
export function takeOutShared(left: Manifest, right: Manifest): SharedContent {
  const other = new Map(right.tables.map((table) => [nameOf(table), table]));
  const shared = new Set<string>();
  const tables: StoredTable[] = [];
  for (const table of left.tables) {
    const there = other.get(nameOf(table));
    if (!there || contentOf(table, left) !== contentOf(there, right)) continue;
    shared.add(nameOf(table));
    tables.push(table);
  }
  const sameObjects = contentOf(left.largeObjects, left) === contentOf(right.largeObjects, right);
  const without = (manifest: Manifest): Manifest => ({
    ...manifest,
    tables: manifest.tables.map((table) => (shared.has(nameOf(table)) ? emptied(table) : table)),
    largeObjects: sameObjects ? { ...manifest.largeObjects, chunks: [] } : manifest.largeObjects,
  });
  return { left: without(left), right: without(right), tables };
}

/** Rows in binary form cannot be compared, but none can. */
function emptied({ schema, name, columns, primaryKey, partitionRoot, method }: StoredTable): StoredTable {
  const none = { rows: 0, rawBytes: 0, storedBytes: 0, segments: [] };
  return { schema, name, columns, primaryKey, partitionRoot, method, format: "text", ...none };
}

/** Writes down all that decides about rows. Equal bytes that are compressed in two ways are not known to be equal. */
function contentOf(stored: object, { compression }: Manifest): string {
  const text = JSON.stringify(stored, (key, value: unknown) => {
    if (PLACES.has(key)) return undefined;
    // The hash of the raw bytes, where it is known, holds across encryption.
    return isChunk(value) && value.rawSha256 !== undefined ? [value.rawSize, value.rawSha256] : value;
  });
  return `${compression.codec} ${text}`;
}

function isChunk(value: unknown): value is ChunkRef & { readonly rawSha256?: string } {
  return typeof value === "object" && value !== null && "sha256" in value;
}

function nameOf({ schema, name }: StoredTable): string {
  return JSON.stringify([schema, name]);
}
