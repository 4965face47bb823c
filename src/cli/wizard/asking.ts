import type { input } from "@inquirer/prompts";
import { OperationalError } from "../../base/errors.ts";
import type { CliContext } from "../context.ts";

/** Where questions are asked, and what ends them. */
export type Asking = NonNullable<Parameters<typeof input>[1]>;

/** Asks on stderr, so that stdout holds the answer of the command alone. */
export function askingOf(context: CliContext): Asking {
  return {
    input: context.stdin,
    output: context.stderr as NodeJS.WritableStream & CliContext["stderr"],
    signal: context.signal,
  } as Asking;
}

/** Tells an expected failure as a warning, the same one each time that it comes; throws any other error. */
export function tellFailure(context: CliContext, error: unknown): void {
  if (!(error instanceof OperationalError)) throw error;
  const { output } = context;
  const words = error.hint ? `${error.message}. ${error.hint}` : error.message;
  output.error(`${output.paintErr.yellow("warning:")} ${words}\n`);
}

/** Refuses an empty answer. */
export function isGiven(text: string): true | string {
  return text.trim() !== "" || "It must not be empty";
}

/** Refuses what no server can listen at. */
export function isPort(text: string): true | string {
  return (/^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65535) || "A number from 1 to 65535";
}
