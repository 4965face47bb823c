/**
 * The data of the benchmark: about 1.6 GB of COPY text in two narrow and two wide tables, the same at every run.
 * `scale` 1 is that size.
 */
export function benchData(scale: number): readonly string[] {
  const rows = (count: number) => Math.max(1, Math.round(count * scale));
  return [
    `create table accounts (aid bigint primary key, bid int not null, abalance numeric(12,2) not null,
       opened timestamptz not null, filler text not null)`,
    `insert into accounts select i, (i * 7919) % 1000, ((hashint8(i)::bigint + 2147483648) % 100000000) / 100.0,
       '2020-01-01'::timestamptz + i * interval '13 seconds',
       'acct ' || md5(i::text) || ' ' || (array['open','closed','frozen','pending review'])[1 + i % 4]
       from generate_series(1::bigint, ${rows(4_200_000)}) i`,
    `create table events (id uuid primary key, account bigint not null, kind text not null, at timestamp not null,
       payload jsonb not null)`,
    `insert into events select md5(i::text || 'x')::uuid, (i * 31) % ${rows(4_200_000)} + 1,
       (array['login','logout','purchase','refund','view'])[1 + i % 5], '2021-06-01'::timestamp + i * interval '1.7 seconds',
       jsonb_build_object('ip', '10.' || (i % 255) || '.' || ((i * 7) % 255) || '.' || ((i * 13) % 255),
         'agent', (array['Mozilla/5.0 (X11; Linux x86_64)','curl/8.1','Safari/605.1.15 (iPhone)','Edge/119'])[1 + i % 4],
         'session', md5((i / 10)::text), 'amount', (i % 10000) / 100.0, 'items', jsonb_build_array(i % 100, (i * 3) % 100, (i * 7) % 1000))
       from generate_series(1::bigint, ${rows(2_100_000)}) i`,
    `create table documents (id bigint generated always as identity primary key, title text not null, author text,
       created date not null, c1 int, c2 int, c3 bigint, c4 numeric, c5 double precision, c6 text, c7 text, c8 text,
       c9 boolean, c10 date, c11 timestamptz, c12 interval, c13 text[], c14 int[], c15 bytea, body text not null)`,
    `insert into documents (title, author, created, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c14, c15, body)
       select 'Document number ' || i, 'Author ' || (i % 5000), '2000-01-01'::date + i % 8000, i % 97, hashint4(i),
         hashint8(i)::bigint * 1000003, i / 7.0, sqrt(i), md5(i::text), 'category ' || (i % 50),
         case when i % 3 = 0 then null else 'note for ' || (i % 1000) end, i % 2 = 0, '2010-01-01'::date + i % 4000,
         '2015-01-01'::timestamptz + i * interval '61 seconds', (i % 1000) * interval '1 minute',
         array['tag' || (i % 10), 'tag' || (i % 17)], array[i % 10, i % 100, i % 1000],
         decode(md5(i::text) || md5((i + 1)::text), 'hex'),
         (select string_agg((array['lorem','ipsum','dolor','sit','amet','consectetur','adipiscing','elit','sed','do',
           'eiusmod','tempor','incididunt','ut','labore','et','dolore','magna','aliqua','quick','brown','fox','jumps',
           'over','lazy','dog'])[1 + (hashint4(i * 100 + w) & 1023) % 26] || case when w % 9 = 0 then (w * i)::text else '' end, ' ')
           from generate_series(1, 60) w)
       from generate_series(1, ${rows(850_000)}) i`,
    `create table lines (order_id int not null, line int not null, product int not null, qty smallint not null,
       price numeric(10,2) not null, shipped date, primary key (order_id, line))`,
    `insert into lines select i / 5, i % 5, hashint4(i) & 65535, 1 + i % 20, (hashint4(i + 7) & 1048575) / 100.0,
       case when i % 7 = 0 then null else '2022-01-01'::date + i % 700 end from generate_series(1, ${rows(3_200_000)}) i`,
    "create index on events (account)",
    "create index on events (at)",
    "create index on lines (product)",
    "create index on documents (author)",
    "create index on accounts (opened)",
    "alter table events add foreign key (account) references accounts",
    "vacuum analyze",
  ];
}
