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
 * As the many small files that they are, they take half of the start of a command, and those that speak to one kind of destination half of
 * what a job with it needs to begin: bundled with all that they import. All others are loaded from node_modules when they are needed.
 */
const BUNDLED = [
  "commander",
  "croner",
  "yaml",
  "zod",
  "@aws-sdk/client-s3",
  "@azure/storage-blob",
  "basic-ftp",
  "google-auth-library",
];

/**
 * What is loaded together lies together: each part holds what its module imports and no part before it holds. In the hundred small files
 * that the bundler would cut for 20 commands, a run that finds nothing to do would spend a thirtieth of its time on opening them.
 */
const PARTS = {
  errors: "src/base/errors.ts",
  start: "src/cli/main.ts",
  chunks: "src/archive/chunk-worker.ts",
  summaries: "src/snapshot/summary-worker.ts",
  secrets: "src/job/secrets.ts",
  history: "src/cli/commands/history.ts",
  run: "src/cli/commands/run.ts",
  postgres: "src/drivers/postgres/postgres-source.ts",
  local: "src/destinations/local-destination.ts",
};

/** Threads are started by the name of their file, beside that of who starts them. */
const threads = globSync("src/**/*-worker.ts", { cwd: root }).map((path) => [basename(path, ".ts"), join(root, path)]);

const bundle = await rolldown({
  input: { main: join(root, "src/cli/main.ts"), ...Object.fromEntries(threads) },
  platform: "node",
  external: (id, importer = "") =>
    isPackage(id) && !packageFolderOf(importer) && !BUNDLED.some((name) => id === name || id.startsWith(`${name}/`)),
  tsconfig: join(root, "tsconfig.json"),
});
const { output: chunks } = await bundle.write({
  dir: output,
  chunkFileNames: "[name]-[hash].js",
  comments: { legal: true, annotation: false, jsdoc: false },
  codeSplitting: { groups: Object.entries(PARTS).map(partOf) },
});
await bundle.close();
// Afterwards, so that a process which starts meanwhile finds all that it needs.
const written = new Set(chunks.map(({ fileName }) => fileName));
for (const name of readdirSync(join(root, "dist")))
  if (name !== "cli") rmSync(join(root, "dist", name), { recursive: true });
for (const name of readdirSync(output)) if (!written.has(name)) rmSync(join(output, name), { recursive: true });

const folders = new Set(chunks.flatMap(({ moduleIds = [] }) => moduleIds.map(packageFolderOf)).filter(Boolean));
writeFileSync(join(root, "dist/LICENSES.txt"), Array.from(folders, renderLicense).sort(compareTexts).join("\n"));

const { renderJobJsonSchema } = await import("../src/job/job-json-schema.ts");
writeFileSync(join(root, "job.schema.json"), `${JSON.stringify(renderJobJsonSchema(), null, 2)}\n`);

/** The parts before others come first, so that none imports from one behind it. */
function partOf([name, path], index, parts) {
  const start = join(root, path);
  let modules;
  const chunkOf = (id, context) => {
    modules ??= importsOf(start, (found) => context.getModuleInfo(found)?.importedIds ?? []);
    return modules.has(id) ? name : null;
  };
  return { name: chunkOf, debugName: name, priority: parts.length - index };
}

/** Gives a module with all that it needs to be loaded, but for the start of a thread: loaded elsewhere, it would take that one's messages. */
function importsOf(start, importedBy) {
  const modules = new Set([start]);
  for (const id of modules) for (const imported of importedBy(id)) modules.add(imported);
  if (threads.some(([, path]) => path === start)) modules.delete(start);
  return modules;
}

function isPackage(id) {
  return !id.startsWith(".") && !id.startsWith("#") && !isAbsolute(id);
}

/** The folder of the package that a module is from; undefined for one of ours. */
function packageFolderOf(id) {
  return /^.*[\\/]node_modules[\\/](?:@[^\\/]+[\\/])?[^\\/]+/.exec(id)?.[0];
}

function renderLicense(folder) {
  const { name, version, license, author } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const read = (pattern) =>
    readdirSync(folder)
      .filter((entry) => pattern.test(entry))
      .map((entry) => readFileSync(join(folder, entry), "utf8"));
  const licenses = read(/^licen[cs]e(\.(md|txt))?$/i);
  const holder = typeof author === "object" ? author.name : (author ?? `the authors of ${name}`);
  if (licenses.length === 0) licenses.push(`License: ${license}. Copyright: ${holder}.\n`);
  // The Apache license asks that they go along.
  const notices = read(/^(copyright)?notice(\.(md|txt))?$/i);
  return `${name} ${version}, whose code is part of these files:\n\n${[...licenses, ...notices].join("\n")}`;
}

function compareTexts(left, right) {
  return left < right ? -1 : 1;
}
