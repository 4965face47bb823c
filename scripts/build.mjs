// Bundles src/ to dist/ and writes the JSON Schema of job files from the definition that reads them.
import { globSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, isAbsolute, join } from "node:path";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
/** As deep as the sources: the path from there to package.json is the same. */
const output = join(root, "dist/cli");

if (Number(process.versions.node.split(".")[0]) < 24) {
  console.error(`error: cannot build rowkeep: Node ${process.versions.node} runs, 24 or newer is needed`);
  console.error("hint:  Run npm ci without --ignore-scripts: it installs Node 24 for the npm scripts.");
  process.exit(2);
}

/**
 * Every command loads them, and as the many small files that they are they take half of its start. All others are loaded when they are
 * needed, from node_modules.
 */
const BUNDLED = ["commander", "yaml", "zod"];

/** Threads are started by the name of their file, beside that of who starts them. */
const threads = globSync("src/**/*-worker.ts", { cwd: root }).map((path) => [basename(path, ".ts"), join(root, path)]);

const bundle = await rolldown({
  input: { main: join(root, "src/cli/main.ts"), ...Object.fromEntries(threads) },
  platform: "node",
  external: (id) =>
    !id.startsWith(".") && !isAbsolute(id) && !BUNDLED.some((name) => id === name || id.startsWith(`${name}/`)),
  tsconfig: join(root, "tsconfig.json"),
});
const { output: chunks } = await bundle.write({ dir: output, chunkFileNames: "[name]-[hash].js" });
await bundle.close();
// Afterwards, so that a process which starts meanwhile finds all that it needs.
const written = new Set(chunks.map(({ fileName }) => fileName));
for (const name of readdirSync(join(root, "dist")))
  if (name !== "cli") rmSync(join(root, "dist", name), { recursive: true });
for (const name of readdirSync(output)) if (!written.has(name)) rmSync(join(output, name), { recursive: true });

const licenses = BUNDLED.map((name) => {
  const license = readFileSync(join(root, "node_modules", name, "LICENSE"), "utf8");
  return `${name}, whose code is part of these files:\n\n${license}`;
});
writeFileSync(join(root, "dist/LICENSES.txt"), licenses.join("\n"));

const { renderJobJsonSchema } = await import("../src/job/job-json-schema.ts");
writeFileSync(join(root, "job.schema.json"), `${JSON.stringify(renderJobJsonSchema(), null, 2)}\n`);
