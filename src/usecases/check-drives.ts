import { stat, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { codeOf } from "../base/errors.ts";
import { type Check, type Finding, warningOf } from "./check.ts";

export interface Drives {
  /** Local destinations. */
  readonly folders: readonly { readonly name: string; readonly path: string }[];
  /** The database runs on this machine. */
  readonly isDatabaseHere: boolean;
  /** Where its files lie, as far as its login may know. */
  readonly dataFolder: string | undefined;
}

/** Warns of local destinations that would be lost together with the database, or with each other. */
export async function checkDrives({ folders, isDatabaseHere, dataFolder }: Drives): Promise<readonly Check[]> {
  const known = await Promise.all(folders.map(async ({ name, path }) => ({ name, drive: await driveOf(path) })));
  const ofDatabase = isDatabaseHere && dataFolder !== undefined ? await driveOf(dataFolder) : undefined;
  const checks: Check[] = [];
  const add = (name: string, subject: string, finding: Finding) =>
    checks.push({
      name,
      subject,
      ...(typeof finding === "string" ? { status: "ok" as const, message: finding } : finding),
    });
  for (const [index, { name, drive }] of known.entries()) {
    if (drive === undefined) continue;
    if (isDatabaseHere) add("drive", name, besideDatabase(drive, ofDatabase));
    const twin = known.slice(0, index).find((other) => other.drive === drive);
    if (twin) {
      const hint = "Put one of them on another drive or machine.";
      add("drive", name, warningOf(`it lies on the same drive as ${twin.name}: both are lost together`, hint));
    }
  }
  return checks;
}

function besideDatabase(drive: number, ofDatabase: number | undefined): Finding {
  const hint = "Add a destination on another drive or machine.";
  if (ofDatabase === undefined) {
    return warningOf("the database runs on this machine, and this login may not see on which drive", hint);
  }
  if (drive === ofDatabase) return warningOf("it lies on the drive of the database: both are lost together", hint);
  return "it lies on another drive than the database";
}

/** Number of the file system; undefined where nothing is. */
async function driveOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).dev;
  } catch {
    return undefined;
  }
}

/** Bytes that may still be written in a folder, or in the nearest one above it that is there. */
export async function freeBytesAt(path: string): Promise<number> {
  try {
    const { bavail, bsize } = await statfs(path);
    return bavail * bsize;
  } catch (error) {
    // A file or a closed folder in the way is told where the destination is opened.
    if (codeOf(error) === undefined || dirname(path) === path) throw error;
    return await freeBytesAt(dirname(path));
  }
}
