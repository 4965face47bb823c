import { OperationalError } from "../../base/errors.ts";

/** Makes the error of a command that product and help name but that does nothing yet. */
export function notAvailableYet(name: string): OperationalError {
  return new OperationalError(`cannot ${name}: not available yet`, {
    kind: "usage",
    code: "not-available",
    hint: "See rowkeep --help for the commands that work in this version.",
  });
}
