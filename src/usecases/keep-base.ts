import { hash } from "node:crypto";
import { readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { archiveError } from "../archive/archive-error.ts";
import { codeOf, OperationalError } from "../base/errors.ts";
import { makeFolders } from "../base/make-folders.ts";
import type { ChunkRef, Manifest } from "../snapshot/manifest.ts";
import { renderManifest } from "../snapshot/manifest-text.ts";
import { parseManifest } from "../snapshot/parse-manifest.ts";
import type { SnapshotReader } from "../snapshot/snapshot-reader.ts";
import type { ChunkSink } from "./reuse-chunks.ts";

/**
 * Remembers on this machine what an incremental needs of the last snapshot of a database, where the machine cannot open what it
 * encrypted: its manifest, page maps and lists of removed rows. No values of rows are among it. It is a cache: without it
 * the next incremental is a full.
 */
export interface BaseKeeper {
  /** Gives what is remembered of this snapshot; undefined when it is not there, or damaged. */
  find(id: string): Promise<SnapshotReader | undefined>;
  /** Passes chunks on, and notes those that will be needed. */
  watch(sink: ChunkSink): ChunkSink;
  /** Remembers this snapshot, in place of all others. Fails with the errors of the file system. */
  keep(manifest: Manifest, base: SnapshotReader | undefined): Promise<void>;
}

/** What is noted of one chunk while the id of the snapshot is not known. */
interface Noted {
  readonly ref: ChunkRef;
  readonly raw: Buffer;
}

const MANIFEST = "manifest.json";

export function openBaseKeeper(folder: string): BaseKeeper {
  const noted: Noted[] = [];
  return {
    async find(id) {
      try {
        const manifest = parseManifest(await readFile(join(folder, id, MANIFEST)), join(folder, id, MANIFEST));
        return manifest.id === id ? readerOf(manifest, join(folder, id)) : undefined;
      } catch (error) {
        if (codeOf(error) === "ENOENT" || error instanceof OperationalError) return undefined;
        throw error;
      }
    },
    watch(sink) {
      // Of an attempt that begins again.
      noted.length = 0;
      return {
        async addChunk(entry, raw, rows) {
          const isNeeded = typeof entry !== "string" && ["pages", "removed"].includes(entry.extension);
          const copy = isNeeded ? Buffer.from(raw) : undefined;
          const ref = await sink.addChunk(entry, raw, rows);
          if (copy) noted.push({ ref, raw: copy });
          return ref;
        },
      };
    },
    async keep(manifest, base) {
      const target = join(folder, manifest.id);
      const draft = `${target}.in-progress`;
      await rm(draft, { recursive: true, force: true });
      await makeFolders(draft);
      const own = new Map(noted.map(({ ref, raw }) => [placeOf(manifest, ref), raw]));
      const known = new Map(base && [...neededOf(base.manifest)].map((ref) => [placeOf(base.manifest, ref), ref]));
      for (const ref of neededOf(manifest)) {
        const name = placeOf(manifest, ref);
        const bytes = own.get(name) ?? (await copyOf(base, known.get(name)));
        await writeFile(join(draft, name), bytes, { mode: 0o600 });
      }
      await writeFile(join(draft, MANIFEST), renderManifest(manifest), { mode: 0o600 });
      await rename(draft, target);
      for (const name of await readdir(dirname(target))) {
        if (name !== manifest.id) await rm(join(folder, name), { recursive: true, force: true });
      }
    },
  };
}

function* neededOf({ tables }: Manifest): Iterable<ChunkRef> {
  for (const { pageMaps = [], removed } of tables) {
    yield* pageMaps;
    if (removed) yield* removed.chunks;
  }
}

/** Names a chunk by where it is, whoever refers to it. */
function placeOf(manifest: Manifest, { snapshot, volume, offset }: ChunkRef): string {
  const id = snapshot === undefined ? manifest.id : manifest.references?.[snapshot]?.id;
  return `${id}-${volume}-${offset}`;
}

/** A chunk that was taken over from the base. */
async function copyOf(base: SnapshotReader | undefined, ref: ChunkRef | undefined): Promise<Buffer> {
  if (!base || !ref) throw new RangeError("the chunk is not one of the base");
  const parts: Uint8Array[] = [];
  for await (const bytes of base.chunks([ref], { signal: new AbortController().signal })) parts.push(bytes);
  return Buffer.concat(parts);
}

function readerOf(manifest: Manifest, folder: string): SnapshotReader {
  return {
    manifest,
    passedOver: [],
    async *chunks(refs, { signal }) {
      for (const ref of refs) {
        signal.throwIfAborted();
        const name = placeOf(manifest, ref);
        const bytes = await readFile(join(folder, name)).catch((cause: unknown) => {
          throw archiveError(`cannot read ${name}: this machine does not remember it`, "missing-volume", { cause });
        });
        const isWhole = bytes.length === ref.rawSize && hash("sha256", bytes) === ref.rawSha256;
        if (!isWhole) throw archiveError(`cannot read ${name}: it is damaged`, "wrong-size");
        yield bytes;
      }
    },
    async readStates() {
      return { archived: [], closed: new Map() };
    },
    async [Symbol.asyncDispose]() {},
  };
}
