import { codeOf, OperationalError } from "../base/errors.ts";
import type { Connection } from "../drivers/driver.ts";
import { openScratch, openSource } from "../drivers/open-driver.ts";
import type { Scratch } from "../drivers/scratch.ts";
import { leaveUndefinedOut } from "../snapshot/leave-undefined-out.ts";
import type { Manifest, StoredTable } from "../snapshot/manifest.ts";
import { readerWith, type SnapshotReader } from "../snapshot/snapshot-reader.ts";
import { leaveOutRemoved } from "../snapshot/table-rows.ts";
import { ownEncodingOf } from "../snapshot/own-encoding.ts";
import { compareRestored, type DrillProblem, keyOf, LARGE_OBJECTS } from "./compare-restored.ts";
import type { Report } from "./progress.ts";
import { restoreIntoEmpty } from "./restore-create.ts";
import { RowDigest } from "./row-digest.ts";

export interface DrillOptions {
  /** Should read from one destination only: the proof is about what lies there. */
  readonly reader: SnapshotReader;
  /** Any database of the server where the scratch database is made; it is only connected to. */
  readonly server: Connection;
  readonly parallel: number;
  readonly stallTimeoutMs: number;
  readonly now: () => Date;
  readonly signal: AbortSignal;
  readonly report: Report;
}

export interface DrilledSnapshot {
  readonly id: string;
  /** Everything that was compared is equal. */
  readonly ok: boolean;
  readonly chunks: number;
  /** Stored bytes of those chunks. */
  readonly bytes: number;
  readonly rows: number;
  readonly durationMs: number;
  readonly server: { readonly host: string | undefined; readonly port: number | undefined; readonly version: string };
  /** Name that the scratch database had. */
  readonly database: string;
  readonly problems: readonly DrillProblem[];
  /** What could not be restored or compared there. */
  readonly warnings: readonly string[];
}

/**
 * Restores a snapshot into a scratch database, reads everything back with the settings of a backup and compares it: the rows of
 * every table and the large objects as sets (see row-digest.ts), sequences, definitions. What the server computes
 * (generated columns, materialized views) is made again and not compared. Files are read and their hashes checked. The scratch
 * database is dropped in any case.
 * Differences are results. Fails with kind `database` when the drill could not be done, `archive`, `destination`.
 */
export async function drillSnapshot(options: DrillOptions): Promise<DrilledSnapshot> {
  const { server, now, stallTimeoutMs, signal, report } = options;
  const { content: manifest, warnings: leftOut } = leaveUndefinedOut(options.reader.manifest);
  const reader = readerWith(options.reader, { manifest });
  const startedAt = now().getTime();
  const warnings: string[] = [];
  const warn = (message: string) => {
    warnings.push(message);
    report({ type: "warning", message });
  };
  for (const warning of leftOut) warn(warning);
  let outcome: Pick<DrilledSnapshot, "server" | "database" | "problems">;
  {
    report({ type: "phase", text: `making a scratch database at ${server.host}:${server.port}` });
    const making = { like: manifest.source, snapshot: manifest.id, now: now(), stallTimeoutMs, signal, onLeft: warn };
    await using scratch = await openScratch(server, making);
    for (const name of scratch.removed) warn(`${name}, left behind by a drill that was killed, was dropped`);
    for (const note of scratch.notes) warn(note);
    outcome = {
      server: { host: scratch.identity.host, port: scratch.identity.port, version: scratch.identity.version },
      database: scratch.name,
      problems: await restoreAndCompare({ ...options, reader }, scratch, warn),
    };
  }
  report({ type: "phase", text: "reading the files" });
  const ofFiles = manifest.files.flatMap((file) => file.chunks);
  for await (const _checked of reader.chunks(ofFiles, { signal }));
  const ofTables = manifest.tables.flatMap(({ segments, removed }) => [
    ...segments.flatMap((segment) => segment.chunks),
    ...(removed?.chunks ?? []),
  ]);
  const chunks = [...ofTables, ...manifest.largeObjects.chunks, ...ofFiles];
  return {
    id: manifest.id,
    ok: outcome.problems.length === 0,
    chunks: chunks.length,
    bytes: chunks.reduce((sum, { size }) => sum + size, 0),
    rows: manifest.tables.reduce((sum, { rows }) => sum + rows, 0),
    durationMs: now().getTime() - startedAt,
    ...outcome,
    warnings,
  };
}

