import { OperationalError } from "../base/errors.ts";
import type { CliContext } from "./context.ts";

/**
 * Asks a yes-or-no question in a terminal; the answer that Return gives is no.
 * Without a terminal it asks nothing and fails with kind `refused`, naming the flag that answers.
 */
export async function confirm(
  context: CliContext,
  question: { readonly message: string; readonly action: string; readonly flag?: string },
): Promise<boolean> {
  if (!context.isInteractive) throw needsConfirmation(question.action, question.flag ?? "--yes");
  const prompts = await import("@inquirer/prompts");
  // On stderr, so that stdout holds the answer of the command alone.
  return prompts.confirm(
    { message: context.redact(question.message), default: false },
    { input: context.stdin, output: context.stderr as NodeJS.WritableStream & OutputLike, signal: context.signal },
  );
}

type OutputLike = CliContext["stderr"];

/** Makes the error for a question that cannot be asked. `action` reads like `restore shop`. */
export function needsConfirmation(action: string, flag: string): OperationalError {
  return new OperationalError(`cannot ${action}: it needs a confirmation and there is no terminal to ask in`, {
    kind: "refused",
    code: "needs-confirmation",
    hint: `Give ${flag} to confirm.`,
  });
}
