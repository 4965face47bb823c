/**
 * Measures one run to six destinations at once against a run to each of them alone, in turns, and writes its section of
 * docs/benchmarks.md. The servers run on this machine; Google's is a fake in this process.
 *
 *   npm run bench:destinations                     a database of 300 MB, 3 rounds
 *   npm run bench:destinations -- --scale 0.02 --rounds 1 --no-write
 */
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { startPostgres } from "../test/support/postgres-server.ts";
import { type DestinationType, startSixDestinations, TYPES } from "../test/support/six-destinations.ts";
import { benchData } from "./bench-data.ts";
import { log, machine, page, query, rowkeep, TABLE_BYTES } from "./bench-place.ts";
import { writeSection } from "./benchmarks-page.ts";
import { type Measurement, measure, medianOf } from "./measure.ts";

const { values: flags } = parseArgs({
  options: {
    scale: { type: "string", default: "0.165" },
    rounds: { type: "string", default: "3" },
    "volume-mib": { type: "string" },
    "no-write": { type: "boolean", default: false },
  },
});
const rounds = Number(flags.rounds);
/** What a line of 100 Mbit/s carries, as the bandwidth of each destination that is not a folder. */
const LINE = "12MB";
const volumeMib = flags["volume-mib"];
/** Each look takes processor time that the run on the same cores would have. */
const SPOOL_WATCH_MS = 50;

interface Run extends Measurement {
  /** Most bytes that lay in the spool at one time, as far as a look now and then sees it: a volume lies there for seconds. */
  readonly spoolBytes: number;
  /** Time of all processors that everything on the machine took meanwhile: servers, database and neighbours too. */
  readonly machineSeconds: number;
}

interface Way {
  readonly name: string;
  readonly types: readonly DestinationType[];
  readonly bandwidth: string | undefined;
}

const work = mkdtempSync(join(tmpdir(), "rowkeep-bench-"));
const server = await startPostgres(18, [
  "-c",
  "shared_buffers=512MB",
  "-c",
  "max_wal_size=4GB",
  "-c",
  "autovacuum=off",
]);
const six = await startSixDestinations();
try {
  log("making the data");
  for (const sql of benchData(Number(flags.scale))) await query(server.url, sql);
  const [size] = await query(server.url, TABLE_BYTES);
  const ways = [undefined, LINE].flatMap((bandwidth): readonly Way[] => [
    ...TYPES.map((type) => ({ name: type as string, types: [type], bandwidth })),
    { name: "all six", types: [...TYPES], bandwidth },
  ]);
  const results = ways.map((): Run[] => []);
  for (let round = 1; round <= rounds; round++) {
    for (const [index, way] of ways.entries()) {
      const run = await runTo(way, `${way.name.replace(" ", "-")}-${round}`);
      results[index]?.push(run);
      log(
        `${round}/${rounds} ${way.name}${way.bandwidth ? `, ${way.bandwidth}/s each` : ""}: ${run.seconds.toFixed(1)} s, ${run.peakMiB?.toFixed(0)} MiB, ${run.cpuSeconds?.toFixed(1)} CPU-s of ${run.machineSeconds.toFixed(1)}`,
      );
    }
  }
  const text = report(Number(size?.[0] ?? 0), ways, results);
  process.stdout.write(text);
  if (!flags["no-write"]) writeSection(page, "Six destinations at once", text);
} finally {
  await six[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
  rmSync(work, { recursive: true, force: true });
}

async function runTo({ types, bandwidth }: Way, place: string): Promise<Run> {
  const file = join(work, "bench.yaml");
  const home = join(work, "home");
  const destinations = types.map((type) => ({
    ...six.written(type, place),
    ...(bandwidth && type !== "local" ? { bandwidth } : {}),
  }));
  const job = {
    version: 1,
    name: "bench",
    source: { url: server.url },
    destinations,
    ...(volumeMib === undefined ? {} : { volumeSize: `${volumeMib}MiB` }),
    parallel: 2,
  };
  writeFileSync(file, JSON.stringify(job), { mode: 0o600 });
  const folders = [join(home, "state/spool/bench"), join(six.folder, place, "bench.spool.in-progress")];
  let spoolBytes = 0;
  const watch = setInterval(() => {
    spoolBytes = Math.max(spoolBytes, ...folders.map(bytesOf));
  }, SPOOL_WATCH_MS);
  const busyBefore = busySeconds();
  try {
    const run = await measure(process.execPath, [rowkeep, "run", file, "--home", home, "-q"]);
    return { ...run, spoolBytes, machineSeconds: busySeconds() - busyBefore };
  } finally {
    clearInterval(watch);
    for (const type of types) await clear(type, place);
  }
}

/** The next one must find as much room and memory as this one. */
async function clear(type: DestinationType, place: string): Promise<void> {
  if (type === "gcs") return six.gcs.objects.clear();
  const { signal } = new AbortController();
  await using destination = await six.open(type, place);
  for (const { key } of await Array.fromAsync(destination.list("", { signal }))) {
    await destination.remove(key, { signal });
  }
}

function busySeconds(): number {
  return cpus().reduce((sum, { times }) => sum + times.user + times.nice + times.sys + times.irq, 0) / 1000;
}

function bytesOf(folder: string): number {
  try {
    const names = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".tar"));
    return names.reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
  } catch {
    // It is not there yet, or a file went while it was looked at: the next look sees it.
    return 0;
  }
}

