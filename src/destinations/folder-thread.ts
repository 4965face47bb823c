import { AskedThread } from "../base/asked-thread.ts";
import type { FilesToRead, FolderAnswer, FolderContent, FolderRequest } from "./folder-worker.ts";

/** It holds one answer at a time. */
const LIMITS = { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 32 };

interface Waiting {
  readonly signal: AbortSignal;
}

/**
 * Looks into thousands of folders and reads thousands of small files in a thread of its own, where each call of the system
 * may block: that costs a fifth of asynchronous calls, and a network folder that stands still holds up nobody else.
 * What it cannot have, for whatever reason, is undefined: the ordinary way then tells why.
 */
export class FolderThread implements Disposable {
  readonly #thread = new AskedThread<FolderRequest, FolderAnswer>({
    file: "folder-worker",
    from: import.meta.url,
    limits: LIMITS,
  });

  /** Tells what lies in each of these folders. Rejects only with the signal's reason. */
  async look(folders: readonly string[], waiting: Waiting): Promise<readonly (FolderContent | undefined)[]> {
    return ((await this.#thread.ask({ look: folders }, waiting)) ?? []) as readonly (FolderContent | undefined)[];
  }

  /** Reads each of these files whole, unless it is larger than `maxBytes`. Rejects only with the signal's reason. */
  async read(files: FilesToRead, waiting: Waiting): Promise<readonly (Uint8Array<ArrayBuffer> | undefined)[]> {
    return ((await this.#thread.ask(files, waiting)) ?? []) as readonly (Uint8Array<ArrayBuffer> | undefined)[];
  }

  [Symbol.dispose](): void {
    this.#thread[Symbol.dispose]();
  }
}
