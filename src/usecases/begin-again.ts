import { setTimeout as sleep } from "node:timers/promises";
import { codeOf, messageOf } from "../base/errors.ts";
import type { Report } from "./progress.ts";

/** Milliseconds before each further attempt, by what ended the one before. */
const WAITS_MS: Readonly<Record<string, readonly number[]>> = {
  // Views and functions may come and go while definitions are read. A new snapshot does not know those that went, but a migration goes on.
  "schema-changed": [0, 1000, 4000],
  // Nobody waits for us meanwhile, unless it is said so, and to refresh a materialized view may take long: half an hour.
  "schema-locked": [0, 1000, 4000, 15_000, 40_000, ...Array<number>(30).fill(60_000)],
  // Another machine began a snapshot in the same second.
  "id-taken": [500, 1000, 2000, 4000],
};

const LONGEST_AWAITED_MS = 4000;

export interface BeginAgainOptions {
  readonly signal: AbortSignal;
  readonly report?: Report | undefined;
  /** Others wait meanwhile: a lock that does not go away soon may be theirs. */
  readonly isAwaited?: boolean | undefined;
}

/**
 * Reads a database in a new snapshot when it was changed in a way that the open one cannot stand, a few times. `attempt` is given the
 * number of those before it. Fails as the last one did.
 */
export async function beginAgain<T>(
  attempt: (count: number) => Promise<T>,
  { signal, report, isAwaited }: BeginAgainOptions,
): Promise<T> {
  for (let count = 0; ; count += 1) {
    try {
      return await attempt(count);
    } catch (error) {
      signal.throwIfAborted();
      const wait = WAITS_MS[String(codeOf(error))]?.[count];
      if (wait === undefined || (isAwaited && wait > LONGEST_AWAITED_MS)) throw error;
      report?.({ type: "phase", text: `beginning again: ${messageOf(error)}` });
      // Two that hindered each other shall not meet again.
      await sleep(wait * (0.5 + Math.random()), undefined, { signal }).catch(() => signal.throwIfAborted());
    }
  }
}
