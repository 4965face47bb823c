import { archiveError } from "../archive/archive-error.ts";
import { TAR_BLOCK, TAR_END } from "../archive/tar-entry.ts";
import { checkJson } from "./check-json.ts";
import type { ChunkRef, Manifest, StoredTable, Volume } from "./manifest.ts";
import { manifestShape } from "./manifest-shape.ts";
import { MAX_MANIFEST_BYTES } from "./manifest-text.ts";
import { ownEncodingOf } from "./own-encoding.ts";
import { isSealIntact } from "./sealed-json.ts";
import { parseSnapshotId } from "./snapshot-id.ts";

const MAX_DEPTH = 32;
const KNOWN_VERSION = 3;

/**
 * Reads a manifest from bytes that may be hostile. Fields that this version does not know are kept.
 * Fails with kind `archive`: `future-version`, or `invalid-manifest` with what is wrong and where. `name` is for messages.
 */
export function parseManifest(bytes: Uint8Array, name: string): Manifest {
  const refuse = (problem: string, cause?: unknown) =>
    archiveError(`cannot read ${name}: ${problem}`, "invalid-manifest", {
      hint: "Use another snapshot, or another destination that has this one.",
      cause,
    });
  const value = parseJson(bytes, refuse);
  const version = (value as { version?: unknown } | null)?.version;
  if (Number.isSafeInteger(version) && (version as number) > KNOWN_VERSION) {
    throw archiveError(
      `cannot read ${name}: it has version ${String(version)} of the archive format, this rowkeep knows ${KNOWN_VERSION}`,
      "future-version",
      { hint: "Upgrade rowkeep." },
    );
  }
  // Behind the version, which may have another seal; before the rest, so that a flipped bit is called what it is.
  if (!isSealIntact(bytes)) throw refuse("it is damaged (its SHA-256 is not the one recorded)");
  const problem = manifestShape(value);
  if (problem !== undefined) throw refuse(`manifest${problem}`);
  const { sha256: _seal, ...manifest } = value as Manifest & { readonly sha256: string };
  const contradiction = findContradiction(manifest);
  if (contradiction !== undefined) throw refuse(contradiction);
  return manifest;
}

function parseJson(bytes: Uint8Array, refuse: (problem: string, cause?: unknown) => Error): unknown {
  if (bytes.length > MAX_MANIFEST_BYTES) throw refuse(`it is larger than ${MAX_MANIFEST_BYTES} bytes`);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw refuse("it is not UTF-8", cause);
  }
  const problem = checkJson(text, MAX_DEPTH);
  if (problem !== undefined) throw refuse(problem);
  try {
    return JSON.parse(text);
  } catch {
    // The parser's message quotes the text, which may hold anything.
    throw refuse("it is not valid JSON");
  }
}

/** Where two parts of a manifest contradict each other; undefined when they do not. */
function findContradiction(manifest: Manifest): string | undefined {
  const id = parseSnapshotId(manifest.id);
  if (id === undefined || id.kind !== manifest.kind) return "its id is not one of its kind";
  return (
    findWrongVolume(manifest.volumes) ??
    findWrongReference(manifest) ??
    findWrongEncoding(manifest) ??
    findMisplacedChunk(manifest) ??
    findWrongTable(manifest) ??
    findWrongFile(manifest)
  );
}

function findWrongVolume(volumes: readonly Volume[]): string | undefined {
  for (const [index, volume] of volumes.entries()) {
    if (volume.name !== volumeName(index)) return `volume ${index + 1} has the name of another one`;
    if (volume.size % TAR_BLOCK !== 0) return `the size of ${volume.name} is not that of a tar file`;
  }
  return undefined;
}

