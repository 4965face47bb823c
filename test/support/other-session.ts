import pg from "pg";
import { executeMeanwhile } from "./execute-meanwhile.ts";

export type OtherSession = pg.Client & AsyncDisposable;

export async function openSession(url: string): Promise<OtherSession> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return Object.assign(client, { [Symbol.asyncDispose]: () => client.end() });
}

/** Conditions on pg_locks; in the tests' own database: other tests use the server at the same time. */
const OF_THIS_DATABASE = "database = (select oid from pg_database where datname = current_database())";
export const SOMEBODY_WAITS = `not granted and ${OF_THIS_DATABASE}`;
export const isLocked = (relation: string) =>
  `granted and mode = 'AccessExclusiveLock' and relation = '${relation}'::regclass and ${OF_THIS_DATABASE}`;

/**
 * Gives a function that has a session begin a statement, the first time that it is called, and returns when a lock fulfils the condition;
 * nothing of this process goes on meanwhile. `ended` is that of the statement.
 */
export function beginOnce(url: string, session: pg.Client, sql: string, condition: string) {
  let ended: Promise<unknown> | undefined;
  const begin = () => {
    if (ended) return;
    ended = session.query(sql);
    executeMeanwhile(
      url,
      `do $$ begin for i in 1..1000 loop exit when exists (select from pg_locks where ${condition});
         perform pg_sleep(0.01); end loop; end $$`,
    );
  };
  return { begin, ended: () => ended };
}
