/**
 * Measures what a year of hourly snapshots costs to list and to prune, as whole processes, and writes its section of docs/benchmarks.md.
 *
 *   npm run bench:year                     8,760 manifests of 17 kB, 5 rounds
 *   npm run bench:year -- --rounds 1 --no-write
 */
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { renderSnapshotId } from "../src/snapshot/snapshot-id.ts";
import { PREFIX } from "../test/snapshot/sample-snapshot.ts";
import { makeYear, NEWEST } from "../test/snapshot/year-of-snapshots.ts";
import { log, machine, page, rowkeep } from "./bench-place.ts";
import { writeSection } from "./benchmarks-page.ts";
import { type Measurement, measure, medianOf } from "./measure.ts";

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    "no-write": { type: "boolean", default: false },
  },
});
const COUNT = 8_760;
const HOUR_MS = 3_600_000;
const HEAP_MIB = 96;

/** Some 13 kB, as those of fifty tables. */
const definitions = Array.from({ length: 48 }, (_, index) => ({
  section: "pre-data" as const,
  kind: "table",
  schema: "public",
  name: `table_${index}`,
  sql: `create table public.table_${index} (${"id bigint not null, ".repeat(8)}note text)`,
}));

await using folder = await makeYear({ count: COUNT, stepMs: HOUR_MS, definitions });
const homes = mkdtempSync(join(tmpdir(), "rowkeep-bench-"));
const job = join(folder.path, "shop.yaml");
const oldest = renderSnapshotId(new Date(NEWEST - (COUNT - 1) * HOUR_MS), "full");
const { size } = statSync(join(folder.path, "store", PREFIX, oldest, "manifest.json"));

const ways = [
  { name: "list, where nobody listed them before", args: ["list", job], isNew: true },
  { name: "list, once more", args: ["list", job] },
  { name: `prune --dry-run, heap of ${HEAP_MIB} MiB`, args: ["prune", job, "--dry-run"], heap: HEAP_MIB },
];
const results = ways.map((): Measurement[] => []);
try {
  for (let round = 1; round <= Number(flags.rounds); round++) {
    for (const [index, { name, args, isNew, heap }] of ways.entries()) {
      const home = join(homes, "home");
      if (isNew) rmSync(home, { recursive: true, force: true });
      const env = heap === undefined ? {} : { NODE_OPTIONS: `--max-old-space-size=${heap}` };
      const run = await measure(process.execPath, [rowkeep, ...args, "--home", home], env);
      results[index]?.push(run);
      log(`${round}/${flags.rounds} ${name}: ${run.seconds.toFixed(2)} s, ${run.peakMiB?.toFixed(0)} MiB`);
    }
  }
} finally {
  rmSync(homes, { recursive: true, force: true });
}

const text = [
  `Written by \`npm run bench:year\`: ${COUNT.toLocaleString("en")} manifests of ${Math.round(size / 1000)} kB in a local folder (${machine}); whole processes, ${flags.rounds} rounds;`,
  `Node ${process.versions.node}.`,
  "",
  "| command | median s | each round | peak RSS MiB |",
  "|---|---|---|---|",
  ...ways.map(({ name }, index) => line(name, results[index] ?? [])),
  "",
].join("\n");
process.stdout.write(text);
if (!flags["no-write"]) writeSection(page, "A year of hourly snapshots", text);

function line(name: string, runs: readonly Measurement[]): string {
  const seconds = runs.map((run) => run.seconds);
  const peak = Math.max(...runs.map(({ peakMiB }) => peakMiB ?? Number.NaN));
  return `| ${name} | ${medianOf(seconds).toFixed(2)} | ${seconds.map((one) => one.toFixed(2)).join(" ")} | ${peak.toFixed(0)} |`;
}
