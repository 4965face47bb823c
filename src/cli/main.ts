import { isAbort, OperationalError } from "../base/errors.ts";
import { findHome } from "../job/home.ts";
import type { Chalk } from "./colors.ts";
import { keepCompiledCode } from "./compiled-code.ts";
import { type CliContext, createContext, type GlobalFlags, type Surroundings } from "./context.ts";
import { type ErrorReport, errorRecordOf, renderErrorText, reportOf } from "./error-report.ts";
import { type Interruption, listenForSignals, writeNow } from "./interruption.ts";
import { chooseCommand } from "./program.ts";
import { openStdout, UNWRITABLE_HINT } from "./stdout.ts";
import { loadRedact, type Redact, redactUrls } from "./redaction.ts";

/**
 * Runs rowkeep with the arguments of a process (`process.argv`) and sets `process.exitCode`.
 * It never calls `process.exit` for an ordinary end: that would cut off what is still being written to a pipe.
 */
export async function main(argv: readonly string[]): Promise<void> {
  const args = argv.slice(2);
  // Nobody can be told that nothing can be told.
  process.stderr.on("error", () => undefined);
  const stdout = openStdout(tellUnwritable);
  using interruption = listenForSignals((text) => {
    if (!args.includes("--json")) process.stderr.write(text);
  });
  const onBug = (error: unknown) => crash(error, args, interruption);
  process.on("uncaughtException", onBug);
  const surroundings: Surroundings = {
    stdout: stdout.stream,
    stderr: process.stderr,
    stdin: process.stdin,
    env: process.env,
    cwd: currentFolder(),
    signal: interruption.signal,
    now: () => new Date(),
    onHome: keepCompiledCode,
  };
  const exitCode = await execute(args, surroundings, interruption);
  process.exitCode = exitCode === 0 && stdout.hasFailed ? EXIT_UNWRITABLE : exitCode;
  process.off("uncaughtException", onBug);
}

/** Runs one command line and gives its exit code. Touches nothing of the process but what `surroundings` names. */
export async function execute(
  args: readonly string[],
  surroundings: Surroundings,
  interruption: Pick<Interruption, "signal" | "by">,
): Promise<number> {
  let flags = guessFlags(args);
  let context: CliContext | undefined;
  try {
    const chosen = await chooseCommand(args, (text) => surroundings.stdout.write(text));
    if (!chosen) return 0;
    flags = chosen.flags;
    if (surroundings.cwd === "") throw nowhere();
    surroundings.onHome?.(findHome({ homeFlag: flags.home, env: surroundings.env }));
    context = await openContext(surroundings, flags);
    const action = await chosen.load();
    return (await action(context, chosen.invocation)) ?? 0;
  } catch (error) {
    if (isHelpOrVersion(error)) return 0;
    const report = reportOf(error, interruption.signal.aborted ? interruption.by : undefined);
    tell(report, context ?? (await openContext(surroundings, flags)));
    return report.exitCode;
  }
}

function currentFolder(): string {
  try {
    return process.cwd();
  } catch {
    return "";
  }
}

async function openContext(surroundings: Surroundings, flags: GlobalFlags): Promise<CliContext> {
  const { loadChalk } = await import("./colors.ts");
  const [chalk, redact]: [(enabled: boolean) => Chalk, Redact] = await Promise.all([loadChalk(), loadRedact()]);
  return createContext(surroundings, flags, { chalk, redact });
}

function tell(report: ErrorReport, context: CliContext): void {
  if (context.json) context.output.failure(errorRecordOf(report));
  else context.output.error(renderErrorText(report, context.output.paintErr, { verbose: context.verbose }));
}

function nowhere(): OperationalError {
  return new OperationalError("cannot find the current folder: it was removed", {
    kind: "usage",
    code: "no-folder",
    hint: "Change to another one.",
  });
}

/** The flags as far as they matter for telling that the command line could not be read. */
function guessFlags(args: readonly string[]): GlobalFlags {
  return {
    json: args.includes("--json"),
    quiet: false,
    verbose: false,
    color: !args.includes("--no-color"),
  };
}

function isHelpOrVersion(error: unknown): boolean {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return code === "commander.helpDisplayed" || code === "commander.version";
}

/** As for wrong usage: what was wrong is where the command line sent the output, not a database or a destination. */
const EXIT_UNWRITABLE = 2;

function tellUnwritable(reason: string): void {
  writeNow(2, `error: cannot write the output: ${reason}\nhint:  ${UNWRITABLE_HINT}\n`);
  // Of a pipe it may be known only when the command has ended.
  process.exitCode ||= EXIT_UNWRITABLE;
}

/** An error that nobody awaited: the state is unknown, so it ends here, told as far as it can be. */
function crash(error: unknown, args: readonly string[], interruption: Interruption): void {
  if (isAbort(error) && interruption.signal.aborted) return;
  const { stack = String(error), message = String(error) } = error instanceof Error ? error : {};
  writeNow(2, `error: this is a bug in rowkeep: ${redactUrls(stack)}\n`);
  if (args.includes("--json")) {
    writeNow(1, `${JSON.stringify({ type: "error", code: "bug", message: redactUrls(message), exitCode: 1 })}\n`);
  }
  process.exit(1);
}
