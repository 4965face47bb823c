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
  const stats = lstatSync(state, { throwIfNoEntry: false });
  if (!stats?.isDirectory()) return;
  const isOwn = process.platform === "win32" || stats.uid === process.getuid?.();
  if (isOwn && (stats.mode & WRITABLE_BY_OTHERS) === 0) enableCompileCache(join(state, "code"));
}
