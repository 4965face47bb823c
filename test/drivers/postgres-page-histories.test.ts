import pg from "pg";
import { expect, test } from "vitest";
import type { ChangedPage, ChangeTracker, TrustToken } from "../../src/drivers/change-tracker.ts";
import type { SourceTable } from "../../src/drivers/driver.ts";
import { hashTid } from "../../src/drivers/postgres/postgres-tid-hash.ts";
import { startPostgres } from "../support/postgres-server.ts";
import { postgresMajors } from "../support/postgres.ts";
import { randomFrom } from "../support/random-history.ts";
import { openTracked } from "../support/tracked-source.ts";

const signal = new AbortController().signal;
const SEED = Number(process.env["SEED"] ?? Date.now() % 1_000_000_000);
const ROUNDS = Number(process.env["ROUNDS"] ?? 8);
/** Of a server of its own: only there transactions can be prepared. */
const FLAGS = ["-c", "max_prepared_transactions=4", "-c", "autovacuum=off", "-c", "fsync=off"];
const TABLE = `create sequence stamps; create table t (id int, v text, stamp bigint) with (fillfactor = 90);
  alter table t alter v set storage plain; create index on t (id);
  insert into t select i, repeat('x', 300), nextval('stamps') from generate_series(1, 1500) i`;

/** Rows by line pointer by page; no two versions of a row are equal. */
type Pages = ReadonlyMap<number, ReadonlyMap<number, string>>;

class Session {
  readonly #client: pg.Client;
  #isOpen = false;
  #prepared: string | undefined;

  constructor(client: pg.Client) {
    this.#client = client;
  }

  async #run(sql: string): Promise<void> {
    try {
      await this.#client.query(sql);
    } catch {
      // It waited for a lock of another session; a transaction that was open is lost.
      if (this.#isOpen) await this.#client.query("rollback");
      this.#isOpen = false;
    }
  }

