import { messageOf, OperationalError } from "../base/errors.ts";

/** One thing that was tried. */
export interface Check {
  /** What was tried: `connection`, `select`, `write`, `conditional write` … */
  readonly name: string;
  /** What it was tried at: the name of a database, a destination, a folder. */
  readonly subject: string;
  readonly status: "ok" | "warning" | "failed";
  readonly message: string;
  readonly hint?: string | undefined;
  /** Why it failed. */
  readonly error?: OperationalError | undefined;
}

/** What a check found out: a sentence when all is well. */
export type Finding = string | Pick<Check, "status" | "message" | "hint" | "error">;

/** Makes checks of one subject, in the order in which they are made. */
export class Checks {
  readonly list: Check[] = [];
  readonly #subject: string;
  readonly #signal: AbortSignal;

  /** A timeout makes a check fail; an abort of `signal` is passed on. */
  constructor(subject: string, signal: AbortSignal) {
    this.#subject = subject;
    this.#signal = signal;
  }

  /** Does one check; tells whether it did not fail. What an `OperationalError` says is the check's result. */
  async try(name: string, work: () => Promise<Finding | undefined>): Promise<boolean> {
    let found: Finding | undefined;
    try {
      found = await work();
    } catch (error) {
      this.#signal.throwIfAborted();
      found = failureOf(error);
    }
    if (found === undefined) return true;
    const check = typeof found === "string" ? { status: "ok" as const, message: found } : found;
    this.list.push({ name, subject: this.#subject, ...check });
    return check.status !== "failed";
  }
}

/** Makes the finding of an expected failure; throws any other error. */
function failureOf(error: unknown): Exclude<Finding, string> {
  if (error instanceof OperationalError) {
    return { status: "failed", message: error.message, hint: error.hint, error };
  }
  if (!(error instanceof Error) || error.name !== "TimeoutError") throw error;
  const late = new OperationalError(`it did not answer in time: ${messageOf(error)}`, {
    kind: "destination",
    code: "unreachable",
  });
  return {
    status: "failed",
    message: late.message,
    hint: "Check the network, and whether the server runs.",
    error: late,
  };
}

export function warningOf(message: string, hint?: string): Exclude<Finding, string> {
  return { status: "warning", message, hint };
}
