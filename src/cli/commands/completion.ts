import { OperationalError } from "../../base/errors.ts";
import type { CommandAction } from "../command.ts";
import { commandTable, globalOptions } from "../command-table.ts";
import { renderCompletion, shells } from "../completion-script.ts";

/** Prints the completion script of one shell. */
export const completion: CommandAction = async (context, { args }) => {
  const shell = shells.find((name) => name === args[0]);
  if (!shell) {
    throw new OperationalError(`cannot write a completion script for ${String(args[0])}: no such shell is known`, {
      kind: "usage",
      code: "unknown-shell",
      hint: `Choose one of ${shells.join(", ")}.`,
    });
  }
  const script = renderCompletion(shell, commandTable, globalOptions);
  context.output.result({ shell, script }, () => context.output.raw(script));
  return undefined;
};