  async step(below: (n: number) => number): Promise<void> {
    const kind = below(16);
    const [change, other] = [statement(below), statement(below)];
    if (kind < 7) return this.#run(change);
    if (!this.#isOpen) {
      if (kind < 10) {
        await this.#run("begin");
        this.#isOpen = true;
        return this.#run(change);
      }
      if (kind < 12 && this.#prepared) return this.#endPrepared(below(2) ? "commit" : "rollback");
      return this.#run(
        [
          "vacuum (truncate off) t",
          "vacuum (freeze, truncate off) t",
          `delete from t where ctid > '(${20 + below(60)},0)'`,
        ][below(3)] ?? "",
      );
    }
    if (kind < 10) return this.#run(`savepoint a; ${change}; ${below(2) ? "rollback to a" : "release a"}; ${other}`);
    if (kind === 10 && !this.#prepared) {
      this.#prepared = `p${below(1_000_000)}`;
      await this.#run(`prepare transaction '${this.#prepared}'`);
      if (!this.#isOpen) this.#prepared = undefined;
    } else await this.#client.query(below(3) ? "commit" : "rollback");
    this.#isOpen = false;
  }

  /** Ends what is open: to cut off the table's end, VACUUM waits five seconds for whoever holds a lock. */
  async settle(): Promise<void> {
    if (this.#isOpen) await this.#client.query("commit");
    this.#isOpen = false;
    if (this.#prepared) await this.#endPrepared("commit");
  }

  async #endPrepared(end: string): Promise<void> {
    await this.#client.query(`${end} prepared '${this.#prepared}'`);
    this.#prepared = undefined;
  }
}

function statement(below: (n: number) => number): string {
  const first = 1 + below(1700);
  const last = first + ([0, 0, 3, 20, 200][below(5)] ?? 0);
  const rows = `id between ${first} and ${last}`;
  const touch = `update t set stamp = nextval('stamps') where ${rows}`;
  const caught = "exception when others then null; end;";
  const statements = [
    touch,
    `update t set v = repeat('y', ${200 + below(150)}), stamp = nextval('stamps') where ${rows}`,
    `update t set id = id + 1, stamp = nextval('stamps') where ${rows}`,
    `delete from t where ${rows}`,
    `insert into t select i, repeat('z', ${100 + below(300)}), nextval('stamps') from generate_series(${first}, ${last}) i`,
    `select from t where ${rows} for ${below(2) ? "update" : "key share"}`,
    `do $$ begin begin ${touch}; raise exception 'x'; ${caught} begin delete from t where id = ${first}; ${caught} end $$`,
  ];
  return statements[below(statements.length)] ?? "";
}

async function readPages(tracker: ChangeTracker, table: SourceTable): Promise<Pages> {
  const pages = new Map<number, Map<number, string>>();
  for await (const pieces of tracker.scan(table, { batchBytes: 1 << 20, signal })) {
    for (const { page, offset, bytes } of pieces) {
      const rows = pages.get(page) ?? new Map<number, string>();
      pages.set(page, rows.set(offset, Buffer.from(bytes).toString()));
    }
  }
  return pages;
}

/** Checks the answer for one page; `found` is undefined where it was not named. */
function expectTruth(
  found: ChangedPage | undefined,
  [then = new Map(), now = new Map()]: readonly ReadonlyMap<number, string>[],
): void {
  if (!found) {
    expect(new Map(now)).toEqual(new Map(then));
    return;
  }
  const offsets = [...now.keys()];
  if ("rows" in found) {
    expect(found.rows).toBe(offsets.length);
    expect(found.hash).toBe(offsets.reduce((sum, offset) => sum ^ hashTid(found.page, offset), 0));
  } else {
    expect(Array.from(found.offsets)).toEqual(offsets.sort((left, right) => left - right));
  }
  expect(offsets).toEqual(expect.arrayContaining([...found.added]));
  for (const offset of offsets) if (!found.added.includes(offset)) expect(now.get(offset)).toBe(then.get(offset));
}

test.each(postgresMajors)(
  `no changed page is missed, whatever happened (PostgreSQL %i, SEED=${SEED})`,
  async (major) => {
    await using server = await startPostgres(major, FLAGS);
    const random = randomFrom(SEED + major);
    const below = (limit: number) => Math.floor(random() * limit);
    const clients = Array.from({ length: 3 }, () => new pg.Client({ connectionString: server.url }));
    for (const client of clients) {
      // The server stops under them where the test fails.
      client.on("error", () => undefined);
      await client.connect();
    }
    await clients[0]?.query(TABLE);
    for (const client of clients) await client.query("set lock_timeout = '20ms'");
    const sessions = clients.map((client) => new Session(client));
    let bases: readonly { readonly token: TrustToken; readonly pages: Pages }[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      for (let steps = below(16); steps > 0; steps--) await sessions[below(3)]?.step(below);
      if (below(3) === 0) {
        for (const session of sessions) await session.settle();
        await clients[0]?.query("vacuum t");
      }
      await using source = await openTracked(server.url);
      const { tracker, tables } = source;
      const [table] = tables;
      if (!tracker || !table || typeof tracker.token !== "object") throw new Error("no table is tracked");
      const now = await readPages(tracker, table);
      const hi = Math.max(...now.keys(), ...bases.flatMap(({ pages }) => [...pages.keys()])) + 1 + below(20);
      for (const { token: since, pages: then } of bases) {
        const lo = below(hi);
        for (const range of [
          { lo: 0, hi },
          { lo, hi: lo + 1 + below(hi - lo) },
        ]) {
          const numbers = Array.from({ length: range.hi - range.lo }, (_, index) => range.lo + index);
          const counts = async () => Int32Array.from(numbers, (page) => then.get(page)?.size ?? 0);
          const seen = below(2) === 0 ? undefined : await tracker.rangeRows(table, { ...range, since });
          const changed = await tracker.changedPages(table, { ...range, counts, since, seen });
          expect(changed.map(({ page }) => page)).toEqual(
            numbers.filter((page) => changed.some((one) => one.page === page)),
          );
          for (const page of numbers) {
            const rows = [then.get(page) ?? new Map<number, string>(), now.get(page) ?? new Map<number, string>()];
            expectTruth(
              changed.find((one) => one.page === page),
              rows,
            );
          }
        }
      }
      bases = [{ token: tracker.token, pages: now }, ...bases].slice(0, 2);
    }
    for (const client of clients) await client.end();
  },
  60_000,
);
