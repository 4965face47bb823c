import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";

/** Replaying the log takes a moment, on a machine that is busy with something else far longer. */
const COMEBACK_MS = 120_000;
const LIMITS = { connectionTimeoutMillis: 5000, query_timeout: 20_000 };

/**
 * Kills a process of the server, so that all sessions end and the log is replayed, and waits until that is done. The
 * server itself goes on living.
 */
export async function crash(url: string): Promise<void> {
  const witness = new pg.Client({ connectionString: url, ...LIMITS });
  const ended = new Promise<void>((resolve) => {
    witness.on("error", () => undefined);
    witness.on("end", () => resolve());
  });
  await witness.connect();
  process.kill(await findVictim(witness), "SIGKILL");
  // A server that hangs fails the test with words, instead of using up its time.
  const late = new AbortController();
  await Promise.race([ended, sleep(30_000, undefined, late).then(() => fail("its sessions did not end"))]);
  late.abort();
  for (const end = Date.now() + COMEBACK_MS; Date.now() < end; ) {
    const client = new pg.Client({ connectionString: url, ...LIMITS });
    client.on("error", () => undefined);
    try {
      await client.connect();
      await client.query("select 1");
      await client.end();
      return;
    } catch {
      await sleep(100);
    }
  }
  fail("it did not come back");
}

/** Soon after a crash there may be none yet. */
async function findVictim(witness: pg.Client): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const { rows } = await witness.query("select pid from pg_stat_activity where backend_type = 'background writer'");
    const pid = Number((rows[0] as { pid: number } | undefined)?.pid);
    if (pid > 1) return pid;
    await sleep(50);
  }
  return fail("it has no process to kill");
}

function fail(reason: string): never {
  throw new Error(`the server was to crash: ${reason}`);
}
