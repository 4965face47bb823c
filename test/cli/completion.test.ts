import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import type { CommandSpec } from "../../src/cli/command.ts";
import { renderCompletion } from "../../src/cli/completion-script.ts";

const commands: readonly CommandSpec[] = [
  { name: "list", summary: "show: it's all", options: [{ flags: "--from <place>", description: "a 'quoted' place" }] },
  {
    name: "job",
    summary: "jobs",
    commands: [{ name: "edit", summary: "edit", options: [{ flags: "-y, --yes", description: "" }] }],
  },
];
const script = renderCompletion("bash", commands, [{ flags: "--json", description: "" }]);

test.skipIf(process.platform === "win32").each([
  [["rowkeep", "li"], ["list"]],
  [["rowkeep", "job", "ed"], ["edit"]],
  [["rowkeep", "job", "edit", "--y"], ["--yes"]],
  [["rowkeep", "list", "shop", "--f"], ["--from"]],
  [["rowkeep", "list", "--j"], ["--json"]],
])("completes %j in bash to %j", (words, expected) => {
  const typed = words.map((word) => `'${word}'`).join(" ");
  const program = `${script}\nCOMP_WORDS=(${typed}); COMP_CWORD=${words.length - 1}; _rowkeep; printf '%s\\n' "\${COMPREPLY[@]}"`;

  const output = execFileSync("bash", ["-c", program], { encoding: "utf8" });

  expect(output.trim().split("\n")).toEqual(expected);
});
