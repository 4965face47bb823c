/**
 * Measures incrementals as whole processes against fulls of the same data, in turns, and writes its section of docs/benchmarks.md.
 *
 *   npm run bench:increments                     5 M narrow rows, 60,000 wide ones, 3 rounds
 *   npm run bench:increments -- --scale 0.02 --rounds 1 --no-write
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { startPostgres } from "../test/support/postgres-server.ts";
import { startThrottlingProxy } from "../test/support/throttling-proxy.ts";
import { log, machine, page, query, rowkeep } from "./bench-place.ts";
import { writeSection } from "./benchmarks-page.ts";
import { incrementsData } from "./increments-data.ts";
import { bytesBelow, measure, medianOf } from "./measure.ts";

const { values: flags } = parseArgs({
  options: {
    scale: { type: "string", default: "1" },
    rounds: { type: "string", default: "3" },
    "no-write": { type: "boolean", default: false },
  },
});
const scale = Number(flags.scale);
const rounds = Number(flags.rounds);
const LINE_BITS = 100_000_000;

interface Run {
  readonly seconds: number;
  /** What the snapshot added to the destination. */
  readonly bytes: number;
  /** Chunks that lie in it. */
  readonly chunks: number;
}

interface Way {
  readonly name: string;
  readonly isSlow?: boolean;
  /** What happens to the data before it. */
  readonly sql?: (round: number) => string;
  readonly isFull?: boolean;
  /** It is no part of the chain. */
  readonly isAlone?: boolean;
}

const update = (part: number, first: number) => (round: number) =>
  `update narrow set abalance = abalance + 1 where aid % ${part} = ${first + round}`;
/** Each incremental builds on the snapshot before it; the chain begins anew in each round. */
const ways: readonly Way[] = [
  { name: "full without schedule.incremental", isFull: true, isAlone: true },
  { name: "full that incrementals build on", isFull: true },
  { name: "idle cluster" },
  { name: "nothing changed", sql: () => "insert into other values (1)" },
  { name: "0.1 % of narrow updated, scattered", sql: update(1000, 100) },
  { name: "1 % of narrow updated, scattered", sql: update(100, 50) },
  { name: "full through 100 Mbit/s", isFull: true, isAlone: true, isSlow: true },
  { name: "0.1 % updated, through 100 Mbit/s", isSlow: true, sql: update(1000, 200) },
];

