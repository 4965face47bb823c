/**
 * The kinds of expected failure. Each has one exit code, so that scripts can tell a wrong password from a
 * damaged archive without reading text.
 */
export type ErrorKind =
  | "usage"
  | "job"
  | "database"
  | "destination"
  | "archive"
  | "locked"
  | "refused"
  | "partial"
  | "differences";

const EXIT_CODES: Readonly<Record<ErrorKind, number>> = {
  usage: 2,
  job: 2,
  partial: 3,
  differences: 4,
  database: 5,
  destination: 6,
  archive: 7,
  locked: 8,
  refused: 9,
};

export interface OperationalErrorOptions {
  readonly kind: ErrorKind;
  /** Machine-readable reason in kebab-case, stable across versions: `wrong-password`, `not-found`, `hash-mismatch`. */
  readonly code: string;
  /** One imperative sentence that says what to do. */
  readonly hint?: string | undefined;
  readonly cause?: unknown;
}

/**
 * A failure that can happen to a correct program: the world is not as it should be.
 * The message reads `cannot <verb> <object>: <reason>`, without secrets and without values of rows.
 */
export class OperationalError extends Error {
  readonly kind: ErrorKind;
  readonly code: string;
  readonly hint: string | undefined;

  constructor(message: string, options: OperationalErrorOptions) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "OperationalError";
    this.kind = options.kind;
    this.code = options.code;
    this.hint = options.hint;
  }

  get exitCode(): number {
    return EXIT_CODES[this.kind];
  }
}

/** Tells whether an error is an abort (a signal stopped the work), which is never called a failure. */
export function isAbort(error: unknown): boolean {
  return error instanceof Error && (error.name === "AbortError" || (error as { code?: unknown }).code === "ABORT_ERR");
}

/** Reads the `code` of a Node.js or driver error (`ENOSPC`, `28P01`); undefined when there is none. */
export function codeOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return typeof code === "string" ? code : undefined;
}

/** The reason alone of an expected failure, `cannot <verb> <object>: <reason>`. */
export function reasonIn(error: OperationalError): string {
  return error.message.slice(error.message.indexOf(": ") + 2);
}

/** Gives the messages of an error's causes, each on one line, the outermost first. */
export function causesOf(error: unknown): readonly string[] {
  const causes: string[] = [];
  let cause = (error as { cause?: unknown } | null | undefined)?.cause;
  // A cause can refer to itself; nobody reads more than eight.
  while (cause !== undefined && cause !== null && causes.length < 8) {
    causes.push(oneLine(messageOf(cause)));
    cause = (cause as { cause?: unknown }).cause;
  }
  return causes.filter((text) => text !== "");
}

/** Puts a text of several lines on one. */
export function oneLine(text: string): string {
  return text.replace(/\s*\n\s*/g, " ").trim();
}

/** Reads the message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
