import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { codeOf, messageOf, OperationalError } from "../base/errors.ts";
import { makeFolders } from "../base/make-folders.ts";

/** How many volumes the spool holds at most, the growing one included. */
export const SPOOL_VOLUMES = 4;

/** A private folder for volumes that are not stored everywhere yet, with a bounded number of places. */
export interface Spool extends AsyncDisposable {
  readonly folder: string;
  /** Waits for a free place. Rejects with the signal's reason. */
  acquire(options: { readonly signal: AbortSignal }): Promise<void>;
  release(): void;
}

/** Creates a new folder below `parent` (0700); disposal deletes it with everything in it. */
export async function openSpool(parent: string): Promise<Spool> {
  let folder: string;
  try {
    await makeFolders(parent);
    folder = await mkdtemp(join(parent, "rowkeep-spool-"));
  } catch (cause) {
    throw spoolError(parent, cause);
  }
  let free = SPOOL_VOLUMES;
  const waiting: (() => void)[] = [];
  return {
    folder,
    async acquire({ signal }) {
      signal.throwIfAborted();
      if (free > 0) {
        free--;
        return;
      }
      await new Promise<void>((resolve, reject) => {
        const take = () => {
          signal.removeEventListener("abort", leave);
          resolve();
        };
        const leave = () => {
          waiting.splice(waiting.indexOf(take), 1);
          reject(signal.reason);
        };
        waiting.push(take);
        signal.addEventListener("abort", leave, { once: true });
      });
    },
    release() {
      const next = waiting.shift();
      if (next) next();
      else free++;
    },
    async [Symbol.asyncDispose]() {
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** Says which folder could not take a volume and why. A full spool stops a backup as a full destination does. */
export function spoolError(folder: string, cause: unknown): OperationalError {
  const code = codeOf(cause);
  const full = code === "ENOSPC" || code === "EDQUOT" || code === "EFBIG";
  const reason = full ? "no space is left there" : messageOf(cause);
  return new OperationalError(`cannot write a volume to the spool folder ${folder}: ${reason}`, {
    kind: "destination",
    code: full ? "full" : code === "EACCES" || code === "EPERM" || code === "EROFS" ? "denied" : "failed",
    hint: full
      ? "Free space on that file system, or let the spool folder lie on another one; a few volumes must fit."
      : "Choose a spool folder that can be written.",
    cause,
  });
}
