import { type ChildProcess, spawn } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { execute } from "../../src/cli/main.ts";

const entry = fileURLToPath(new URL("../../bin/rowkeep.js", import.meta.url));

const COMPILED = join(tmpdir(), "rowkeep-test-compiled");

export interface CliOptions {
  /** Added to an otherwise almost empty environment; undefined removes a variable. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Value of ROWKEEP_HOME. */
  readonly home?: string;
  readonly cwd?: string;
  /** Text for stdin; without it stdin is closed. */
  readonly input?: string;
  /** Called with the running process: to send signals, to close its stdout. */
  readonly during?: (child: ChildProcess) => void;
  /** After so long it is taken for hanging and killed; a minute by default. */
  readonly limitMs?: number;
}

export interface CliResult {
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** The lines of stdout as JSON; fails when one of them is none. */
  json(): readonly Readonly<Record<string, unknown>>[];
  /** The last line of stdout as JSON. */
  last(): Readonly<Record<string, unknown>>;
}

/** Runs rowkeep in a process of its own, as it is packed, without a terminal. */
export async function runCli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  const env = {
    PATH: process.env.PATH,
    HOME: process.env.HOME,
    SystemRoot: process.env.SystemRoot,
    TMPDIR: process.env.TMPDIR,
    // Half of what such a process does is to strip types and compile.
    NODE_COMPILE_CACHE: COMPILED,
    ...(options.home === undefined ? {} : { ROWKEEP_HOME: options.home }),
    ...options.env,
  };
  const child = spawn(process.execPath, [entry, ...args], {
    cwd: options.cwd,
    env: Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined)),
    stdio: ["pipe", "pipe", "pipe"],
    // A hanging process fails its test and is not left behind.
    timeout: options.limitMs ?? 60_000,
    killSignal: "SIGKILL",
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  // The process may end before it reads what it is given.
  child.stdin.on("error", () => undefined);
  child.stdin.end(options.input ?? "");
  options.during?.(child);
  const [exitCode, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, name) => resolve([code, name]));
  });
  return resultOf({ exitCode, signal, stdout, stderr });
}

/**
 * Runs a command line in this process, which takes a tenth of the time: for tests of what commands do, not of what a process
 * does with signals, pipes and memory.
 */
export async function runCliHere(
  args: readonly string[],
  { env = {}, home, cwd = process.cwd() }: Pick<CliOptions, "env" | "home" | "cwd"> = {},
): Promise<CliResult> {
  const [stdout, stderr] = [new Collected(), new Collected()];
  const { signal } = new AbortController();
  const exitCode = await execute(
    args,
    {
      stdout,
      stderr,
      stdin: Readable.from([]),
      env: { PATH: process.env.PATH, HOME: process.env.HOME, ...(home ? { ROWKEEP_HOME: home } : {}), ...env },
      cwd,
      signal,
      now: () => new Date(),
    },
    { signal, by: undefined },
  );
  return resultOf({ exitCode, signal: null, stdout: stdout.text(), stderr: stderr.text() });
}

function resultOf(ended: Pick<CliResult, "exitCode" | "signal" | "stdout" | "stderr">): CliResult {
  const json = () =>
    ended.stdout
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  return { ...ended, json, last: () => json().at(-1) ?? {} };
}

/** A stream that is never full. */
class Collected {
  readonly #pieces: Buffer[] = [];

  write(piece: string | Uint8Array, done?: () => void): boolean {
    // Who writes may use its buffer again.
    this.#pieces.push(Buffer.from(piece as Uint8Array));
    done?.();
    return true;
  }

  text(): string {
    return Buffer.concat(this.#pieces).toString();
  }
}
