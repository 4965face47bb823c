/**
 * Measures incrementals against fulls of the same data, in turns.
 *
 *   node bench/increments.ts                     1 M rows, 3 rounds
 *   node bench/increments.ts --rows 5000000 --rounds 5
 */
import { parseArgs } from "node:util";
import pg from "pg";
import { type Chain, openChain } from "../test/support/increments.ts";
import { startPostgres } from "../test/support/postgres-server.ts";
import { medianOf } from "./measure.ts";

const { values: flags } = parseArgs({
  options: { rows: { type: "string", default: "1000000" }, rounds: { type: "string", default: "3" } },
});
const rows = Number(flags.rows);
const rounds = Number(flags.rounds);

await using server = await startPostgres(18, [
  "-c",
  "shared_buffers=512MB",
  "-c",
  "max_wal_size=4GB",
  "-c",
  "autovacuum=off",
]);
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
const measured = new Map<string, { readonly seconds: number; readonly bytes: number }[]>();
/** Takes the next snapshot of a chain and notes what it cost. */
async function take(name: string, chain: Chain, track: boolean): Promise<void> {
  const startedAt = performance.now();
  const { volumes } = await chain.next(server.url, { track });
  const seconds = (performance.now() - startedAt) / 1000;
  const bytes = volumes.reduce((sum, { size }) => sum + size, 0);
  measured.set(name, [...(measured.get(name) ?? []), { seconds, bytes }]);
}
for (let round = 0; round < rounds; round++) {
  for (const track of [false, true]) {
    await using alone = await openChain();
    await take(track ? "full that an incremental can build on" : "full", alone, track);
  }
  for (const [name, sql] of Object.entries(ways)) {
    await using chain = await openChain();
    await chain.next(server.url);
    await client.query(sql.endsWith("= ") ? `${sql}${round}` : sql);
    await take(name, chain, true);
  }
}
await client.end();
const medians = [...measured].map(([name, list]) => ({
  name,
  seconds: medianOf(list.map((one) => one.seconds)),
  bytes: medianOf(list.map((one) => one.bytes)),
}));
const full = medians[0] ?? { seconds: 0, bytes: 0 };
for (const { name, seconds, bytes } of medians) {
  const [faster, smaller] = [(full.seconds / seconds).toFixed(1), (full.bytes / bytes).toFixed(0)];
  console.log(`${name}: ${seconds.toFixed(2)} s (${faster} times as fast), ${bytes} bytes (${smaller} times as small)`);
}
