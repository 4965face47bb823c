import pg from "pg";

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
  create domain short as text check (length(value) < 1000);
  create table keyed (id int primary key, v text, m mood default 'm1', p pair) with (autovacuum_enabled = off);
  create table keyless (a int, v text);
  create table composite (a int, b text, v numeric, g numeric generated always as (v * 2) stored, primary key (a, b));
  create table byuuid (id uuid primary key default gen_random_uuid(), v text);
  create table bytext (k text primary key, v short);
  create table toasted (id int primary key, v text);
  alter table toasted alter column v set storage external;
  create table packed (id int primary key, v jsonb);
  create table parted (id int, v text) partition by range (id);
  create table parted_1 partition of parted for values from (0) to (500);
  create table parted_2 partition of parted for values from (500) to (100000);
  create table fickle (id int, v text);
  create table spare (id int, v text);
  create table parent (id int, v text); create table child (extra int) inherits (parent);
  create table spread (id int primary key, v text) with (fillfactor = 10);
  insert into keyed select i, 'v' || i, 'm1', row(i, 'x'::text)::pair from generate_series(1, 4000) i;
  insert into keyless select i % 50, 'v' from generate_series(1, 2000) i;
  insert into composite (a, b, v) select i, 'k' || i, i / 3.0 from generate_series(1, 1000) i;
  insert into byuuid (v) select i from generate_series(1, 1000) i;
  insert into bytext select E'k\\t' || i || E'\\n', 'ü' from generate_series(1, 500) i;
  insert into toasted select i, repeat(md5(i::text), 200) from generate_series(1, 60) i;
  insert into packed select i, jsonb_build_object('n', i, 'long', repeat('x' || i, 2000)) from generate_series(1, 60) i;
  insert into parted select i, 'p' from generate_series(1, 1500) i;
  insert into fickle select i, 'f' from generate_series(1, 300) i;
  insert into parent select i, 'r' from generate_series(1, 100) i; insert into child select i, 'c', i from generate_series(1, 100) i;
  insert into spread select i, repeat('s', 700) from generate_series(1, 2100) i`;

/** Sessions that change a database at random, some of them with a transaction that stays open. */
export class RandomHistory implements AsyncDisposable {
  readonly #url: string;
  readonly #random: () => number;
  #sessions: pg.Client[] = [];
  #open: boolean[] = [];
  /** Names of transactions that were prepared for a commit in two phases. */
  #prepared: string[] = [];
  #serial = 0;
  /** How often each thing was done, without an error. */
  readonly done = new Map<string, number>();

  static async start(url: string, random: () => number): Promise<RandomHistory> {
    const history = new RandomHistory(url, random);
    await history.#connect();
    await history.#first.query(HISTORY_SCHEMA);
    return history;
  }

  constructor(url: string, random: () => number) {
    this.#url = url;
    this.#random = random;
  }

  /** Does some things; statements that wait for another session fail and are given up. */
  async act(count: number): Promise<void> {
    for (let done = 0; done < count; done++) await this.#actOnce();
  }

  /** Ends every open transaction. */
  async settle(): Promise<void> {
    for (const [index, client] of this.#sessions.entries()) {
      if (this.#open[index]) await client.query(this.#random() < 0.5 ? "commit" : "rollback").catch(() => undefined);
      this.#open[index] = false;
    }
    for (const name of this.#prepared.splice(0)) {
      await this.#first.query(`${this.#random() < 0.5 ? "commit" : "rollback"} prepared '${name}'`);
    }
  }

  /** Goes on after a crash of the server, which ended all sessions. */
  async reconnect(): Promise<void> {
    for (const client of this.#sessions) void client.end().catch(() => undefined);
    await this.#connect();
  }

  async #connect(): Promise<void> {
    this.#sessions = Array.from(
      { length: SESSIONS },
      () => new pg.Client({ connectionString: this.#url, query_timeout: 30_000 }),
    );
    this.#open = this.#sessions.map(() => false);
    for (const client of this.#sessions) {
      client.on("error", () => undefined);
      await client.connect();
      await client.query("set lock_timeout = '50ms'; set deadlock_timeout = '20ms'");
    }
  }

  get #first(): pg.Client {
    return this.#sessions[0] as pg.Client;
  }

  async #actOnce(): Promise<void> {
    const index = this.#int(SESSIONS);
    const client = this.#sessions[index] as pg.Client;
    try {
      const kind = this.#random();
      if (!this.#open[index] && kind < 0.25) {
        await client.query("begin");
        this.#open[index] = true;
      } else if (this.#open[index] && kind < 0.35) {
        await this.#end(client, kind);
        this.#open[index] = false;
        return;
      }
      if (this.#open[index]) await this.#inSavepoint(client);
      else if (kind > 0.8) await this.#run(client, this.#pick(MAINTENANCE));
      else await this.#run(client, this.#pick(CHANGES));
    } catch (error) {
      if (!(error instanceof pg.DatabaseError)) throw error;
      // Also where no transaction was left open on purpose: a change of several statements may have begun one of its own.
      await client.query("rollback");
      this.#open[index] = false;
    }
  }

  async #end(client: pg.Client, kind: number): Promise<void> {
    if (kind > 0.3 && this.#prepared.length < 3) {
      const name = `p${this.#serial++}`;
      await client.query(`prepare transaction '${name}'`);
      this.#prepared.push(name);
    } else {
      await client.query(kind < 0.2 ? "commit" : "rollback");
    }
  }

  async #inSavepoint(client: pg.Client): Promise<void> {
    const [name, render] = this.#pick(CHANGES);
    const isUndone = this.#random() < 0.3;
    await this.#run(client, [
      `${name}, ${isUndone ? "undone" : "in a savepoint"}`,
      (draw) => `savepoint s; ${render(draw)}; ${isUndone ? "rollback to" : "release"} s`,
    ]);
  }

  async #run(client: pg.Client, [name, render]: Deed): Promise<void> {
    const serial = this.#serial++;
    await client.query(render({ serial, int: (below) => this.#int(below), pick: (items) => this.#pick(items) }));
    this.done.set(name, (this.done.get(name) ?? 0) + 1);
  }

  #int(below: number): number {
    return Math.floor(this.#random() * below);
  }

  #pick<T>(items: readonly T[]): T {
    return items[this.#int(items.length)] as T;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#sessions) await client.end().catch(() => undefined);
  }
}

const SESSIONS = 3;

interface Draw {
  /** Never the same again. */
  readonly serial: number;
  readonly int: (below: number) => number;
  readonly pick: <T>(items: readonly T[]) => T;
}

type Deed = readonly [name: string, render: (draw: Draw) => string];

/** What a session does inside or outside a transaction. */
const CHANGES: readonly Deed[] = [
  ["update of a row", ({ int, serial }) => `update keyed set v = 'u${serial}' where id = ${int(4000)}`],
  ["update of many rows", ({ int, serial }) => `update keyed set v = 'u${serial}' where id % ${50 + int(200)} = 0`],
  [
    "delete of neighbours",
    ({ int }) => `with x as (select ${int(4000)} i) delete from keyed using x where id between i and i + ${int(40)}`,
  ],
  [
    "inserts",
    ({ int, serial }) =>
      `insert into keyed select i, 'n' from generate_series(${serial * 50}, ${serial * 50 + int(30)}) i`,
  ],
  ["update of a key", ({ int, serial }) => `update keyed set id = ${1_000_000 + serial} where id = ${int(4000)}`],
  [
    "delete and reinsert",
    ({ int }) =>
      `do $$ declare r keyed; begin delete from keyed where id = ${int(4000)} returning * into r; if found then insert into keyed values (r.*); end if; end $$`,
  ],
  [
    "subtransactions",
    ({ int }) =>
      `do $$ begin begin update keyed set v = 'e' where id = ${int(4000)}; exception when others then null; end; begin delete from keyed where id = ${int(4000)}; raise exception 'x'; exception when others then null; end; end $$`,
  ],
  ["comment", ({ serial, pick }) => `comment on table keyed is ${pick(["null", `'c${serial}'`])}`],
  ["right", ({ pick }) => pick(["grant select (v) on keyless to public", "revoke select (v) on keyless from public"])],
  ["function", ({ serial }) => `create or replace function f() returns int language sql as 'select ${serial}'`],
  ["function dropped", () => "drop function if exists f()"],
  ["row locks", ({ int }) => `select * from keyed where id < ${int(4000)} limit 20 for update`],
  ["update without a key", ({ int, serial }) => `update keyless set v = 'k${serial}' where a = ${int(50)}`],
  ["equal rows", ({ int }) => `insert into keyless select * from keyless where a = ${int(50)} limit 5`],
  [
    "delete of some equal rows",
    ({ int }) => `delete from keyless where ctid in (select ctid from keyless where a = ${int(50)} limit 6)`,
  ],
  ["update of a composite key", ({ int }) => `update composite set b = b || 'x', v = v + 1 where a = ${int(1000)}`],
  [
    "update of a text key",
    ({ int, serial }) => `update bytext set k = E'\\\\N\\t${serial}' where k like E'%\\t${int(500)}\\n'`,
  ],
  [
    "insert of a text key",
    ({ serial }) => `insert into bytext values (E'neu\\\\${serial}', null), ('', 'empty') on conflict do nothing`,
  ],
  ["delete of text keys", ({ int }) => `delete from bytext where hashtext(k) % 97 = ${int(97)}`],
  [
    "update of a toasted value",
    ({ int, serial }) => `update toasted set v = repeat(md5('${serial}'), 150 + ${int(100)}) where id = ${1 + int(60)}`,
  ],
  [
    "update beside a toasted value",
    ({ int, serial }) => `update toasted set id = ${1000 + serial} where id = ${1 + int(60)}`,
  ],
  [
    "update inside a compressed value",
    ({ int, serial }) => `update packed set v = jsonb_set(v, '{n}', '${serial}') where id = ${1 + int(60)}`,
  ],
  [
    "a row that changes its partition",
    ({ int }) => `update parted set id = id + ${int(3) * 400} where id = ${int(1500)}`,
  ],
  ["insert of uuids", ({ int }) => `insert into byuuid (v) select 'n' from generate_series(1, ${1 + int(20)})`],
  [
    "delete of uuids",
    ({ int }) => `delete from byuuid where id in (select id from byuuid order by id limit ${1 + int(5)})`,
  ],
  ["growth", ({ int }) => `insert into fickle select i, 'g' from generate_series(1, ${int(400)}) i`],
  [
    "insert of a composite value",
    ({ int, serial }) =>
      `insert into keyed values (${2_000_000 + serial}, 'enum', (enum_range(null::mood))[2], row(${int(9)}, 'pair'::text)::pair)`,
  ],
  [
    "change of far pages",
    ({ int, serial }) => `update spread set v = repeat('${serial % 10}', 700) where id % ${100 + int(300)} = 0`,
  ],
  ["change of one far page", ({ int, serial }) => `update spread set v = 'short ${serial}' where id = ${int(2100)}`],
  ["delete of far pages", ({ int }) => `delete from spread where id % 100 = ${int(100)}`],
  [
    "growth of far pages",
    ({ int, serial }) =>
      `insert into spread select i, repeat('n', 700) from generate_series(${10_000 + serial * 50}, ${10_000 + serial * 50 + int(40)}) i`,
  ],
  ["update of an inherited table", ({ int }) => `update parent set v = v || '' where id % 7 = ${int(7)}`],
  [
    "update that changes nothing",
    ({ int, pick }) =>
      `update ${pick(["toasted", "parted", "fickle", "keyed", "spread"])} set v = v where id % 7 = ${int(7)}`,
  ],
];

const TABLES = [
  "keyed",
  "keyless",
  "composite",
  "toasted",
  "fickle",
  "parted_1",
  "byuuid",
  "bytext",
  "packed",
  "spread",
];

/** What is done outside a transaction. */
const MAINTENANCE: readonly Deed[] = [
  ["vacuum", ({ pick }) => `vacuum ${pick(TABLES)}`],
  ["vacuum of all", () => "vacuum"],
  ["freeze", ({ pick }) => `vacuum (freeze) ${pick(TABLES)}`],
  ["vacuum full", ({ pick }) => `vacuum full ${pick(TABLES)}`],
  ["cluster", () => "cluster keyed using keyed_pkey"],
  ["truncate", () => "truncate fickle"],
  ["truncate and insert", () => "begin; truncate fickle; insert into fickle values (1, 'again'); commit"],
  ["truncate undone", () => "begin; truncate fickle; rollback"],
  ["delete of all", ({ pick }) => `delete from ${pick(TABLES)}`],
  [
    "refill",
    () => "insert into spread select i, repeat('r', 700) from generate_series(1, 2100) i on conflict do nothing",
  ],
  ["refill of keys", () => "insert into keyed select i, 'r' from generate_series(1, 4000) i on conflict do nothing"],
  ["tail cut off", ({ int }) => `delete from spread where ctid >= '(${int(2500)},0)'`],
  ["column with a default", ({ serial }) => `alter table keyed add column c${serial} int default ${serial}`],
  [
    "column with a computed default",
    ({ serial }) => `alter table bytext add column c${serial} text default random()::text`,
  ],
  [
    "column dropped",
    () =>
      "do $$ declare c text; begin select attname into c from pg_attribute where attrelid = 'keyed'::regclass and attname ~ '^c[0-9]' and not attisdropped limit 1; if c is not null then execute format('alter table keyed drop column %I', c); end if; end $$",
  ],
  ["column renamed", () => "alter table spare rename column v to w; alter table spare rename column w to v"],
  [
    "enum value renamed",
    ({ serial }) =>
      `do $$ begin execute format('alter type mood rename value %L to %L', (enum_range(null::mood))[1], 'm${serial}'); end $$`,
  ],
  ["enum value added", ({ serial }) => `alter type mood add value 'added${serial}'`],
  ["attribute of a type added", ({ serial }) => `alter type pair add attribute c${serial} int`],
  [
    "drop and recreate",
    () =>
      "drop table fickle; create table fickle (id int, v text); insert into fickle select i, 'h' from generate_series(1, 300) i",
  ],
  [
    "tables that swap names",
    () =>
      "begin; alter table fickle rename to swapped; alter table spare rename to fickle; alter table swapped rename to spare; commit",
  ],
  ["partition detached", () => "alter table parted detach partition parted_1"],
  ["partition attached", () => "alter table parted attach partition parted_1 for values from (0) to (500)"],
  [
    "partition detached and attached",
    () =>
      "alter table parted detach partition parted_1; alter table parted attach partition parted_1 for values from (0) to (500)",
  ],
  ["inheritance ended", () => "alter table child no inherit parent"],
  ["inheritance begun", () => "alter table child inherit parent"],
  ["type widened", () => "alter table keyless alter column a type bigint"],
  ["type narrowed", () => "alter table keyless alter column a type int"],
  ["unlogged", () => "alter table spare set unlogged"],
  ["logged", () => "alter table spare set logged"],
  [
    "bulk",
    ({ serial }) =>
      `insert into keyed select i, 'bulk' from generate_series(${serial * 2000 + 5_000_000}, ${serial * 2000 + 5_001_500}) i`,
  ],
  // Whoever reads a view waits for a transaction that changes it.
  ["view", ({ int }) => `create or replace view w as select id from keyed where id < ${int(5)}`],
  ["view dropped", () => "drop view if exists w"],
  ["checkpoint", () => "checkpoint"],
];

/** Everything that a history may do, for who wants to know what it left out. */
export const DEEDS: readonly string[] = [...CHANGES, ...MAINTENANCE].map(([name]) => name);
