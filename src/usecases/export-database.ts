import { mkdtemp, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type FileSink, openLocalFileSink } from "../archive/file-sink.ts";
import { SingleFileDestination } from "../archive/single-file-destination.ts";
import { codeOf, messageOf, OperationalError } from "../base/errors.ts";
import type { ChosenTable, Connection } from "../drivers/driver.ts";
import { chooseTable, matchTables } from "../plan/table-patterns.ts";
import { renderRecoverText } from "../snapshot/recover-text.ts";
import { type BackUpResult, backUpOnce } from "./back-up.ts";
import { beginAgain } from "./begin-again.ts";
import { convertingWherePossible } from "./keep-encoding.ts";
import type { Report } from "./progress.ts";

/** Folder of the snapshot's objects as readers of an exported file see it; it is not kept in the file. */
export const EXPORT_PREFIX = "export/database";

/** The file that an export writes. */
export interface ExportTo {
  /** As people name it. */
  readonly place: string;
  /** Folder in which a few volumes lie for a moment. */
  readonly spoolParent: string;
  /** Opens it anew for each attempt; an attempt that failed was disposed. */
  readonly open: () => Promise<FileSink>;
}

/** Writes a file of this machine, which must not exist. */
export function exportToFile(path: string): ExportTo {
  // Beside the file: on a disk that must hold all of it anyway.
  return { place: path, spoolParent: dirname(path), open: () => openLocalFileSink(path) };
}

export interface ExportDatabaseOptions {
  readonly connection: Connection;
  readonly to: ExportTo;
  /** Patterns; undefined: all tables. */
  readonly tables?: readonly string[] | undefined;
  /** Called with the id before anything is stored. */
  readonly onBegin?: ((id: string) => void) | undefined;
  readonly parallel: number;
  readonly stallTimeoutMs: number;
  readonly signal: AbortSignal;
  readonly report: Report;
}

/**
 * Backs a database up once into one file: a tar of the same objects that a destination would hold. The file appears when
 * it is complete. Fails with kind `database` or `destination`; nothing is left then.
 */
export async function exportDatabase(options: ExportDatabaseOptions): Promise<BackUpResult> {
  const spoolFolder = await makeSpool(options.to);
  try {
    // In a new file: what an attempt put into one cannot be taken back.
    return await convertingWherePossible(
      (ownEncoding) => beginAgain(() => tryExport({ ...options, ownEncoding }, spoolFolder), options),
      { ...options, ownEncoding: false },
    );
  } finally {
    await rm(spoolFolder, { recursive: true, force: true });
  }
}

async function tryExport(
  options: ExportDatabaseOptions & { readonly ownEncoding: boolean },
  spoolFolder: string,
): Promise<BackUpResult> {
  const compression = { codec: "zstd", level: 2 } as const;
  options.signal.throwIfAborted();
  await using destination = new SingleFileDestination({
    sink: await options.to.open(),
    prefix: EXPORT_PREFIX,
    lastName: "manifest.json",
    modifiedAt: new Date(),
  });
  const recover = Buffer.from(
    `Unpack this file with tar first and enter the folder.\n\n${renderRecoverText({ compression })}`,
  );
  async function* content() {
    yield recover;
  }
  await destination.put(`${EXPORT_PREFIX}/RECOVER.md`, content, { size: recover.length, signal: options.signal });
  const choose = chooseTable({ include: options.tables });
  const seen: ChosenTable[] = [];
  return await backUpOnce({
    ...options,
    choose: (table) => {
      seen.push(table);
      return choose(table);
    },
    onBegin: (id) => {
      // A pattern for nothing is a mistake, and the file would be short of what was meant.
      matchTables(options.tables ?? [], seen);
      options.onBegin?.(id);
    },
    destinations: [destination],
    job: "export",
    prefix: EXPORT_PREFIX,
    compression,
    files: [],
    spoolFolder,
  });
}

async function makeSpool({ place, spoolParent }: ExportTo): Promise<string> {
  try {
    return await mkdtemp(join(spoolParent, ".rowkeep-export-"));
  } catch (cause) {
    const reason = codeOf(cause) === "ENOENT" ? `the folder ${spoolParent} does not exist` : messageOf(cause);
    throw new OperationalError(`cannot write ${place}: ${reason}`, {
      kind: "destination",
      code: "failed",
      hint: "Choose a folder that exists and can be written.",
      cause,
    });
  }
}
