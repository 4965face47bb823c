import { lstatSync } from "node:fs";
import { enableCompileCache } from "node:module";
import { join } from "node:path";
import type { Home } from "../job/home.ts";

/** Others who may write there could have their own code run in its place. */
const WRITABLE_BY_OTHERS = 0o022;

/**
 * Has Node keep what it compiles of the modules that are loaded from now on, beside the rest of the state: a run of a small job takes
 * as long to compile as to read. Where there is no state yet, nothing is made: a command that touches nothing leaves nothing behind.
 */
export function keepCompiledCode({ state }: Pick<Home, "state">): void {
  if (isClosedFolder(state)) enableCompileCache(join(state, "code"));
}

function isClosedFolder(path: string): boolean {
  try {
    const stats = lstatSync(path);
    // Windows has no such bits: there the folders of a user are closed.
    const isClosed = stats.uid === process.getuid?.() && (stats.mode & WRITABLE_BY_OTHERS) === 0;
    return stats.isDirectory() && (isClosed || process.platform === "win32");
  } catch {
    // A home that cannot be looked at is told by what needs it.
    return false;
  }
}
