import { causesOf, isAbort, messageOf, oneLine, OperationalError } from "../base/errors.ts";
import { sqliteFaultOf, unusableFile } from "../job/sqlite-fault.ts";
import type { Chalk } from "./colors.ts";

/** What is told of an error, whoever reads it. */
export interface ErrorReport {
  readonly exitCode: number;
  /** Machine-readable: `bug`, `aborted`, or the code of the `OperationalError`. */
  readonly code: string;
  readonly message: string;
  readonly hint?: string | undefined;
  /** Messages of the causes, outermost first. */
  readonly causes: readonly string[];
  /** Only of a bug. */
  readonly stack?: string | undefined;
}

/** Decides what to tell of an error. `interruptedBy` is the signal that stopped the command, if one did. */
export function reportOf(error: unknown, interruptedBy: NodeJS.Signals | undefined): ErrorReport {
  if (interruptedBy !== undefined || isAbort(error) || isPromptLeft(error)) return abortedBy(interruptedBy, error);
  const usage = usageReportOf(error);
  if (usage) return usage;
  if (error instanceof OperationalError) {
    const { exitCode, code, message, hint } = error;
    return { exitCode, code, message, hint, causes: causesOf(error) };
  }
  const fault = sqliteFaultOf(error);
  if (fault === "busy" || fault === "unusable") return reportOf(unusableFile("the state of rowkeep", error), undefined);
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { exitCode: 1, code: "bug", message: messageOf(error), causes: causesOf(error), stack };
}

/** Exit code of a command that a signal stopped: 128 + SIGINT (2) or SIGTERM (15); a hang-up counts as SIGTERM. */
export function exitCodeOf(signal: NodeJS.Signals | undefined): number {
  return signal === "SIGTERM" || signal === "SIGHUP" ? 143 : 130;
}

/** Renders `error:`, `hint:` and `cause:` lines for people. */
export function renderErrorText(report: ErrorReport, paint: Chalk, options: { readonly verbose: boolean }): string {
  if (report.code === "aborted") return `${paint.yellow("aborted:")} ${report.message}\n`;
  const lines = [
    `${paint.red("error:")} ${report.stack ? `this is a bug in rowkeep: ${report.stack}` : report.message}`,
  ];
  if (report.hint) lines.push(`${paint.cyan("hint:")}  ${report.hint}`);
  const causes = options.verbose || report.stack ? report.causes : report.causes.slice(0, 1);
  for (const cause of causes) lines.push(`${paint.dim("cause:")} ${cause}`);
  return `${lines.join("\n")}\n`;
}

/** Renders the failure of one of several jobs or files, which its message need not name. */
export function renderErrorOf(name: string, error: OperationalError, context: ErrorLook): string {
  const report = reportOf(error, undefined);
  return renderErrorText({ ...report, message: `${name}: ${report.message}` }, context.output.paintErr, context);
}

interface ErrorLook {
  readonly output: { readonly paintErr: Chalk };
  readonly verbose: boolean;
}

/** Gives the fields of the JSON line `{"type":"error",…}`. */
export function errorRecordOf(report: ErrorReport): Readonly<Record<string, unknown>> {
  const { code, message, hint, causes, stack, exitCode } = report;
  return {
    type: "error",
    code,
    message,
    ...(hint === undefined ? {} : { hint }),
    ...(causes.length === 0 ? {} : { causes }),
    ...(stack === undefined ? {} : { stack }),
    exitCode,
  };
}

function abortedBy(signal: NodeJS.Signals | undefined, error: unknown): ErrorReport {
  const by = signal ? `stopped by ${signal}` : "stopped";
  // A connection that breaks because we close it is no news; anything else that went wrong meanwhile may be.
  const causes = isAbort(error) || isPromptLeft(error) ? [] : [oneLine(messageOf(error))];
  return { exitCode: exitCodeOf(signal), code: "aborted", message: by, causes };
}

/** Inquirer throws this when Ctrl-C is pressed in a question, and `AbortPromptError` when the signal fires. */
function isPromptLeft(error: unknown): boolean {
  return error instanceof Error && (error.name === "ExitPromptError" || error.name === "AbortPromptError");
}

function usageReportOf(error: unknown): ErrorReport | undefined {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  if (!(error instanceof Error) || typeof code !== "string" || !code.startsWith("commander.")) return undefined;
  if (code === "commander.help") {
    return usage("no-command", "cannot do anything: no command was given", "See rowkeep --help for the commands.");
  }
  const [reason = "", suggestion] = error.message.replace(/^error: /, "").split("\n");
  const nearest = suggestion?.match(/^\((Did you mean .*\?)\)$/)?.[1];
  return usage(
    code.slice("commander.".length).replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`),
    `cannot read the command line: ${reason}`,
    nearest ?? "See rowkeep --help for the commands and their options.",
  );
}

function usage(code: string, message: string, hint: string): ErrorReport {
  return { exitCode: 2, code, message, hint, causes: [] };
}
