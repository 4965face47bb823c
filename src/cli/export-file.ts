import { stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { openObjectSink } from "../archive/object-sink.ts";
import { openLocalBytes, openObjectBytes, type StoredBytes } from "../archive/stored-bytes.ts";
import { OperationalError } from "../base/errors.ts";
import type { Destination, OpenDestinationOptions } from "../destinations/destination.ts";
import { openResilientDestination } from "../destinations/open-resilient-destination.ts";
import { destinationSettingsOf } from "../job/destination-settings-of.ts";
import { parseDestinationUrl, parseFileUrl, type RemoteFile } from "../job/destination-url.ts";
import type { JobDestination } from "../job/job-schema.ts";
import { stampOf } from "../snapshot/snapshot-id.ts";
import { type ExportTo, exportToFile } from "../usecases/export-database.ts";
import type { CliContext } from "./context.ts";
import { exportToStdout } from "./stdout-sink.ts";
import { newJobSurroundings } from "./try-destination.ts";

/**
 * Gives what an export writes: the file or object that was named, one with a new name in the folder that was, or stdout for `-`. The name
 * of the database begins a new name.
 */
export async function exportToOf(written: string, database: string, context: CliContext): Promise<ExportTo> {
  if (written === "-") return exportToStdout(context);
  const named = namedFileOf(written, context.cwd);
  // Only what every file system and shell takes.
  const start = database.replaceAll(/[^\w.-]/g, "_").replace(/^\.+/, "_");
  const name = `${start}-${stampOf(context.now())}.rowkeep`;
  if (typeof named === "string") {
    return exportToFile(/[/\\]$/.test(written) || (await isFolder(named)) ? join(named, name) : named);
  }
  const file = named.key === "" ? { ...named, key: name, place: `${named.place}${name}` } : named;
  const { key, place } = file;
  const open = async () =>
    openObjectSink({ destination: await openRemote(file, context), key, place, signal: context.signal });
  return { place, spoolParent: tmpdir(), open };
}

/** Opens the file that an import reads. Fails with `not-found`, and for `-`: a pipe cannot be read in any order. */
export async function openImportFile(written: string, context: CliContext): Promise<StoredBytes> {
  if (written === "-") {
    throw new OperationalError(
      "cannot import from stdin: rowkeep reads the file in another order than it was written",
      {
        kind: "usage",
        code: "needs-file",
        hint: "Store it first (cat > shop.rowkeep) and import that file.",
      },
    );
  }
  const named = namedFileOf(written, context.cwd);
  if (typeof named === "string") return openLocalBytes(named);
  if (named.key === "") {
    throw new OperationalError(`cannot import ${named.place}: it is a folder`, {
      kind: "usage",
      code: "needs-file",
      hint: "Name the file in it that rowkeep export wrote.",
    });
  }
  const destination = await openRemote(named, context, { asItIs: true });
  try {
    const bytes = await openObjectBytes({ ...named, destination, signal: context.signal });
    return { ...bytes, [Symbol.asyncDispose]: () => Promise.resolve(destination[Symbol.asyncDispose]()) };
  } catch (error) {
    await destination[Symbol.asyncDispose]();
    throw error;
  }
}

/** The path of a file of this machine, or a file at a destination. */
function namedFileOf(written: string, cwd: string): string | RemoteFile {
  if (!/^[a-z][a-z0-9+.-]+:\/\//i.test(written)) return resolve(cwd, written);
  if (!/^file:/i.test(written)) return parseFileUrl(written, cwd);
  return resolve(cwd, String(parseDestinationUrl(written, cwd)["path"]));
}

async function openRemote(
  { destination }: RemoteFile,
  context: CliContext,
  options: Pick<OpenDestinationOptions, "asItIs"> = {},
): Promise<Destination> {
  // It was checked against the schema.
  const written = destination as unknown as JobDestination;
  const settings = await destinationSettingsOf(written, 0, newJobSurroundings(context));
  return openResilientDestination(settings, { ...options, signal: context.signal });
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}
