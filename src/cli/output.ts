import type { Chalk } from "./colors.ts";
import type { Redact } from "./redaction.ts";
import { fitTable, plain, renderTable, type TableColumn } from "./text-table.ts";

export interface OutputStream {
  /** `done` is called once the data is no longer needed, or with the reason why it could not be written. */
  write(data: string | Uint8Array, done?: (error?: unknown) => void): boolean;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

export interface OutputOptions {
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly json: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;
  readonly redact: Redact;
  readonly paint: Chalk;
  readonly paintErr: Chalk;
}

/**
 * Prints what commands say. Data goes to stdout, everything else to stderr; every text passes through `redact`.
 * With `--json` stdout holds JSON lines only, and the text methods that write to stdout do nothing.
 */
export class Output {
  readonly #options: OutputOptions;
  /** What was warned of so far, without control characters. */
  readonly #warnings = new Set<string>();
  /** Colours for stdout; they do nothing when colours are off. */
  readonly paint: Chalk;
  /** Colours for stderr. */
  readonly paintErr: Chalk;

  constructor(options: OutputOptions) {
    this.#options = options;
    this.paint = options.paint;
    this.paintErr = options.paintErr;
  }

  /** Prints a line of the answer on stdout. Nothing with `--json`. */
  line(text = ""): void {
    if (!this.#options.json) this.#toStdout(`${text}\n`);
  }

  /** Prints an aligned table on stdout, titles dimmed; in a narrow terminal without the columns that may go. Nothing with `--json`. */
  table(columns: readonly TableColumn[], rows: readonly (readonly string[])[]): void {
    const { isTTY, columns: width } = this.#options.stdout;
    // A terminal that does not know its width says 0.
    const fitting = fitTable(columns, rows, (isTTY && width) || Number.POSITIVE_INFINITY);
    const [titles = "", ...lines] = renderTable(fitting.columns, fitting.rows);
    this.line(this.paint.dim(titles));
    for (const line of lines) this.line(line);
    if (fitting.leftOut.length > 0) this.line(this.paint.dim(`too wide for here: ${fitting.leftOut.join(", ")}`));
  }

  /** Prints raw text on stdout, also with `--quiet`; for generated scripts and pages. Nothing with `--json`. */
  raw(text: string): void {
    if (!this.#options.json) this.#toStdout(text);
  }

  /** Says what is going on, on stderr; silent with `-q` and `--json`. */
  note(text: string): void {
    if (!this.#options.quiet && !this.#options.json) this.#toStderr(`${text}\n`);
  }

  /** Says a detail on stderr, with `-v` only. */
  detail(text: string): void {
    if (this.#options.verbose && !this.#options.json) this.#toStderr(`${this.paintErr.dim(text)}\n`);
  }

  /**
   * Warns on stderr, also with `-q`, of the same thing once. With `--json` nothing is printed: it becomes one of the
   * `warnings` of the result.
   */
  warn(message: string): void {
    const text = plain(message);
    if (this.#warnings.has(text)) return;
    this.#warnings.add(text);
    if (!this.#options.json) this.#toStderr(`${this.paintErr.yellow("warning:")} ${message}\n`);
  }

  /** Writes text to stderr as it is (errors). */
  error(text: string): void {
    this.#toStderr(text);
  }

  /** Writes one JSON line to stdout; only with `--json`. */
  json(record: Readonly<Record<string, unknown>>): void {
    if (this.#options.json) this.#toStdout(`${this.#renderJson(record)}\n`);
  }

  /** Ends a command: the JSON line `{"type":"result",…}`, or what `render` prints for people. */
  result(fields: Readonly<Record<string, unknown>>, render: () => void): void {
    if (this.#options.json) this.json({ type: "result", ...fields, ...this.#warningsWith(fields["warnings"]) });
    else render();
  }

  /** The JSON line `{"type":"error",…}` that ends a command, with what it had warned of before. */
  failure(record: Readonly<Record<string, unknown>>): void {
    this.json({ ...record, ...this.#warningsWith(undefined) });
  }

  /** Gives an output for a command that is a part of another one: with `--json` it has no result of its own. */
  part(): Output {
    const { json } = this.#options;
    return json ? new Output({ ...this.#options, stdout: { write: () => true } }) : this;
  }

  /** Gives an output for a command whose data takes stdout: what it says about itself goes to stderr, and nothing with `-q`. */
  besideData(): Output {
    const { quiet, stderr } = this.#options;
    const stdout = quiet ? { write: () => true } : stderr;
    return new Output({ ...this.#options, stdout, paint: this.#options.paintErr });
  }

  /** The command's own warnings, and those that only `warn` was told of. */
  #warningsWith(own: unknown): { readonly warnings?: readonly unknown[] } {
    const told: readonly unknown[] = Array.isArray(own) ? own : [];
    const known = new Set(told.map((message) => (typeof message === "string" ? plain(message) : message)));
    const more = [...this.#warnings].filter((message) => !known.has(message));
    return more.length > 0 ? { warnings: [...told, ...more] } : {};
  }

  // Secrets are hidden value by value: a replacement in finished JSON could break its syntax or miss an escaped secret.
  #renderJson(record: Readonly<Record<string, unknown>>): string {
    const { redact } = this.#options;
    return JSON.stringify(record, function (this: object, name, value: unknown) {
      return typeof value === "string" && !isOwnWord({ record, holder: this, name }, value) ? redact(value) : value;
    });
  }

  #toStdout(text: string): void {
    this.#options.stdout.write(this.#options.json ? text : this.#options.redact(text));
  }

  #toStderr(text: string): void {
    this.#options.stderr.write(this.#options.redact(text));
  }
}

/** Ours are lower case; what a server calls its failures is not. */
const OWN_CODE = /^[a-z]+(-[a-z0-9]+)*$/;

/** Scripts branch on these: a password like `denied` must not hide them. */
function isOwnWord(place: { readonly record: object; readonly holder: object; readonly name: string }, value: string) {
  const { record, holder, name } = place;
  if (name === "type") return holder === record;
  return name === "code" && "exitCode" in holder && typeof holder.exitCode === "number" && OWN_CODE.test(value);
}
