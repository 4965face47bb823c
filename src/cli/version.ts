import { readFileSync } from "node:fs";

/** Reads the version of this package: the same relative path holds for src/ and dist/. */
export function readVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { readonly version: string }).version;
}
