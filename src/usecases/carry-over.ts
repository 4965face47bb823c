import { hash } from "node:crypto";
import { archiveError } from "../archive/archive-error.ts";
import { formatPlural } from "../base/counts.ts";
import { OperationalError } from "../base/errors.ts";
import { freeBytes } from "../base/free-bytes.ts";
import { mapAhead } from "../base/map-ahead.ts";
import { type EarlierSnapshot, planCarryOver } from "../plan/plan-carry-over.ts";
import type { CarriedOver, ChunkRef, Manifest, SnapshotReference, StoredTable } from "../snapshot/manifest.ts";
import { chunksOf } from "../snapshot/parse-manifest.ts";
import type { Report } from "./progress.ts";
import type { BaseSnapshot, ChunkSink } from "./reuse-chunks.ts";

/** What holds the chunks of a snapshot. */
export type ChunkHolders = Pick<Manifest, "tables" | "largeObjects" | "files">;

/** A snapshot's content with what it needs of earlier ones. */
export interface ReferringContent extends ChunkHolders {
  readonly references: readonly SnapshotReference[];
  readonly carriedOver?: CarriedOver | undefined;
}

export interface CarryOverOptions {
  readonly base: BaseSnapshot;
  /** See plan-carry-over.ts. */
  readonly earlier: ReadonlyMap<string, EarlierSnapshot>;
  readonly sink: ChunkSink;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/** Chunks that are compressed while the next ones are read. */
const STORED_AHEAD = 2;

/**
 * Stores again what a new snapshot would need of earlier ones that are mostly dead, so that it does not need them any more. What
 * lies in an archive, or is at a destination that does not answer, stays where it is. Fails with kind `archive` when a
 * chunk turns out to be damaged, or was removed meanwhile; as `addChunk` does.
 */
export async function carryOver(content: ChunkHolders, options: CarryOverOptions): Promise<ReferringContent> {
  const { references } = options.base.book;
  const needed = neededChunks(content, references);
  const moved = new Map<string, ChunkRef>();
  const from: string[] = [];
  for (const id of await planReadable(needed, options)) {
    const chunks = needed.get(id) ?? [];
    const before = moved.size;
    await storeAgain({ id, chunks }, moved, options);
    if (moved.size > before) from.push(id);
    // None of them can go when one of them stays.
    if (moved.size < before + chunks.length) break;
  }
  const carried = mapChunks(content, (chunk) => moved.get(placeOf(chunk)) ?? chunk);
  const bytes = [...moved.values()].reduce((sum, { size }) => sum + size, 0);
  return { ...renumber(carried, references), ...(from.length > 0 ? { carriedOver: { bytes, from } } : {}) };
}

type NeededChunks = ReadonlyMap<string, readonly ChunkRef[]>;

/** Chooses among those that can be read now. */
async function planReadable(needed: NeededChunks, { base, earlier, signal }: CarryOverOptions) {
  const bytes = new Map([...needed].map(([id, chunks]) => [id, chunks.reduce((sum, { size }) => sum + size, 0)]));
  const unreadable = new Set<string>();
  for (;;) {
    const plan = planCarryOver({ needed: bytes, earlier, unreadable });
    const refs = plan.flatMap((id) => needed.get(id) ?? []).map((chunk) => base.book.inBase(chunk));
    const { archived } = await base.reader.readStates(refs, { signal });
    if (archived.length === 0) return plan;
    for (const { id } of archived) unreadable.add(id);
  }
}

/** Gives the chunks that lie in each earlier snapshot, each once: neighbours, which are read together, side by side. */
function neededChunks(content: ChunkHolders, references: readonly SnapshotReference[]): NeededChunks {
  const needed = references.map(() => new Map<string, ChunkRef>());
  for (const chunk of chunksOf(content)) {
    if (chunk.snapshot !== undefined) needed[chunk.snapshot]?.set(placeOf(chunk), chunk);
  }
  const byId = references.map(({ id }, index) => [id, inOrder(needed[index]?.values() ?? [])] as const);
  return new Map(byId.filter(([, chunks]) => chunks.length > 0));
}

function placeOf({ snapshot, volume, offset }: ChunkRef): string {
  return `${snapshot}/${volume}/${offset}`;
}

function inOrder(chunks: Iterable<ChunkRef>): readonly ChunkRef[] {
  return [...chunks].sort((left, right) => left.volume - right.volume || left.offset - right.offset);
}

interface Carried {
  readonly id: string;
  readonly chunks: readonly ChunkRef[];
}

/** Adds the new places of these chunks to `moved`. */
async function storeAgain(
  { id, chunks }: Carried,
  moved: Map<string, ChunkRef>,
  options: CarryOverOptions,
): Promise<void> {
  const { base, sink, report } = options;
  const refs = chunks.map((chunk) => base.book.inBase(chunk));
  report({ type: "phase", text: `storing again ${formatPlural(chunks.length, "chunk")} of ${id}` });
  const queue = chunks.entries();
  const stored = mapAhead(readWhileThere(id, refs, options), STORED_AHEAD, async (raw) => {
    const [index, chunk] = queue.next().value ?? [];
    if (index === undefined || !chunk) throw new RangeError("more chunks were read than were asked for");
    const rawSha256 = hash("sha256", raw);
    if (chunk.rawSha256 !== undefined && chunk.rawSha256 !== rawSha256) throw wrongContent(id, chunk);
    const entry = `carried/${id}/${String(index + 1).padStart(6, "0")}`;
    const place = await sink.addChunk(entry, raw, chunk.rows);
    freeBytes(raw);
    return { chunk, place: { ...place, rawSha256 } };
  });
  for await (const { chunk, place } of stored) moved.set(placeOf(chunk), place);
}

/** Ends early when no destination answers: the new snapshot can do without what is not carried over. */
async function* readWhileThere(
  id: string,
  refs: readonly ChunkRef[],
  { base, signal, report }: CarryOverOptions,
): AsyncIterable<Uint8Array> {
  try {
    yield* base.reader.chunks(refs, { signal });
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof OperationalError) || error.kind !== "destination") throw error;
    report({ type: "warning", message: `${id} is not carried over: ${error.message}` });
  }
}

