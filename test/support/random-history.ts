import pg from "pg";
import type { TestDatabase } from "./postgres.ts";

/** Gives numbers from 0 to below 1, the same for the same seed. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export const HISTORY_SCHEMA = `
  create type mood as enum ('m1', 'm2');
  create type pair as (a int, b text);
  create table keyed (id int primary key, v text, m mood default 'm1', p pair) with (autovacuum_enabled = off);
  create table keyless (a int, v text);
  create table composite (a int, b text, v numeric, primary key (a, b));
  create table byuuid (id uuid primary key default gen_random_uuid(), v text);
  create table toasted (id int primary key, v text);
  alter table toasted alter column v set storage external;
  create table parted (id int, v text) partition by range (id);
  create table parted_1 partition of parted for values from (0) to (500);
  create table parted_2 partition of parted for values from (500) to (100000);
  create table fickle (id int, v text);
  create table parent (id int, v text); create table child (extra int) inherits (parent);
  insert into keyed select i, 'v' || i, 'm1', row(i, 'x'::text)::pair from generate_series(1, 4000) i;
  insert into keyless select i % 50, 'v' from generate_series(1, 2000) i;
  insert into composite select i, 'k' || i, i / 3.0 from generate_series(1, 1000) i;
  insert into byuuid (v) select i from generate_series(1, 1000) i;
  insert into toasted select i, repeat(md5(i::text), 200) from generate_series(1, 60) i;
  insert into parted select i, 'p' from generate_series(1, 1500) i;
  insert into fickle select i, 'f' from generate_series(1, 300) i;
  insert into parent select i, 'r' from generate_series(1, 100) i; insert into child select i, 'c', i from generate_series(1, 100) i`;

/** Sessions that change a database at random, some of them with a transaction that stays open. */
export class RandomHistory implements AsyncDisposable {
  readonly #random: () => number;
  readonly #sessions: pg.Client[];
  readonly #open: boolean[];
  #serial = 0;

  static async start(database: TestDatabase, seed: number, sessions = 3): Promise<RandomHistory> {
    const clients = Array.from({ length: sessions }, () => new pg.Client({ connectionString: database.url }));
    for (const client of clients) {
      client.on("error", () => undefined);
      await client.connect();
      await client.query("set lock_timeout = '50ms'; set deadlock_timeout = '20ms'");
    }
    return new RandomHistory(clients, seed);
  }

  constructor(sessions: pg.Client[], seed: number) {
    this.#sessions = sessions;
    this.#open = sessions.map(() => false);
    this.#random = randomFrom(seed);
  }

  /** Does some things; statements that wait for another session fail and are given up. */
  async act(count: number): Promise<void> {
    for (let done = 0; done < count; done++) await this.#actOnce();
    // What would wait for a lock of an open transaction must not: a backup waits for definitions.
  }

