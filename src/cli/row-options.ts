import { OperationalError } from "../base/errors.ts";
import type { MergeMode } from "../drivers/row-merge.ts";
import { readList, readText } from "./option-values.ts";

export interface RowOptions {
  readonly tables: readonly string[];
  readonly where?: string | undefined;
  readonly mode: MergeMode;
}

const MODES: readonly MergeMode[] = ["replace", "insert-missing", "upsert"];

/**
 * Reads `--where` and `--mode`: undefined when whole tables are meant. Fails with kind `usage` where they are wrong, or other
 * options do not go with them.
 */
export function readRowOptions(options: Readonly<Record<string, unknown>>): RowOptions | undefined {
  const where = readText(options["where"]);
  const text = readText(options["mode"]);
  if (where === undefined && text === undefined) return undefined;
  const mode = MODES.find((known) => known === (text ?? "replace"));
  if (!mode) throw usage(`--mode ${text} is none of ${MODES.join(", ")}`, "wrong-value", "Choose one of them.");
  for (const [name, flag] of [
    ["create", "--create"],
    ["ignoreMissing", "--ignore-missing"],
  ] as const) {
    if (options[name] !== true) continue;
    throw usage(
      `chosen rows and ${flag} exclude each other`,
      "both-chosen",
      `Leave out ${flag}, or --where and --mode.`,
    );
  }
  const tables = readList(options["tables"], "--tables");
  if (tables) return { tables, where, mode };
  throw usage("chosen rows need a table", "missing-tables", "Name one table with --tables.");
}

function usage(reason: string, code: string, hint: string): OperationalError {
  return new OperationalError(`cannot restore: ${reason}`, { kind: "usage", code, hint });
}