const work = mkdtempSync(join(tmpdir(), "rowkeep-bench-"));
// Room for all of the data: what is measured is not the disk of the machine.
const server = await startPostgres(18, ["-c", "shared_buffers=2GB", "-c", "max_wal_size=8GB", "-c", "autovacuum=off"]);
const proxy = await startThrottlingProxy(server.port, LINE_BITS);
try {
  log("making the data");
  for (const sql of incrementsData(scale)) await query(server.url, sql);
  const sizes = await query(
    server.url,
    "select sum(pg_relation_size(oid)), sum(pg_table_size(oid)) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace",
  );
  const results = ways.map((): Run[] => []);
  for (let round = 1; round <= rounds; round += 1) {
    rmSync(join(work, "chain"), { recursive: true, force: true });
    await query(server.url, "vacuum narrow");
    for (const [index, way] of ways.entries()) {
      const run = await take(way, round);
      results[index]?.push(run);
      log(`${round}/${rounds} ${way.name}: ${run.seconds.toFixed(2)} s, ${run.bytes} bytes, ${run.chunks} chunks`);
    }
  }
  const text = report(sizes[0]?.map(Number) ?? [], results);
  process.stdout.write(text);
  if (!flags["no-write"]) writeSection(page, "Incrementals", text);
} finally {
  await proxy[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
  rmSync(work, { recursive: true, force: true });
}

async function take(way: Way, round: number): Promise<Run> {
  if (way.sql) await query(server.url, way.sql(round));
  const folder = join(work, way.isAlone ? "alone" : "chain");
  const url = way.isSlow ? server.url.replace(`:${server.port}/`, `:${proxy.port}/`) : server.url;
  const isTracked = way.name !== ways[0]?.name;
  const job = {
    version: 1,
    name: "bench",
    source: { url },
    destinations: [{ type: "local", path: folder }],
    parallel: 2,
    ...(isTracked ? { schedule: { full: "0 2 * * sun", incremental: "0 * * * *" } } : {}),
  };
  const file = join(work, "bench.yaml");
  writeFileSync(file, JSON.stringify(job), { mode: 0o600 });
  const args = ["run", file, "--home", join(work, "home"), "-q", ...(way.isFull ? [] : ["--incremental"])];
  const { seconds } = await measure(process.execPath, [rowkeep, ...args]);
  const snapshots = join(folder, "bench/postgres");
  const newest = join(snapshots, readdirSync(snapshots).sort().at(-1) ?? "");
  const { chunks, kind } = summaryOf(newest);
  if ((kind === "full") !== (way.isFull === true)) throw new Error(`${way.name} made a ${kind}`);
  const bytes = await bytesBelow(newest);
  if (way.isAlone) rmSync(folder, { recursive: true, force: true });
  return { seconds, bytes, chunks };
}

function summaryOf(snapshot: string): { readonly chunks: number; readonly kind: string } {
  const manifest = JSON.parse(readFileSync(join(snapshot, "manifest.json"), "utf8")) as Manifest;
  const own = manifest.tables
    .filter(({ name }) => name !== "other")
    .flatMap(({ segments }) => segments.flatMap(({ chunks }) => chunks))
    .filter((chunk) => chunk.snapshot === undefined);
  return { chunks: own.length, kind: manifest.kind };
}

interface Manifest {
  readonly kind: string;
  readonly tables: readonly {
    readonly name: string;
    readonly segments: readonly { readonly chunks: readonly { readonly snapshot?: number }[] }[];
  }[];
}

function report([heap = 0, all = 0]: readonly number[], results: readonly (readonly Run[])[]): string {
  const count = (rows: number) => Math.round(rows * scale).toLocaleString("en");
  return [
    `Written by \`npm run bench:increments\`: ${(all / 1e9).toFixed(2)} GB of tables, of which ${((all - heap) / 1e9).toFixed(2)} GB are TOAST: ${count(5_000_000)} narrow`,
    `rows, updated and vacuumed so that every page has holes, and ${count(60_000)} wide ones. Whole processes (\`rowkeep run --incremental\`),`,
    `in turns, ${rounds} rounds; each incremental builds on the snapshot before it. Server and client share the machine (${machine}), all data`,
    `is in the server's memory; Node ${process.versions.node}. A ratio is the full's time (bytes) divided by this one's, in the same round.`,
    "",
    "| snapshot | median s | × as fast as a full without | × as fast as a full with tracking | stored kB | × as small |",
    "|---|---|---|---|---|---|",
    ...ways.map((way, index) => line(way, results[index] ?? [], results)),
    "",
    "Those through the line are compared with the full through it. Chunks of rows stored when nothing changed: " +
      `${results[3]?.map(({ chunks }) => chunks).join(" ")}.`,
    "",
  ].join("\n");
}

function line(way: Way, runs: readonly Run[], results: readonly (readonly Run[])[]): string {
  const slow = results[6] ?? [];
  const [without, tracked] = way.isSlow ? [slow, slow] : [results[0] ?? [], results[1] ?? []];
  const faster = (fulls: readonly Run[]) => ratios(fulls, runs, ({ seconds }) => seconds).toFixed(1);
  const smaller = ratios(tracked, runs, ({ bytes }) => bytes).toFixed(0);
  const [seconds, kilobytes] = [medianOf(runs.map((run) => run.seconds)), medianOf(runs.map((run) => run.bytes)) / 1e3];
  return `| ${way.name} | ${seconds.toFixed(2)} | ${faster(without)} | ${faster(tracked)} | ${kilobytes.toFixed(0)} | ${smaller} |`;
}

function ratios(fulls: readonly Run[], runs: readonly Run[], pick: (run: Run) => number): number {
  return medianOf(runs.map((run, round) => pick(fulls[round] ?? run) / pick(run)));
}