async function restoreAndCompare(
  options: DrillOptions,
  scratch: Scratch,
  warn: (message: string) => void,
): Promise<readonly DrillProblem[]> {
  const { reader, parallel, stallTimeoutMs, signal, report } = options;
  const { manifest } = reader;
  const wanted = new Map<string, RowDigest>();
  let restored: Awaited<ReturnType<typeof restoreIntoEmpty>>;
  try {
    restored = await restoreIntoEmpty({
      reader: digesting(reader, wanted),
      target: scratch.connection,
      targetDb: scratch.name,
      planOnly: false,
      confirm: async () => true,
      parallel,
      grants: false,
      owners: false,
      stallTimeoutMs,
      signal,
      report,
    });
  } catch (error) {
    // The rows of a table arrived in another number than the manifest says: that is what a drill is for.
    if (!(error instanceof OperationalError) || codeOf(error) !== "count-mismatch") throw error;
    return [{ object: "", problem: error.message }];
  }
  const known = new Set(manifest.notCaptured);
  const refused = restored.warnings.filter((warning) => !known.has(warning));
  for (const warning of refused) warn(warning);
  await scratch.admitOwner();
  report({ type: "phase", text: "reading it back" });
  const choose = () => "rows" as const;
  await using source = await openSource(scratch.connection, {
    parallel,
    choose,
    stallTimeoutMs,
    ownEncoding: ownEncodingOf(manifest) !== undefined,
    signal,
  });
  const isSameMajor = majorOf(source.identity.version) === majorOf(manifest.source.version);
  const areDefinitionsExact = isSameMajor && refused.length === 0;
  return await compareRestored({ manifest, source, wanted, areDefinitionsExact, warn, signal, report });
}

/** Gives a reader that adds up, in `digests`, the rows that it hands out. */
function digesting(reader: SnapshotReader, digests: Map<string, RowDigest>): SnapshotReader {
  const places = placesOf(reader.manifest);
  return readerWith(reader, {
    async *chunks(refs, options) {
      const place = refs[0] && places.get(refs[0]);
      if (!place) {
        yield* reader.chunks(refs, options);
        return;
      }
      const digest = digests.get(place.name) ?? new RowDigest();
      digests.set(place.name, digest);
      const sink = digest.open(place.format);
      const given: Uint8Array[] = [];
      const tap = async function* () {
        for await (const bytes of reader.chunks(refs, options)) {
          // Who asked may give the memory back before the digest has seen the end of the chunk.
          given.push(place.table?.removed ? Buffer.from(bytes) : bytes);
          yield bytes;
        }
      };
      // Who asked leaves the removed rows out by itself; only the digest must not know them.
      for await (const bytes of place.table ? leaveOutRemoved(reader, place.table, tap(), options) : tap()) {
        sink.push(bytes);
        yield* given.splice(0);
      }
      yield* given;
      sink.end();
    },
  });
}

interface Place {
  readonly name: string;
  readonly format: "text" | "binary";
  /** A table of which rows were removed: its chunks are asked for all at once. */
  readonly table?: StoredTable | undefined;
}

function placesOf({ tables, largeObjects }: Manifest): ReadonlyMap<object, Place> {
  const places = new Map<object, Place>();
  for (const table of tables) {
    const place = { name: keyOf(table), format: table.format, ...(table.removed ? { table } : {}) };
    for (const { chunks } of table.segments) for (const chunk of chunks) places.set(chunk, place);
  }
  for (const chunk of largeObjects.chunks) places.set(chunk, { name: LARGE_OBJECTS, format: "text" });
  return places;
}

function majorOf(version: string): string {
  return version.split(".")[0] ?? "";
}
