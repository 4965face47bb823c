import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Destination } from "../../src/destinations/destination.ts";
import { openDestination } from "../../src/destinations/open-destination.ts";
import { openSource } from "../../src/drivers/open-driver.ts";
import type { Manifest } from "../../src/snapshot/manifest.ts";
import { openSnapshotReader } from "../../src/snapshot/open-snapshot-reader.ts";
import { readerWith, type SnapshotReader } from "../../src/snapshot/snapshot-reader.ts";
import { readTableRows } from "../../src/snapshot/table-rows.ts";
import { type BackUpOptions, backUp } from "../../src/usecases/back-up.ts";
import { type BaseSnapshot, baseOf } from "../../src/usecases/reuse-chunks.ts";
import { backUpOptions } from "./back-up-options.ts";
import { connectionOfUrl } from "./connection.ts";

const signal = new AbortController().signal;
const PREFIX = "shop/shop";

/** Rows of every table as sorted lines of COPY text. */
export type Content = Readonly<Record<string, readonly string[]>>;

/** A folder with a full and the incrementals that build on each other. */
export interface Chain extends AsyncDisposable {
  readonly destination: Destination;
  readonly latest: Manifest | undefined;
  /** Takes the next snapshot: a full first, then incrementals. */
  next(url: string, more?: Partial<BackUpOptions>): Promise<Manifest>;
  readerOf(manifest: Manifest): SnapshotReader;
}

export async function openChain(): Promise<Chain> {
  const folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
  const destination = await openDestination({ type: "local", path: join(folder, "backups") }, { signal });
  let latest: Manifest | undefined;
  const readerOf = (manifest: Manifest) =>
    openSnapshotReader({ destinations: [destination], prefix: PREFIX, manifest, signal });
  return {
    destination,
    get latest() {
      return latest;
    },
    readerOf,
    async next(url, more = {}) {
      const result = await backUp(
        backUpOptions(
          url,
          { folder, destinations: [destination] },
          { track: true, ...(latest ? { base: baseOf(readerOf(latest)) } : {}), ...more },
        ),
      );
      latest = result.manifest;
      return latest;
    },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}

/** The last snapshot of a chain as it would look if the server had been restarted since. */
export function asBeforeRestart(chain: Chain): BaseSnapshot {
  if (!chain.latest?.trust) throw new Error("the chain has no snapshot with a token");
  const { latest } = chain;
  const reader = chain.readerOf(latest);
  return baseOf(
    readerWith(reader, {
      manifest: { ...latest, trust: { ...chain.latest.trust, startedAt: "0" } },
    }),
  );
}

/** Restores the rows of a snapshot without a database. */
export async function contentOf(reader: SnapshotReader): Promise<Content> {
  const content: Record<string, readonly string[]> = {};
  for (const table of reader.manifest.tables) {
    const parts: Buffer[] = [];
    for await (const bytes of readTableRows(reader, table, { signal })) parts.push(Buffer.from(bytes));
    content[`${table.schema}.${table.name}`] = linesOf(Buffer.concat(parts));
  }
  return content;
}

/** Reads the rows of a database as they are now, in one plain COPY a table. */
export async function truthOf(url: string): Promise<Content> {
  const options = { parallel: 1, choose: () => "rows" as const, stallTimeoutMs: 60_000, signal };
  await using source = await openSource(connectionOfUrl(url), options);
  const content: Record<string, readonly string[]> = {};
  for (const table of source.tables) {
    const parts: Buffer[] = [];
    for await (const { bytes } of source.rows(table, { estimatedBytes: 0 }, { batchBytes: 1 << 20, signal })) {
      parts.push(Buffer.from(bytes));
    }
    content[`${table.schema}.${table.name}`] = linesOf(Buffer.concat(parts));
  }
  return content;
}

function linesOf(bytes: Buffer): readonly string[] {
  return bytes.toString("utf8").split("\n").slice(0, -1).sort();
}

/** `method` of every table by its name. */
export function methodsOf(manifest: Manifest): Readonly<Record<string, string>> {
  return Object.fromEntries(manifest.tables.map(({ name, method }) => [name, method]));
}
