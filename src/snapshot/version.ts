import { readFileSync } from "node:fs";

/** The version of rowkeep, recorded in every manifest. The relative path is the same below src/ and dist/. */
export const ROWKEEP_VERSION: string = (
  JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { readonly version: string }
).version;