function report(bytes: number, ways: readonly Way[], results: readonly (readonly Run[])[]): string {
  const half = ways.length / 2;
  const all = results[half - 1] ?? [];
  const cpu = (runs: readonly Run[]) => medianOf(runs.map(({ cpuSeconds }) => cpuSeconds ?? Number.NaN)).toFixed(1);
  return [
    `Written by \`npm run bench:destinations\`: ${(bytes / 1e6).toFixed(0)} MB of tables, one run to all six against a run to each alone,`,
    `in turns; ${rounds} rounds, volumes of ${volumeMib === undefined ? "the size that rowkeep chooses" : `${volumeMib} MiB`}. All servers share the machine with the run (${machine});`,
    `Node ${process.versions.node}.`,
    "",
    ...table(ways.slice(0, half), results.slice(0, half)),
    `Rowkeep itself took ${cpu(all)} s of processor time for all six and ${cpu(results[0] ?? [])} s for the folder alone. All that ran on the machine, servers too, took`,
    `${machineSeconds(all)} s meanwhile, of ${capacity(all)} s that its ${cpus().length} cores had.`,
    "",
    `The same with a bandwidth of ${LINE}/s for each destination but the folder, as if each were behind a line of 100 Mbit/s of its own:`,
    "",
    ...table(ways.slice(half), results.slice(half)),
  ].join("\n");
}

/** The last way is all of them at once. */
function table(ways: readonly Way[], results: readonly (readonly Run[])[]): readonly string[] {
  const all = results.at(-1) ?? [];
  const alone = results.slice(0, -1);
  const ratios = all.map(({ seconds }, round) => seconds / Math.max(...alone.map((runs) => runs[round]?.seconds ?? 0)));
  return [
    "| destination | median s | peak RSS MiB | largest spool MB |",
    "|---|---|---|---|",
    ...ways.map(({ name }, index) => line(name, results[index] ?? [])),
    "",
    `All six at once against the slowest alone, round by round: ${ratios.map((ratio) => ratio.toFixed(2)).join(" ")} (median ${medianOf(ratios).toFixed(2)}).`,
    "",
  ];
}

function machineSeconds(runs: readonly Run[]): string {
  return medianOf(runs.map((run) => run.machineSeconds)).toFixed(1);
}

function capacity(runs: readonly Run[]): string {
  return (medianOf(runs.map(({ seconds }) => seconds)) * cpus().length).toFixed(1);
}

function line(name: string, runs: readonly Run[]): string {
  const seconds = medianOf(runs.map((run) => run.seconds)).toFixed(1);
  const peaks = runs.flatMap((run) => run.peakMiB ?? []);
  const peak = peaks.length > 0 ? Math.max(...peaks).toFixed(0) : "–";
  const spool = Math.max(...runs.map((run) => run.spoolBytes)) / 1e6;
  return `| ${name} | ${seconds} | ${peak} | ${spool.toFixed(0)} |`;
}
