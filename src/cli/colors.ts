import type { ChalkInstance } from "chalk";

export type Chalk = ChalkInstance;

/** Loads chalk (30 ms, so never for `--help`); colours are on or off as told, whatever chalk would guess. */
export async function loadChalk(): Promise<(enabled: boolean) => Chalk> {
  const { Chalk: Colors } = await import("chalk");
  return (enabled) => new Colors({ level: enabled ? 1 : 0 });
}
