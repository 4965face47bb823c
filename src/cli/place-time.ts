import { OperationalError } from "../base/errors.ts";
import type { CommandSpec, Invocation } from "./command.ts";
import { readTime } from "./option-values.ts";

/** Puts the time of `--at` where the command takes a snapshot, as whose name it does. Fails with kind `usage`. */
export function placeTime(spec: CommandSpec, { args, options }: Invocation): Invocation {
  const time = readTime(options["at"], "--at")?.toISOString();
  const placed = time === undefined ? { args, options } : withTime(spec, { args, options }, time);
  for (const [index, { name, isNeeded }] of (spec.arguments ?? []).entries()) {
    if (isNeeded && placed.args[index] === undefined) throw missing(spec, name.slice(1, -1));
  }
  return placed;
}

function withTime(spec: CommandSpec, { args, options }: Invocation, time: string): Invocation {
  const { arguments: known = [], snapshotOption } = spec;
  if (snapshotOption !== undefined) {
    if (options[snapshotOption] !== undefined) throw bothChosen(spec);
    return { args, options: { ...options, [snapshotOption]: time } };
  }
  if (args[known.length - 1] !== undefined) throw bothChosen(spec);
  const place = known.findIndex(({ name }) => name === "[snapshot]");
  return { args: [...args.slice(0, place), time, ...args.slice(place, known.length - 1)], options };
}

function missing({ name }: CommandSpec, argument: string): OperationalError {
  return new OperationalError(`cannot ${name}: missing required argument '${argument}'`, {
    kind: "usage",
    code: "usage",
    hint: `Run rowkeep help ${name}.`,
  });
}

function bothChosen({ name }: CommandSpec): OperationalError {
  return new OperationalError(`cannot ${name} a snapshot that is named and one by --at`, {
    kind: "usage",
    code: "both-chosen",
    hint: "Leave one of them out: --at takes the newest one that is not younger.",
  });
}
