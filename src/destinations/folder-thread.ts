import { Worker } from "node:worker_threads";
import type { FilesToRead, FolderAnswer, FolderContent, FolderRequest } from "./folder-worker.ts";
import { orAborted } from "./network-errors.ts";

/** The same folder holds this file and the thread's, as sources and when compiled. */
const WORKER = new URL(import.meta.url.endsWith(".ts") ? "./folder-worker.ts" : "./folder-worker.js", import.meta.url);

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
  #worker: Worker | undefined;
  #isLost = false;
  /** Who waits for an answer, in the order of their requests. */
  readonly #asked: PromiseWithResolvers<FolderAnswer | undefined>[] = [];

  /** Tells what lies in each of these folders. Rejects only with the signal's reason. */
  async look(folders: readonly string[], { signal }: Waiting): Promise<readonly (FolderContent | undefined)[]> {
    return ((await this.#ask({ look: folders }, signal)) ?? []) as readonly (FolderContent | undefined)[];
  }

  /** Reads each of these files whole, unless it is larger than `maxBytes`. Rejects only with the signal's reason. */
  async read(files: FilesToRead, { signal }: Waiting): Promise<readonly (Uint8Array | undefined)[]> {
    return ((await this.#ask(files, signal)) ?? []) as readonly (Uint8Array | undefined)[];
  }

  async #ask(request: FolderRequest, signal: AbortSignal): Promise<FolderAnswer | undefined> {
    if (this.#isLost) return undefined;
    this.#worker ??= this.#start();
    const answer = Promise.withResolvers<FolderAnswer | undefined>();
    this.#asked.push(answer);
    this.#worker.ref();
    this.#worker.postMessage(request);
    return await orAborted(answer.promise, signal);
  }

  #start(): Worker {
    // The command's own flags (an inspector, a profile) are not meant for the thread.
    const worker = new Worker(WORKER, { execArgv: [], name: "rowkeep-folders", resourceLimits: LIMITS });
    worker.on("message", (answer: FolderAnswer) => {
      this.#asked.shift()?.resolve(answer);
      if (this.#asked.length === 0) worker.unref();
    });
    const lose = () => {
      this.#isLost = true;
      for (const one of this.#asked.splice(0)) one.resolve(undefined);
    };
    worker.on("error", lose);
    worker.on("exit", lose);
    return worker;
  }

  /** Does not wait for a call of the system that stands still. */
  [Symbol.dispose](): void {
    this.#isLost = true;
    void this.#worker?.terminate();
  }
}
