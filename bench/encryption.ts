/**
 * Measures what encryption to a public key costs a full, as whole processes in turns, and writes its section of
 * docs/benchmarks.md.
 *
 *   npm run bench:encryption                     400 MB, 5 rounds
 *   npm run bench:encryption -- --scale 0.05 --rounds 1 --no-write
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { generateIdentity, identityToRecipient } from "age-encryption";
import { startPostgres } from "../test/support/postgres-server.ts";
import { benchData } from "./bench-data.ts";
import { log, machine, page, query, rowkeep, TABLE_BYTES } from "./bench-place.ts";
import { writeSection } from "./benchmarks-page.ts";
import { type Measurement, measure, medianOf } from "./measure.ts";

const { values: flags } = parseArgs({
  options: {
    scale: { type: "string", default: "0.25" },
    rounds: { type: "string", default: "5" },
    "no-write": { type: "boolean", default: false },
  },
});
const rounds = Number(flags.rounds);
const work = mkdtempSync(join(tmpdir(), "rowkeep-bench-"));
const settings = ["shared_buffers=1GB", "max_wal_size=8GB", "autovacuum=off"];
const server = await startPostgres(
  18,
  settings.flatMap((setting) => ["-c", setting]),
);
try {
  const bytes = await makeData();
  const recipient = await identityToRecipient(await generateIdentity());
  writeJob("plain", {});
  writeJob("encrypted", { encryption: { recipients: [recipient] } });
  const plain: Measurement[] = [];
  const encrypted: Measurement[] = [];
  // The first run of all finds cold caches.
  await back("plain");
  for (let round = 1; round <= rounds; round++) {
    // Who goes first changes, so that neither always follows the other's writes.
    if (round % 2 === 1) plain.push(await back("plain"));
    encrypted.push(await back("encrypted"));
    if (round % 2 === 0) plain.push(await back("plain"));
    const [one, other] = [plain.at(-1)?.seconds ?? 0, encrypted.at(-1)?.seconds ?? 0];
    log(`${round}/${rounds}: plain ${one.toFixed(1)} s, encrypted ${other.toFixed(1)} s`);
  }
  const text = report(bytes, plain, encrypted);
  process.stdout.write(text);
  if (!flags["no-write"]) writeSection(page, "What encryption costs", text);
} finally {
  await server[Symbol.asyncDispose]();
  rmSync(work, { recursive: true, force: true });
}

/** Bytes of the tables. */
async function makeData(): Promise<number> {
  for (const sql of benchData(Number(flags.scale))) await query(server.url, sql);
  return Number((await query(server.url, TABLE_BYTES))[0]?.[0] ?? 0);
}

function writeJob(name: string, more: object): void {
  const destinations = [{ type: "local", path: join(work, "backups", name) }];
  const job = { version: 1, name, source: { url: server.url }, destinations, parallel: 2, ...more };
  writeFileSync(join(work, `${name}.yaml`), JSON.stringify(job), { mode: 0o600 });
}

async function back(name: string): Promise<Measurement> {
  rmSync(join(work, "backups"), { recursive: true, force: true });
  return await measure(process.execPath, [
    rowkeep,
    "run",
    join(work, `${name}.yaml`),
    "--home",
    join(work, "home"),
    "-q",
  ]);
}

function report(bytes: number, plain: readonly Measurement[], encrypted: readonly Measurement[]): string {
  const ratios = encrypted.map(({ seconds }, round) => seconds / (plain[round]?.seconds ?? Number.NaN));
  const line = (name: string, runs: readonly Measurement[]) => {
    const seconds = medianOf(runs.map((run) => run.seconds)).toFixed(2);
    const cpu = medianOf(runs.map((run) => run.cpuSeconds ?? Number.NaN)).toFixed(2);
    const peak = Math.max(...runs.map((run) => run.peakMiB ?? 0)).toFixed(0);
    return `| ${name} | ${seconds} | ${cpu} | ${peak} |`;
  };
  return [
    `Written by \`npm run bench:encryption\`: a full of ${(bytes / 1e6).toFixed(0)} MB of tables to a folder, zstd, 2 streams, to a public key and without,`,
    `as whole processes in turns; ${rounds} rounds on ${machine}, shared with the server; Node ${process.versions.node}.`,
    "",
    "| full | median s | CPU s | peak RSS MiB |",
    "|---|---|---|---|",
    line("plain", plain),
    line("encrypted", encrypted),
    "",
    `Encrypted against plain, round by round: ${ratios.map((ratio) => ratio.toFixed(2)).join(" ")} (median ${medianOf(ratios).toFixed(2)}).`,
    "",
  ].join("\n");
}
