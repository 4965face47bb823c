import type { CommandSpec } from "../command.ts";

/** The commands that make, show and change job files. */
export const jobCommand: CommandSpec = {
  name: "job",
  summary: "create, list, show, edit, enable, disable, delete, validate jobs",
};
