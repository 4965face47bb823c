/**
 * Measures incrementals against fulls of the same data, in turns.
 *
 *   node bench/increments.ts                     1 M rows, 3 rounds
 *   node bench/increments.ts --rows 5000000 --rounds 5
 */
import { parseArgs } from "node:util";
import pg from "pg";
import { openChain } from "../test/support/increments.ts";
import { startPostgres } from "../test/support/postgres-server.ts";
import { medianOf } from "./measure.ts";

const { values: flags } = parseArgs({
  options: { rows: { type: "string", default: "1000000" }, rounds: { type: "string", default: "3" } },
});
const rows = Number(flags.rows);
const rounds = Number(flags.rounds);

await using server = await startPostgres(18, ["-c", "shared_buffers=512MB", "-c", "max_wal_size=4GB", "-c", "autovacuum=off"]);
const client = new pg.Client({ connectionString: server.url });
await client.connect();
await client.query(`create table narrow (aid int primary key, bid int, abalance int, filler char(84));
  insert into narrow select i, i % 100, 0, md5(i::text) from generate_series(1, ${rows}) i`);
// Updated and vacuumed a few times: free places are spread over all pages, the unfavourable layout.
for (let turn = 0; turn < 3; turn++) {
  await client.query(`update narrow set abalance = ${turn} where aid % 20 = ${turn}`);
  await client.query("vacuum narrow");
}
await client.query("create table other (i int)");

const ways: Readonly<Record<string, string>> = {
  "nothing in the whole cluster": "select 1",
  "nothing in the table": "insert into other values (1)",
  "0.1 % scattered": `update narrow set abalance = abalance + 1 where aid % 1000 = `,
  "1 % scattered": `update narrow set abalance = abalance + 1 where aid % 100 = `,
};
const measured: Record<string, { seconds: number; bytes: number }[]> = {};
const note = (name: string, startedAt: number, bytes: number) => {
  (measured[name] ??= []).push({ seconds: (performance.now() - startedAt) / 1000, bytes });
};
for (let round = 0; round < rounds; round++) {
  for (const track of [false, true]) {
    await using alone = await openChain();
    const startedAt = performance.now();
    const full = await alone.next(server.url, { track });
    note(track ? "full that an incremental can build on" : "full", startedAt, sizeOf(full));
  }
  for (const [name, sql] of Object.entries(ways)) {
    await using chain = await openChain();
    await chain.next(server.url);
    await client.query(sql.endsWith("= ") ? `${sql}${round}` : sql);
    const startedAt = performance.now();
    note(name, startedAt, sizeOf(await chain.next(server.url)));
    const seconds = (performance.now() - startedAt) / 1000;
    const list = measured[name] ?? [];
    const last = list.at(-1);
    if (last) list[list.length - 1] = { ...last, seconds };
  }
}
await client.end();
const full = medianOf((measured["full"] ?? []).map(({ seconds }) => seconds));
const fullBytes = medianOf((measured["full"] ?? []).map(({ bytes }) => bytes));
for (const [name, list] of Object.entries(measured)) {
  const seconds = medianOf(list.map((one) => one.seconds));
  const bytes = medianOf(list.map((one) => one.bytes));
  console.log(
    `${name}: ${seconds.toFixed(2)} s (full / it = ${(full / seconds).toFixed(1)}), ${bytes} bytes (${(fullBytes / bytes).toFixed(0)})`,
  );
}

function sizeOf({ volumes }: { readonly volumes: readonly { readonly size: number }[] }): number {
  return volumes.reduce((sum, { size }) => sum + size, 0);
}
