/**
 * Measures rowkeep against pg_dump and pg_restore on the same server and data, in turns, and writes docs/benchmarks.md.
 *
 *   npm run bench                     1.6 GB, 5 rounds
 *   npm run bench -- --scale 0.1 --rounds 1 --no-write
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { startPostgres } from "../test/support/postgres-server.ts";
import { pgTool } from "../test/support/pg-tools.ts";
import { benchData } from "./bench-data.ts";
import { log, machine, page, query, rowkeep, TABLE_BYTES } from "./bench-place.ts";
import { writeSection } from "./benchmarks-page.ts";
import { bytesBelow, type Measurement, measure, medianOf } from "./measure.ts";

const { values: flags } = parseArgs({
  options: {
    scale: { type: "string", default: "1" },
    rounds: { type: "string", default: "5" },
    "no-write": { type: "boolean", default: false },
  },
});
const scale = Number(flags.scale);
const rounds = Number(flags.rounds);
const work = join(tmpdir(), `rowkeep-bench-${process.pid}`);

interface Way {
  readonly name: string;
  readonly run: (round: number) => Promise<Measurement>;
  readonly size?: () => Promise<number>;
}

interface Row {
  readonly name: string;
  readonly seconds: number;
  readonly ratios: readonly number[];
  readonly peakMiB: number | undefined;
  readonly bytes: number | undefined;
}

const pgDump = pgTool("pg_dump", 18);
const pgRestore = pgTool("pg_restore", 18);
if (!pgDump || !pgRestore) throw new Error("pg_dump and pg_restore 18 are missing: run npm run services");

mkdirSync(work, { recursive: true });
// Settings that a server of this size would have; fsync off, so that the disk of the machine is not what is measured.
const server = await startPostgres(18, ["-c", "shared_buffers=1GB", "-c", "max_wal_size=8GB", "-c", "autovacuum=off"]);
try {
  const url = await database("bench");
  log(`making the data (scale ${scale})`);
  for (const sql of benchData(scale)) await query(url, sql);
  const [raw] = await query(url, TABLE_BYTES);
  writeFileSync(join(work, "bench.yaml"), jobFile(url));

  const dump = await compare("backup", backupWays(url));
  const restore = await compare("restore", restoreWays());
  const text = report(Number(raw?.[0] ?? 0), dump, restore);
  process.stdout.write(text);
  if (!flags["no-write"]) writeSection(page, undefined, text);
} finally {
  await server[Symbol.asyncDispose]();
  rmSync(work, { recursive: true, force: true });
}

function jobFile(url: string): string {
  const destinations = `destinations:\n  - { type: local, path: ${JSON.stringify(join(work, "backups"))} }\n`;
  return `version: 1\nname: bench\nsource:\n  url: ${JSON.stringify(url)}\n${destinations}compression: { codec: zstd, level: 2 }\nparallel: 2\n`;
}

function backupWays(url: string): readonly Way[] {
  const folder = (name: string) => join(work, name);
  const fresh = (name: string) => {
    rmSync(folder(name), { recursive: true, force: true });
    return folder(name);
  };
  const dump = (name: string, compression: readonly string[]): Way => ({
    name: `pg_dump 18 -Fd -j2 ${compression.join(" ")}`.trim(),
    run: () => measure(pgDump as string, ["-Fd", "-j2", ...compression, "-f", fresh(name), url]),
    size: () => bytesBelow(folder(name)),
  });
  return [
    {
      name: "rowkeep run, 2 streams, zstd level 2",
      run: () => {
        fresh("backups");
        return measure(process.execPath, [rowkeep, "run", join(work, "bench.yaml"), "--home", folder("home"), "-q"]);
      },
      size: () => bytesBelow(folder("backups")),
    },
    dump("zstd", ["--compress=zstd:3"]),
    dump("gzip", []),
  ];
}

function restoreWays(): readonly Way[] {
  return [
    {
      name: "rowkeep restore --create, 2 streams",
      run: async (round) => {
        const target = await restoreTarget(`restored_rowkeep_${round}`);
        const args = ["restore", join(work, "bench.yaml"), "--create", "--to", target, "--parallel", "2", "--yes"];
        const result = await measure(process.execPath, [rowkeep, ...args, "--home", join(work, "home"), "-q"]);
        await drop(`restored_rowkeep_${round}`);
        return result;
      },
    },
    {
      name: "pg_restore 18 -j2 (of the zstd:3 dump)",
      run: async (round) => {
        const target = await restoreTarget(`restored_peer_${round}`);
        const result = await measure(pgRestore as string, ["-j2", "--no-owner", "-d", target, join(work, "zstd")]);
        await drop(`restored_peer_${round}`);
        return result;
      },
    },
  ];
}

/**
 * Runs the ways in turns, so that a slow moment of the machine meets all of them, and each second round backwards, so that none profits
 * from its place; ratios are taken inside a round. Round 0 does not count: who comes first waits for memory that the machine never
 * used, and for files of the server's log that do not exist yet.
 */