  /** Ends every open transaction. */
  async settle(): Promise<void> {
    for (const [index, client] of this.#sessions.entries()) {
      if (this.#open[index]) await client.query(this.#random() < 0.5 ? "commit" : "rollback").catch(() => undefined);
      this.#open[index] = false;
    }
  }

  async #actOnce(): Promise<void> {
    const index = Math.floor(this.#random() * this.#sessions.length);
    const client = this.#sessions[index];
    if (!client) return;
    try {
      const kind = this.#random();
      if (!this.#open[index] && kind < 0.25) {
        await client.query("begin");
        this.#open[index] = true;
      } else if (this.#open[index] && kind < 0.35) {
        await client.query(kind < 0.2 ? "commit" : "rollback");
        this.#open[index] = false;
        return;
      }
      if (this.#open[index])
        await this.#change(client, "savepoint s; ", this.#random() < 0.3 ? "; rollback to s" : "; release s");
      else if (kind > 0.8) await this.#maintain(client);
      else await this.#change(client, "", "");
    } catch {
      if (this.#open[index]) await client.query("rollback").catch(() => undefined);
      this.#open[index] = false;
    }
  }

  async #change(client: pg.Client, before: string, after: string): Promise<void> {
    await client.query(`${before}${this.#statement()}${after}`);
  }

  #int(below: number): number {
    return Math.floor(this.#random() * below);
  }

  #pick<T>(items: readonly T[]): T {
    return items[this.#int(items.length)] as T;
  }

  #statement(): string {
    const id = this.#int(4000);
    const serial = 1_000_000 + this.#serial++;
    const table = this.#pick([
      "keyed",
      "keyless",
      "composite",
      "toasted",
      "parted",
      "fickle",
      "parent",
      "child",
      "byuuid",
    ]);
    return this.#pick([
      () => `update keyed set v = 'u${serial}' where id = ${id}`,
      () => `update keyed set v = 'u${serial}' where id % ${50 + this.#int(200)} = 0`,
      () => `delete from keyed where id between ${id} and ${id + this.#int(40)}`,
      () =>
        `insert into keyed select i, 'n', 'm1' from generate_series(${serial * 50}, ${serial * 50 + this.#int(30)}) i`,
      () => `update keyed set id = ${serial} where id = ${id}`,
      () =>
        `with gone as (delete from keyed where id = ${id} returning id, v) insert into keyed select ${serial}, v from gone`,
      () =>
        `do $$ begin update keyed set v = 'e' where id = ${id}; begin delete from keyed where id = ${id + 1}; raise exception 'x'; exception when others then null; end; end $$`,
      () => `select * from keyed where id < ${id} limit 20 for update`,
      () => `update keyless set v = 'k${serial}' where a = ${this.#int(50)}`,
      () => `insert into keyless select * from keyless where a = ${this.#int(50)} limit 5`,
      () => `delete from keyless where ctid in (select ctid from keyless where a = ${this.#int(50)} limit 3)`,
      () => `update keyless x set v = y.v from (select v from keyless limit 1) y where x.a = ${this.#int(50)}`,
      () => `update composite set b = b || 'x', v = v + 1 where a = ${id % 1000}`,
      () => `update toasted set v = repeat(md5('${serial}'), 150 + ${this.#int(100)}) where id = ${1 + (id % 60)}`,
      () => `update parted set id = id + ${this.#int(3) * 400} where id = ${id % 1500}`,
      () => `insert into byuuid (v) select 'n' from generate_series(1, ${1 + this.#int(20)})`,
      () => `delete from byuuid where id in (select id from byuuid order by id limit ${this.#int(5)})`,
      () => `insert into fickle select i, 'g' from generate_series(1, ${this.#int(400)}) i`,
      () => `insert into keyed values (${serial}, 'enum', 'm1', row(${id}, 'pair'::text)::pair)`,
      () =>
        `update ${table} set v = v where ${table === "byuuid" || table === "keyless" || table === "composite" ? "true" : `id % 7 = ${this.#int(7)}`}`,
    ])();
  }

  async #maintain(client: pg.Client): Promise<void> {
    const table = this.#pick(["keyed", "keyless", "composite", "toasted", "fickle", "parted_1", "byuuid"]);
    const serial = this.#serial++;
    await client.query(
      this.#pick([
        `vacuum ${table}`,
        `vacuum ${table}`,
        `vacuum (freeze) ${table}`,
        `vacuum full ${table}`,
        `truncate fickle`,
        `delete from ${table}`,
        `begin; truncate fickle; insert into fickle values (1, 'again'); commit`,
        `begin; truncate fickle; rollback`,
        `alter table keyed add column c${serial} int default ${serial}`,
        `alter type mood rename value 'm1' to 'tmp'; alter type mood rename value 'tmp' to 'm1'`,
        `alter type pair add attribute c${serial} int`,
        `drop table fickle; create table fickle (id int, v text); insert into fickle select i, 'h' from generate_series(1, 300) i`,
        `alter table parted detach partition parted_1; alter table parted attach partition parted_1 for values from (0) to (500)`,
        `alter table fickle rename to other; alter table other rename to fickle`,
        `alter table keyless alter column a type bigint`,
        `alter table keyless alter column a type int`,
        `insert into keyed select i, 'bulk', 'm2' from generate_series(${serial * 3000 + 5_000_000}, ${serial * 3000 + 5_001_500}) i on conflict do nothing`,
        `checkpoint`,
      ]),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#sessions) await client.end().catch(() => undefined);
  }
}
