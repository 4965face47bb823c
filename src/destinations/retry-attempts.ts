import { setTimeout as sleep } from "node:timers/promises";
import { isAbort, OperationalError } from "../base/errors.ts";
import { destinationError } from "./destination.ts";

export interface RetryLimits {
  /** How often an operation is tried in all. */
  readonly attempts: number;
  /** The same while the reason is `failed`, which rarely goes away by itself. */
  readonly failedAttempts: number;
  /** Upper bound of the first wait; it doubles from try to try. */
  readonly firstDelayMs: number;
  /** Upper bound of every wait. */
  readonly maxDelayMs: number;
  /** No try begins so long after the operation began or last got on: tries that stall are long. */
  readonly patienceMs: number;
}

/** What retrying takes from the world around it. */
export interface RetryClock {
  /** Milliseconds that never run backwards. */
  now(): number;
  /** At least 0 and below 1. */
  random(): number;
  /** Rejects with the signal's reason as soon as it is aborted. */
  wait(delayMs: number, options: { readonly signal: AbortSignal }): Promise<void>;
}

export const SYSTEM_CLOCK: RetryClock = {
  now: () => performance.now(),
  random: () => Math.random(),
  async wait(delayMs, { signal }) {
    try {
      await sleep(delayMs, undefined, { signal });
    } catch (error) {
      signal.throwIfAborted();
      throw error;
    }
  },
};

/** Shared by the operations of one destination: once one of them could not reach it in all its tries, the others try once. */
export interface Circuit {
  isOpen: boolean;
}

const PASSING = new Set(["unreachable", "busy", "failed"]);

/** Counts the tries of one operation, and waits between them: a random part of a bound that doubles ("full jitter"). */
export class Attempts {
  readonly #limits: RetryLimits;
  readonly #clock: RetryClock;
  readonly #circuit: Circuit;
  readonly #startedAt: number;
  #patientFrom: number;
  #total = 0;
  #inARow = 0;
  #failed = 0;

  constructor(limits: RetryLimits, clock: RetryClock, circuit: Circuit) {
    this.#limits = limits;
    this.#clock = clock;
    this.#circuit = circuit;
    this.#startedAt = clock.now();
    this.#patientFrom = this.#startedAt;
  }

  /** The destination answered as it should. */
  succeed(): void {
    this.#circuit.isOpen = false;
  }

  /** Something was achieved before the failure, so that the next one starts the count again. */
  progress(): void {
    this.succeed();
    this.#inARow = 0;
    this.#failed = 0;
    this.#patientFrom = this.#clock.now();
  }

  /**
   * Waits until it is time to try again after this error. Throws it when trying again is pointless; after the last try
   * with the words how often and for how long it was tried; the signal's reason when that is aborted.
   */
  async again(error: unknown, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    signal.throwIfAborted();
    this.#total++;
    this.#inARow++;
    if (!(error instanceof OperationalError) || error.kind !== "destination" || !PASSING.has(error.code)) throw error;
    if (error.code === "failed") this.#failed++;
    if (this.#isLast() || this.#circuit.isOpen) {
      if (error.code === "unreachable") this.#circuit.isOpen = true;
      throw this.#exhausted(error);
    }
    const { firstDelayMs, maxDelayMs } = this.#limits;
    const bound = Math.min(maxDelayMs, firstDelayMs * 2 ** (this.#inARow - 1));
    await this.#clock.wait(Math.floor(this.#clock.random() * bound), { signal });
    signal.throwIfAborted();
  }

  #isLast(): boolean {
    const { attempts, failedAttempts, patienceMs } = this.#limits;
    if (this.#inARow >= attempts || this.#failed >= failedAttempts) return true;
    return this.#clock.now() - this.#patientFrom >= patienceMs;
  }

  #exhausted(error: OperationalError): OperationalError {
    if (this.#total === 1) return error;
    const seconds = (this.#clock.now() - this.#startedAt) / 1000;
    const span = seconds < 10 ? seconds.toFixed(1) : seconds.toFixed(0);
    return new OperationalError(`${error.message} (tried ${this.#total} times in ${span} s)`, {
      kind: error.kind,
      code: error.code,
      hint: error.hint,
      cause: error,
    });
  }
}

/**
 * Makes a destination's error of anything that its library threw and nobody knew: one strange answer must cost one
 * destination, not the whole run. Aborts of the caller and mistakes in the program stay what they are.
 */
export function knownError(error: unknown, action: string, signal: AbortSignal): unknown {
  signal.throwIfAborted();
  if (error instanceof OperationalError) return error;
  if (isAbort(error)) return destinationError(`cannot ${action}: it was cut off`, "unreachable", { cause: error });
  if (isCutFetch(error)) return destinationError(`cannot ${action}: it was cut off`, "unreachable", { cause: error });
  if (!(error instanceof Error) || isMistake(error)) return error;
  return destinationError(`cannot ${action}: ${error.message}`, "failed", { cause: error });
}

/** Node's `fetch` reports a cut line as a TypeError. */
function isCutFetch(error: unknown): boolean {
  return error instanceof TypeError && (error.message === "fetch failed" || error.message === "terminated");
}

function isMistake(error: Error): boolean {
  return ["TypeError", "RangeError", "ReferenceError", "SyntaxError", "AssertionError"].includes(error.name);
}