function wrongContent(id: string, { volume, offset }: ChunkRef): OperationalError {
  return archiveError(
    `cannot read the chunk at byte ${offset} of volume ${volume + 1} of ${id}: it holds other bytes than were recorded`,
    "hash-mismatch",
  );
}

/** Leaves out the references that no chunk needs. */
function renumber(content: ChunkHolders, references: readonly SnapshotReference[]): ReferringContent {
  const used = new Set([...chunksOf(content)].map(({ snapshot }) => snapshot));
  const left = [...references.keys()].filter((index) => used.has(index));
  const numbers = new Map(left.map((index, number) => [index, number]));
  const renumbered = mapChunks(content, (chunk) =>
    chunk.snapshot === undefined ? chunk : { ...chunk, snapshot: numbers.get(chunk.snapshot) },
  );
  return { ...renumbered, references: references.filter((_, index) => used.has(index)) };
}

function mapChunks(content: ChunkHolders, map: (chunk: ChunkRef) => ChunkRef): ChunkHolders {
  const { tables, largeObjects, files } = content;
  return {
    tables: tables.map((table) => mapTable(table, map)),
    largeObjects: { ...largeObjects, chunks: largeObjects.chunks.map(map) },
    files: files.map((file) => ({ ...file, chunks: file.chunks.map(map) })),
  };
}

function mapTable(table: StoredTable, map: (chunk: ChunkRef) => ChunkRef): StoredTable {
  const { segments, removed, pageMaps } = table;
  const mapped = segments.map((segment) => ({ ...segment, chunks: segment.chunks.map(map) }));
  const chunks = mapped.flatMap((segment) => segment.chunks);
  return {
    ...table,
    segments: mapped,
    // Compressed and encrypted anew they need not be as large as they were.
    storedBytes: chunks.reduce((sum, { size }) => sum + size, 0),
    ...(removed ? { removed: { ...removed, chunks: removed.chunks.map(map) } } : {}),
    ...(pageMaps ? { pageMaps: pageMaps.map(map) } : {}),
  };
}
