// Compiles src/ to dist/ and writes the JSON Schema of job files from the definition that reads them.
import { execFileSync } from "node:child_process";
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");

if (Number(process.versions.node.split(".")[0]) < 24) {
  console.error(`error: cannot build rowkeep: Node ${process.versions.node} runs, 24 or newer is needed`);
  console.error("hint:  Run npm ci without --ignore-scripts: it installs Node 24 for the npm scripts.");
  process.exit(2);
}

rmSync(join(root, "dist"), { recursive: true, force: true });
execFileSync(
  process.execPath,
  [join(root, "node_modules/typescript/bin/tsc"), "-p", join(root, "tsconfig.build.json")],
  {
    stdio: "inherit",
  },
);

const schemaModule = join(root, "dist/job/job-json-schema.js");
if (existsSync(schemaModule)) {
  const { renderJobJsonSchema } = await import(pathToFileURL(schemaModule).href);
  writeFileSync(join(root, "job.schema.json"), `${JSON.stringify(renderJobJsonSchema(), null, 2)}\n`);
}