async function compare(title: string, ways: readonly Way[]): Promise<readonly Row[]> {
  const results = ways.map((): Measurement[] => []);
  for (let round = 0; round <= rounds; round += 1) {
    for (const [index, way] of round % 2 === 1 ? [...ways.entries()] : [...ways.entries()].reverse()) {
      const result = await way.run(round);
      if (round > 0) results[index]?.push(result);
      log(`${title} ${round}/${rounds} ${way.name}: ${result.seconds.toFixed(1)} s`);
    }
  }
  const [own = []] = results;
  return Promise.all(
    ways.map(async (way, index) => {
      const measured = results[index] ?? [];
      const peaks = measured.flatMap((result) => result.peakMiB ?? []);
      return {
        name: way.name,
        seconds: medianOf(measured.map((result) => result.seconds)),
        ratios: measured.map((result, round) => (own[round]?.seconds ?? 0) / result.seconds),
        peakMiB: peaks.length > 0 ? Math.max(...peaks) : undefined,
        bytes: await way.size?.(),
      };
    }),
  );
}

function report(rawBytes: number, dump: readonly Row[], restore: readonly Row[]): string {
  return [
    "# Benchmarks",
    "",
    "Written by `npm run bench`: every way runs as a whole process on the same PostgreSQL 18 server and data, in turns, each second round backwards;",
    `medians of ${rounds} rounds behind one that does not count. The ratio is rowkeep's time divided by the other's, inside one round (below 1: rowkeep is faster).`,
    "",
    `Data: ${(rawBytes / 1e9).toFixed(2)} GB of tables on disk (two narrow, two wide), 5 indexes, 4 keys, 1 foreign key.`,
    `Machine: ${machine}, shared by server and client; Node ${process.versions.node}.`,
    "",
    "| backup | median s | ratio (median) | ratios | archive MB | peak RSS MiB |",
    "|---|---|---|---|---|---|",
    ...dump.map(line),
    "",
    "| restore with indexes | median s | ratio (median) | ratios | | peak RSS MiB |",
    "|---|---|---|---|---|---|",
    ...restore.map(line),
    "",
  ].join("\n");
}

function line(row: Row): string {
  const ratios = row.ratios.map((ratio) => ratio.toFixed(2)).join(" ");
  const size = row.bytes === undefined ? "" : (row.bytes / 1e6).toFixed(0);
  return `| ${row.name} | ${row.seconds.toFixed(1)} | ${medianOf(row.ratios).toFixed(2)} | ${ratios} | ${size} | ${row.peakMiB?.toFixed(0) ?? "–"} |`;
}

/** Makes a database to restore into. What the one before left to be written is written before, not while the next one is measured. */
async function restoreTarget(name: string): Promise<string> {
  const url = await database(name);
  await query(server.url, "checkpoint");
  return url;
}

async function database(name: string): Promise<string> {
  await query(server.url, `create database ${name}`);
  const url = new URL(server.url);
  url.pathname = `/${name}`;
  return url.href;
}

async function drop(name: string): Promise<void> {
  await query(server.url, `drop database ${name} with (force)`);
}
