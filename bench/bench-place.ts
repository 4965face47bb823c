import { cpus, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import pg from "pg";

const root = fileURLToPath(new URL("..", import.meta.url));

/** What is measured: the built program. */
export const rowkeep = join(root, "bin/rowkeep.js");

/** Where all benchmarks write. */
export const page = join(root, "docs/benchmarks.md");

/** Bytes of all user tables, without their indexes. */
export const TABLE_BYTES =
  "select sum(pg_table_size(oid)) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace";

// TMPDIR says where servers and archives lie: a disk that others use too is the noisiest part of a machine.
const files = tmpdir().startsWith("/dev/shm") ? ", all files in memory" : "";
/** Cores and memory of this machine in words. */
export const machine = `${cpus().length} × ${cpus()[0]?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB${files}`;

/** Runs one statement on a connection of its own; rows as arrays. */
export async function query(url: string, sql: string): Promise<unknown[][]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query({ text: sql, rowMode: "array" })).rows as unknown[][];
  } finally {
    await client.end();
  }
}

export function log(text: string): void {
  process.stderr.write(`${text}\n`);
}
