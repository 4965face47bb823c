import type { Home } from "../job/home.ts";
import type { Chalk } from "./colors.ts";
import { Output, type OutputStream } from "./output.ts";
import type { Redact } from "./redaction.ts";

export interface InputStream extends NodeJS.ReadableStream {
  readonly isTTY?: boolean | undefined;
}

/** The options that every command takes. */
export interface GlobalFlags {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;
  /** False for `--no-color`. */
  readonly color: boolean;
  readonly home?: string | undefined;
}

/** The world as one command sees it. Tests and commands never reach for `process`. */
export interface Surroundings {
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly stdin: InputStream;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Empty where that folder was removed. */
  readonly cwd: string;
  /** Aborted by the first Ctrl-C, SIGTERM or SIGHUP. */
  readonly signal: AbortSignal;
  readonly now: () => Date;
  /** Called with the home before the command is loaded. */
  readonly onHome?: ((home: Home) => void) | undefined;
}

export interface CliContext extends Surroundings {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;
  /** Whether stdout takes colours. */
  readonly color: boolean;
  /** Whether stderr takes colours (progress, questions, errors). */
  readonly stderrColor: boolean;
  /** Whether a question can be asked at all: stdin and stderr are a terminal, and `--json` was not given. */
  readonly isInteractive: boolean;
  /** Value of `--home`; undefined: ROWKEEP_HOME or the platform's folders. */
  readonly homeFlag: string | undefined;
  readonly output: Output;
  readonly redact: Redact;
}

/** Makes the context of one command from what surrounds it and the global flags. */
export function createContext(
  surroundings: Surroundings,
  flags: GlobalFlags,
  parts: { readonly chalk: (enabled: boolean) => Chalk; readonly redact: Redact },
): CliContext {
  const { stdout, stderr, stdin, env } = surroundings;
  const color = !flags.json && takesColor(stdout, flags, env);
  const stderrColor = !flags.json && takesColor(stderr, flags, env);
  const context = {
    ...surroundings,
    json: flags.json,
    quiet: flags.quiet,
    verbose: flags.verbose,
    color,
    stderrColor,
    isInteractive: !flags.json && stdin.isTTY === true && stderr.isTTY === true,
    homeFlag: flags.home,
    redact: parts.redact,
  };
  const output = new Output({
    ...context,
    paint: parts.chalk(color),
    paintErr: parts.chalk(stderrColor),
  });
  return { ...context, output };
}

/**
 * Decides about colours: `--no-color`, then FORCE_COLOR, then NO_COLOR (https://no-color.org, any non-empty value),
 * then TERM=dumb, then whether the stream is a terminal.
 */
export function takesColor(
  stream: { readonly isTTY?: boolean | undefined },
  flags: { readonly color: boolean },
  env: Readonly<Record<string, string | undefined>>,
): boolean {
  if (!flags.color) return false;
  const forced = env.FORCE_COLOR;
  if (forced !== undefined && forced !== "") return forced !== "0" && forced !== "false";
  if (env.NO_COLOR) return false;
  if (env.TERM === "dumb") return false;
  return stream.isTTY === true;
}
