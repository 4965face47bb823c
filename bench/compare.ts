/**
 * Measures `rowkeep compare` of two equal tables against COPY of both, as whole processes in turns, and writes its section of
 * docs/benchmarks.md.
 *
 *   npm run bench:compare                        5 M rows at each site, 3 rounds
 *   npm run bench:compare -- --scale 0.02 --rounds 1 --no-write
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { startCountingProxy } from "../test/support/counting-proxy.ts";
import { pgTool } from "../test/support/pg-tools.ts";
import { startPostgres } from "../test/support/postgres-server.ts";
import { log, machine, page, query, rowkeep } from "./bench-place.ts";
import { writeSection } from "./benchmarks-page.ts";
import { measure, medianOf } from "./measure.ts";

const { values: flags } = parseArgs({
  options: {
    scale: { type: "string", default: "1" },
    rounds: { type: "string", default: "3" },
    "no-write": { type: "boolean", default: false },
  },
});
const scale = Number(flags.scale);
const rounds = Number(flags.rounds);
const rows = Math.max(1000, Math.round(5_000_000 * scale));
const CHANGED = 10;

/** Both have the columns of pgbench's accounts; the key tells how rowkeep finds rows: by ranges of numbers, or by their hashes. */
const TABLES = [
  { name: "accounts", key: "a number", keyOf: "i", type: "int" },
  { name: "named", key: "a text", keyOf: "'account ' || i", type: "text" },
] as const;

const psql = pgTool("psql", 18);
if (!psql) throw new Error("psql 18 is missing: run npm run services");
const work = mkdtempSync(join(tmpdir(), "rowkeep-bench-"));
const server = await startPostgres(18, ["-c", "shared_buffers=3GB", "-c", "max_wal_size=8GB", "-c", "autovacuum=off"]);
const proxy = await startCountingProxy(server.port);
const near = siteOf("near", server.port);
const far = siteOf("far", server.port);
try {
  log("making the data");
  await query(server.url, "create database near");
  for (const { name, keyOf, type } of TABLES) {
    await query(near, `create table ${name} (aid ${type} primary key, bid int, abalance int, filler char(84))`);
    await query(
      near,
      `insert into ${name} select ${keyOf}, i % 100, 0, md5(i::text) from generate_series(1, ${rows}) i`,
    );
  }
  await query(near, "vacuum analyze");
  await query(server.url, "create database far template near");
  await query(server.url, "checkpoint");
  const sections: string[] = [];
  for (const table of TABLES) sections.push(await compareWithCopy(table));
  const text = report(sections);
  process.stdout.write(text);
  if (!flags["no-write"]) writeSection(page, "Comparing two sites", text);
} finally {
  await proxy[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
  rmSync(work, { recursive: true, force: true });
}

function siteOf(database: string, port: number): string {
  const url = new URL(server.url);
  url.pathname = `/${database}`;
  url.port = String(port);
  return url.href;
}

interface Round {
  readonly copy: number;
  readonly compare: number;
}

/** Times both ways, counts what crosses the line, and proves that rows which differ are found. Gives the table's line. */
async function compareWithCopy({ name, key }: (typeof TABLES)[number]): Promise<string> {
  const taken: Round[] = [];
  const file = jobFor(name, { source: near, dr: far });
  const compare = () => measure(process.execPath, [rowkeep, "compare", file, "--home", join(work, "home"), "-q"]);
  const copyBoth = () => measure("sh", ["-c", `${copyOf(name, near)} & ${copyOf(name, far)} && wait $!`]);
  for (let round = 0; round <= rounds; round += 1) {
    const first = round % 2 === 0 ? (await copyBoth()).seconds : undefined;
    const compared = (await compare()).seconds;
    const one = { copy: first ?? (await copyBoth()).seconds, compare: compared };
    log(`${name} ${round}/${rounds}: COPY of both ${one.copy.toFixed(2)} s, compare ${compared.toFixed(2)} s`);
    // Who comes first waits for memory that the machine never used.
    if (round > 0) taken.push(one);
  }
  const share = await shareOfBytes(name);
  const found = await findChanged(name, file);
  const ratios = taken.map((one) => one.compare / one.copy);
  const seconds = (pick: keyof Round) => medianOf(taken.map((one) => one[pick])).toFixed(2);
  return `| ${key} | ${seconds("compare")} | ${seconds("copy")} | ${medianOf(ratios).toFixed(2)} (${ratios.map((ratio) => ratio.toFixed(2)).join(" ")}) | 1/${share} | ${found} of ${CHANGED} |`;
}

function copyOf(name: string, url: string): string {
  return `'${psql}' '${url}' -qc 'copy ${name} to stdout' > /dev/null`;
}

function jobFor(name: string, { source, dr }: { readonly source: string; readonly dr: string }): string {
  const file = join(work, "bench.yaml");
  const job = {
    version: 1,
    name: "bench",
    source: { url: source },
    dr: { url: dr },
    tables: { include: [name] },
    destinations: [{ type: "local", path: join(work, "backups") }],
    parallel: 2,
  };
  writeFileSync(file, JSON.stringify(job), { mode: 0o600 });
  return file;
}

/** How many times as many bytes COPY of both tables sends. */
async function shareOfBytes(name: string): Promise<number> {
  const urls = [siteOf("near", proxy.port), siteOf("far", proxy.port)];
  proxy.reset();
  const file = jobFor(name, { source: urls[0] ?? "", dr: urls[1] ?? "" });
  await measure(process.execPath, [rowkeep, "compare", file, "--home", join(work, "home"), "-q"]);
  const compared = proxy.sent + proxy.received;
  proxy.reset();
  for (const url of urls) await measure("sh", ["-c", copyOf(name, url)]);
  return Math.round((proxy.sent + proxy.received) / compared);
}

/** Changes some rows at one site, and counts those that are found. */
async function findChanged(name: string, file: string): Promise<number> {
  const changed = `${name} set abalance = abalance + 1 where aid in (select aid from ${name} order by md5(aid::text) limit ${CHANGED})`;
  await query(far, `update ${changed}`);
  jobFor(name, { source: near, dr: far });
  const args = [rowkeep, "compare", file, "--rows", "--json", "--home", join(work, "home")];
  const { status, stdout } = spawnSync(process.execPath, args, { encoding: "utf8", maxBuffer: 1e8 });
  if (status !== 4) throw new Error(`compare of differing tables ended with ${status}:\n${stdout}`);
  const { tables } = JSON.parse(stdout.trim().split("\n").at(-1) ?? "{}") as Compared;
  const kinds = tables.flatMap(({ differences }) => differences.map(({ kind }) => kind));
  if (kinds.some((kind) => kind !== "changed")) throw new Error(`rows that are equal differ: ${stdout}`);
  return kinds.length;
}

interface Compared {
  readonly tables: readonly { readonly differences: readonly { readonly kind: string }[] }[];
}

function report(lines: readonly string[]): string {
  return [
    `Written by \`npm run bench:compare\`: \`rowkeep compare\` of a primary and a dr site with one equal table of ${rows.toLocaleString("en")} rows each, against`,
    `\`psql -c 'copy … to stdout' > /dev/null\` of both at the same time, as whole processes in turns; ${rounds} rounds behind one that does not count. Server and`,
    `clients share the machine (${machine}), all data is in the server's memory; Node ${process.versions.node}. Bytes are what crosses the`,
    "line in both directions. In the end some rows of one site are changed, and those that are found are counted.",
    "",
    "| key of the table | compare, median s | COPY, median s | compare / COPY | bytes | changed rows found |",
    "|---|---|---|---|---|---|",
    ...lines,
    "",
  ].join("\n");
}