function findWrongReference({ id, version, references = [] }: Manifest): string | undefined {
  if (references.length > 0 && version === 1) return "it has references, which its version does not know";
  const seen = new Set([id]);
  for (const reference of references) {
    // The id becomes part of a key.
    if (!parseSnapshotId(reference.id)) return "it refers to a snapshot whose id is none";
    if (seen.has(reference.id)) return `it refers to ${reference.id} twice, or is it itself`;
    seen.add(reference.id);
    const wrong = findWrongVolume(reference.volumes);
    if (wrong) return `${reference.id}: ${wrong}`;
  }
  return undefined;
}

function findWrongEncoding(manifest: Manifest): string | undefined {
  if (manifest.version > 2 || ownEncodingOf(manifest) === undefined) return undefined;
  return "its rows have an encoding that its version does not know";
}

/** Name of the object that holds the volume with this index. */
export function volumeName(index: number): string {
  return `volume-${String(index + 1).padStart(4, "0")}.tar`;
}

/** The volume that holds a chunk, of this snapshot or of a referenced one; undefined when it is not listed. */
export function volumeOf({ volumes, references }: Manifest, chunk: ChunkRef): Volume | undefined {
  const own = chunk.snapshot === undefined ? volumes : references?.[chunk.snapshot]?.volumes;
  return own?.[chunk.volume];
}

function findMisplacedChunk(manifest: Manifest): string | undefined {
  for (const chunk of chunksOf(manifest)) {
    const volume = volumeOf(manifest, chunk);
    if (volume === undefined) return "a chunk lies in a volume that is not listed";
    const end = chunk.offset + chunk.size;
    if (chunk.offset < TAR_BLOCK || chunk.offset % TAR_BLOCK !== 0 || end > volume.size - TAR_END.length) {
      return `a chunk lies outside ${volume.name}`;
    }
  }
  return undefined;
}

function findWrongTable(manifest: Manifest): string | undefined {
  const seen = new Set<string>();
  for (const [index, table] of manifest.tables.entries()) {
    const key = JSON.stringify([table.schema, table.name]);
    if (seen.has(key)) return `table ${index + 1} is listed twice`;
    seen.add(key);
    let [rows, rawBytes, storedBytes] = [0 - (table.removed?.rows ?? 0), 0, 0];
    for (const { chunks } of table.segments) {
      for (const chunk of chunks) {
        rows += chunk.rows;
        rawBytes += chunk.rawSize;
        storedBytes += chunk.size;
      }
    }
    if (rows !== table.rows || rawBytes !== table.rawBytes || storedBytes !== table.storedBytes) {
      return `the chunks of table ${index + 1} do not add up to its rows and bytes`;
    }
    const wrong = findWrongTracking(table);
    if (wrong) return `table ${index + 1}: ${wrong}`;
  }
  return undefined;
}

function findWrongTracking({ format, removed, pageMaps = [], segments }: StoredTable): string | undefined {
  if (removed && format !== "text") return "only rows of text can be removed one by one";
  if (removed && removed.chunks.reduce((sum, { rows }) => sum + rows, 0) !== removed.rows) {
    return "the lists of removed rows do not add up";
  }
  const isLost = segments.some(({ pageMap }) => pageMap && pageMap.line >= (pageMaps[pageMap.map]?.rows ?? 0));
  return isLost ? "a segment has no line in a page map" : undefined;
}

function findWrongFile(manifest: Manifest): string | undefined {
  const index = manifest.files.findIndex(
    ({ size, chunks }) => chunks.reduce((sum, chunk) => sum + chunk.rawSize, 0) !== size,
  );
  return index < 0 ? undefined : `the chunks of file ${index + 1} do not add up to its size`;
}

/** Gives every chunk of a snapshot: of tables, large objects and files. */
export function* chunksOf(manifest: Pick<Manifest, "tables" | "largeObjects" | "files">): Iterable<ChunkRef> {
  for (const { segments, removed, pageMaps = [] } of manifest.tables) {
    for (const segment of segments) yield* segment.chunks;
    if (removed) yield* removed.chunks;
    yield* pageMaps;
  }
  yield* manifest.largeObjects.chunks;
  for (const file of manifest.files) yield* file.chunks;
}
