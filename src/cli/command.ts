import type { CliContext } from "./context.ts";

/** What a person typed behind the name of a command. */
export interface Invocation {
  /** Positional arguments in order; a variadic one is an array. Missing optional ones are undefined. */
  readonly args: readonly (string | readonly string[] | undefined)[];
  /** Options by camelCase name; global ones are in the context. */
  readonly options: Readonly<Record<string, unknown>>;
}

/** Does one command. Returns the exit code when it is not 0; throws an `OperationalError` for an expected failure. */
export type CommandAction = (context: CliContext, invocation: Invocation) => Promise<number | undefined>;

export interface OptionSpec {
  /** As commander reads it: `--tables <patterns>`, `--yes`, `--no-safety`. */
  readonly flags: string;
  readonly description: string;
}

export interface ArgumentSpec {
  /** As commander reads it: `<job>`, `[snapshot]`, `<job...>`. */
  readonly name: string;
  readonly description: string;
  /** Written as optional only because `--at` may stand for a snapshot. */
  readonly isNeeded?: true;
}

/**
 * One command as data, so that `--help` and completion load no command's code.
 * Without `load` (and without `commands`) it is listed as not available yet and fails so.
 */
export interface CommandSpec {
  readonly name: string;
  readonly summary: string;
  readonly arguments?: readonly ArgumentSpec[];
  readonly options?: readonly OptionSpec[];
  /** The option that names the snapshot that `--at` stands for; left out: the argument does. */
  readonly snapshotOption?: string;
  /** Lines shown below the options in the command's own help. */
  readonly examples?: readonly string[];
  readonly commands?: readonly CommandSpec[];
  readonly load?: () => Promise<CommandAction>;
}
