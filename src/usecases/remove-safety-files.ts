import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { messageOf } from "../base/errors.ts";

/** How many stay, however old they are. */
const KEPT = 5;
/** As safety snapshots, they stay for a week in any case: somebody may import into many databases in a row. */
const KEPT_MS = 7 * 86_400_000;

/** `20261121T020000000Z.rowkeep`, and what a killed import left of one. */
const NAME = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)(\d{3})Z\.rowkeep(\.[0-9a-f]+\.in-progress)?$/;

/** Names the file of what an import replaces. */
export function safetyFileName(at: Date): string {
  return `${at.toISOString().replaceAll(/[-:.]/g, "")}.rowkeep`;
}

export interface RemoveSafetyFilesOptions {
  /** Holds what imports replaced. */
  readonly folder: string;
  /** A file that stays. */
  readonly spared: string;
  readonly now: Date;
}

/** Removes what earlier imports replaced, but for the newest five and those of the last 7 days; gives warnings. */
export async function removeSafetyFiles({ folder, spared, now }: RemoveSafetyFilesOptions): Promise<readonly string[]> {
  const warnings: string[] = [];
  const newestFirst = (await readdir(folder))
    .filter((name) => NAME.test(name))
    .toSorted()
    .reverse();
  const complete = newestFirst.filter((name) => name.endsWith(".rowkeep"));
  const kept = new Set(complete.slice(0, KEPT));
  for (const name of newestFirst) {
    const path = join(folder, name);
    if (kept.has(name) || path === spared || now.getTime() - timeOf(name) < KEPT_MS) continue;
    try {
      await rm(path, { force: true });
    } catch (error) {
      warnings.push(`${path} could not be removed: ${messageOf(error)}`);
    }
  }
  return warnings;
}

function timeOf(name: string): number {
  return Date.parse(name.replace(NAME, "$1-$2-$3T$4:$5:$6.$7Z"));
}
