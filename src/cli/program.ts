import { Command, CommanderError } from "commander";
import type { CommandAction, CommandSpec, Invocation } from "./command.ts";
import { commandTable, globalOptions, isAvailable } from "./command-table.ts";
import { notAvailableYet } from "./commands/unavailable.ts";
import type { GlobalFlags } from "./context.ts";
import { placeTime } from "./place-time.ts";
import { readVersion } from "./version.ts";

const AFTER_HELP = `
<job> is the name of a job in the jobs folder or the path of a job file; <snapshot> an id, a unique prefix of one,
latest, or a time like 2026-11-20T09:03: the newest one not younger.
Exit codes: 0 done, 1 bug, 2 usage or job file, 3 done with warnings, 4 differences, 5 database, 6 destination,
7 archive damaged, 8 locked by another run, 9 refused for safety, 130/143 interrupted.`;

/** What commander found: the command to execute with its arguments. */
export interface Chosen {
  readonly flags: GlobalFlags;
  readonly invocation: Invocation;
  readonly load: () => Promise<CommandAction>;
}

/**
 * Reads the command line. Gives undefined when commander answered by itself (help, version).
 * Throws commander's `CommanderError` for a command line that it does not understand.
 */
export async function chooseCommand(
  argv: readonly string[],
  write: (text: string) => void,
): Promise<Chosen | undefined> {
  let chosen: Chosen | undefined;
  const program = new Command("rowkeep");
  program
    .description("Keeps exact, restorable copies of databases that you can reach only through an ordinary login.")
    .version(readVersion(), "-V, --version", "print the version")
    .helpOption("-h, --help", "show help")
    .configureHelp({ showGlobalOptions: true, subcommandTerm: renderTerm })
    .configureOutput({ writeOut: write, writeErr: () => undefined })
    .exitOverride()
    .addHelpText("after", AFTER_HELP);
  for (const option of globalOptions) program.option(option.flags, option.description);
  for (const spec of commandTable) addCommand(program, spec, (next) => (chosen = next));
  addHelp(program);
  await program.parseAsync([...argv], { from: "user" });
  return chosen;
}

function addCommand(parent: Command, spec: CommandSpec, choose: (chosen: Chosen) => void): void {
  const command = parent.command(spec.name).description(isAvailable(spec) ? spec.summary : `${spec.summary} (not yet)`);
  if (spec.commands) {
    for (const child of spec.commands) addCommand(command, child, choose);
    addHelp(command);
    return;
  }
  const { load } = spec;
  if (!load) {
    // Whatever follows is accepted: the answer is "not available yet", not a complaint about an option.
    command.argument("[anything...]").allowUnknownOption();
    command.action(() => {
      throw notAvailableYet(fullNameOf(command));
    });
    return;
  }
  for (const argument of spec.arguments ?? []) command.argument(argument.name, argument.description);
  for (const option of spec.options ?? []) command.option(option.flags, option.description);
  if (spec.examples)
    command.addHelpText("after", `\nExamples:\n${spec.examples.map((line) => `  ${line}`).join("\n")}`);
  command.action(() => {
    const { json, quiet, verbose, color, home } = command.optsWithGlobals();
    choose({
      flags: { json: json === true, quiet: quiet === true, verbose: verbose === true, color: color !== false, home },
      invocation: placeTime(spec, { args: command.processedArgs as Invocation["args"], options: command.opts() }),
      load,
    });
  });
}

/** Commander's own one takes a single name, so it has no help of `job create`. */
function addHelp(parent: Command): void {
  const help = parent.helpCommand(false).command("help").description("show help of a command");
  help.argument("[command...]").action((names: readonly string[]) => {
    let command = parent;
    for (const name of names) {
      const child = command.commands.find((one) => one.name() === name);
      if (!child) throw new CommanderError(2, "commander.unknownCommand", `unknown command '${name}'`);
      command = child;
    }
    command.outputHelp();
  });
}

/** `restore <job> [snapshot]`: commander's own would add `[options]` to nearly every command. */
function renderTerm(command: Command): string {
  const names = command.registeredArguments.filter((argument) => argument.name() !== "anything");
  const terms = names.map((argument) => {
    const name = argument.variadic ? `${argument.name()}...` : argument.name();
    return argument.required ? `<${name}>` : `[${name}]`;
  });
  return [command.name(), ...terms].join(" ");
}

function fullNameOf(command: Command): string {
  const parent = command.parent?.name();
  return parent && parent !== "rowkeep" ? `${parent} ${command.name()}` : command.name();
}
