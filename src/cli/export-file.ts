import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { OperationalError } from "../base/errors.ts";
import { parseDestinationUrl } from "../job/destination-url.ts";
import { stampOf } from "../snapshot/snapshot-id.ts";

export interface ExportPlace {
  readonly cwd: string;
  /** Its name begins the name that is made up. */
  readonly database: string;
  readonly now: Date;
}

/** Gives the file that an export writes: the one that was named, or one with a new name in the folder that was. */
export async function exportFileOf(written: string, { cwd, database, now }: ExportPlace): Promise<string> {
  const path = localPathOf(written, cwd);
  if (!(/[/\\]$/.test(written) || (await isFolder(path)))) return path;
  // Only what every file system and shell takes.
  const name = database.replaceAll(/[^\w.-]/g, "_").replace(/^\.+/, "_");
  return join(path, `${name}-${stampOf(now)}.rowkeep`);
}

/** The path of a file of this machine. Fails with `not-available` for what lies elsewhere. */
export function localPathOf(written: string, cwd: string): string {
  if (!/^[a-z][a-z0-9+.-]+:\/\//i.test(written)) return resolve(cwd, written);
  const destination = parseDestinationUrl(written, cwd);
  if (destination.type === "local") return resolve(cwd, String(destination["path"]));
  throw new OperationalError(`cannot use the destination ${destination.type} for a single file: not available yet`, {
    kind: "usage",
    code: "not-available",
    hint: "Name a file or folder of this machine, or make a job with this destination: rowkeep job create --to.",
  });
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}
