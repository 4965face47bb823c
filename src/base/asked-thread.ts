import { type ResourceLimits, Worker } from "node:worker_threads";
import { orAborted } from "./or-aborted.ts";

export interface ThreadOptions {
  /** See `threadUrl`. */
  readonly file: string;
  /** `import.meta.url` of who starts it. */
  readonly from: string;
  readonly limits: ResourceLimits;
}

/** Where the file of a thread is, by its name without the ending: beside that of who starts it, as sources and when bundled. */
export function threadUrl(file: string, from: string): URL {
  return new URL(`./${file}.${from.endsWith(".ts") ? "ts" : "js"}`, from);
}

/**
 * A thread that answers requests in their order. It starts with the first one, and holds no process open while nobody waits. A
 * lost one answers undefined from then on: whoever asks must know another way.
 */
export class AskedThread<Request, Answer> implements Disposable {
  readonly #options: ThreadOptions;
  #worker: Worker | undefined;
  #isLost = false;
  /** Who waits for an answer, in the order of their requests. */
  readonly #asked: PromiseWithResolvers<Answer | undefined>[] = [];

  constructor(options: ThreadOptions) {
    this.#options = options;
  }

  /** Rejects only with the signal's reason. */
  async ask(request: Request, { signal }: { readonly signal: AbortSignal }): Promise<Answer | undefined> {
    if (this.#isLost) return undefined;
    this.#worker ??= this.#start();
    const answer = Promise.withResolvers<Answer | undefined>();
    this.#asked.push(answer);
    this.#worker.ref();
    this.#worker.postMessage(request);
    return await orAborted(answer.promise, signal);
  }

  #start(): Worker {
    const { file, from, limits } = this.#options;
    // The command's own flags (an inspector, a profile) are not meant for the thread.
    const worker = new Worker(threadUrl(file, from), { execArgv: [], name: `rowkeep-${file}`, resourceLimits: limits });
    worker.on("message", (answer: Answer) => {
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

  /** Does not wait for what it is doing. */
  [Symbol.dispose](): void {
    this.#isLost = true;
    void this.#worker?.terminate();
  }
}
