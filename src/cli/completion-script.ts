import type { CommandSpec, OptionSpec } from "./command.ts";

export type Shell = "bash" | "zsh" | "fish" | "pwsh";
export const shells: readonly Shell[] = ["bash", "zsh", "fish", "pwsh"];

/** One position on the command line: the words in front (`job edit`) and the words that can follow. */
interface Position {
  readonly path: string;
  readonly words: readonly { readonly word: string; readonly help: string }[];
}

/** Renders a script that completes commands and options. It is static: pressing Tab starts no rowkeep. */
export function renderCompletion(
  shell: Shell,
  commands: readonly CommandSpec[],
  globalOptions: readonly OptionSpec[],
): string {
  const positions = positionsOf("", commands, globalOptions);
  switch (shell) {
    case "bash":
      return renderBash(positions);
    case "zsh":
      return renderZsh(positions);
    case "fish":
      return renderFish(positions);
    case "pwsh":
      return renderPowerShell(positions);
  }
}

function positionsOf(path: string, commands: readonly CommandSpec[], globals: readonly OptionSpec[]): Position[] {
  const globalWords = [...globals.flatMap(wordsOfOption), { word: "--help", help: "show help" }];
  const here: Position = {
    path,
    words: [...commands.map((command) => ({ word: command.name, help: command.summary })), ...globalWords],
  };
  const below = commands.flatMap((command) => {
    const full = path === "" ? command.name : `${path} ${command.name}`;
    if (command.commands) return positionsOf(full, command.commands, globals);
    return [{ path: full, words: [...(command.options ?? []).flatMap(wordsOfOption), ...globalWords] }];
  });
  return [here, ...below];
}

function wordsOfOption(option: OptionSpec): { word: string; help: string }[] {
  const words = option.flags.match(/--[a-z-]+/g) ?? [];
  return words.map((word) => ({ word, help: option.description }));
}

/** The case branches that bash and zsh share: the typed command words decide. */
function renderBash(positions: readonly Position[]): string {
  return `# bash completion of rowkeep: eval "$(rowkeep completion bash)"
_rowkeep() {
  local current="\${COMP_WORDS[COMP_CWORD]}" path="" words="" word
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$path $word" in
${branches(positions, "      ")}
    esac
  done
  case "$path" in
${positions.map(({ path, words }) => `    ${quote(path)}) words=${quote(words.map(({ word }) => word).join(" "))} ;;`).join("\n")}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [[ $current == -* || $COMP_CWORD -eq 1 ]] || COMPREPLY+=($(compgen -f -- "$current"))
}
complete -o filenames -F _rowkeep rowkeep
`;
}

function branches(positions: readonly Position[], indent: string): string {
  return positions
    .filter(({ path }) => path !== "")
    .map(({ path }) => `${indent}${quote(path.includes(" ") ? path : ` ${path}`)}) path=${quote(path)} ;;`)
    .join("\n");
}

function renderZsh(positions: readonly Position[]): string {
  const masked = (text: string) => text.replaceAll(":", "\\:");
  const words = ({ words }: Position) =>
    words.map(({ word, help }) => quote(`${masked(word)}:${masked(help)}`)).join(" ");
  return `#compdef rowkeep
# zsh completion of rowkeep: eval "$(rowkeep completion zsh)"
_rowkeep() {
  local path="" word
  local -a candidates
  for word in "\${(@)words[2,CURRENT-1]}"; do
    case "$path $word" in
${branches(positions, "      ")}
    esac
  done
  case "$path" in
${positions.map((position) => `    ${quote(position.path)}) candidates=(${words(position)}) ;;`).join("\n")}
  esac
  _describe rowkeep candidates
  [[ -z $path ]] || _files
}
compdef _rowkeep rowkeep
`;
}

function renderFish(positions: readonly Position[]): string {
  const lines = positions.flatMap(({ path, words }) => {
    const parts = path.split(" ").filter((part) => part !== "");
    const condition =
      parts.length === 0
        ? "__fish_use_subcommand"
        : parts.map((part) => `__fish_seen_subcommand_from ${part}`).join("; and ");
    return words.map(({ word, help }) => {
      const what = word.startsWith("--") ? `-l ${word.slice(2)}` : `-a ${quote(word)}`;
      return `complete -c rowkeep -n ${quote(condition)} ${what} -d ${quote(help)}`;
    });
  });
  return `# fish completion of rowkeep: rowkeep completion fish | source\n${lines.join("\n")}\n`;
}

function renderPowerShell(positions: readonly Position[]): string {
  const single = (text: string) => `'${text.replaceAll("'", "''")}'`;
  const entries = positions.map(
    ({ path, words }) => `    ${single(path)} = @(${words.map(({ word }) => single(word)).join(", ")})`,
  );
  return `# PowerShell completion of rowkeep: rowkeep completion pwsh | Out-String | Invoke-Expression
Register-ArgumentCompleter -Native -CommandName rowkeep -ScriptBlock {
  param($wordToComplete, $commandAst, $cursorPosition)
  $words = @{
${entries.join("\n")}
  }
  $path = ''
  foreach ($element in ($commandAst.CommandElements | Select-Object -Skip 1)) {
    $next = ($path + ' ' + $element.ToString()).Trim()
    if ($element.Extent.EndOffset -lt $cursorPosition -and $words.ContainsKey($next)) { $path = $next }
  }
  $words[$path] | Where-Object { $_ -like "$wordToComplete*" } | ForEach-Object {
    [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_)
  }
}
`;
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
