/**
 * The data that incrementals are measured with: at scale 1 a narrow table of 5 M rows whose free places are spread over all pages,
 * the unfavourable layout, and 60,000 rows of some 10 KB, most of whose bytes are TOAST and compress by half.
 */
export function incrementsData(scale: number): readonly string[] {
  const rows = (count: number) => Math.max(1, Math.round(count * scale));
  return [
    "create table narrow (aid int primary key, bid int, abalance int, filler char(84))",
    `insert into narrow select i, i % 100, 0, md5(i::text) from generate_series(1, ${rows(5_000_000)}) i`,
    ...[0, 1, 2].flatMap((turn) => [`update narrow set abalance = ${turn} where aid % 20 = ${turn}`, "vacuum narrow"]),
    "create table wide (id bigint primary key, title text, price numeric(12,2), created_at timestamptz, body text, attributes jsonb)",
    "alter table wide alter body set storage external, alter attributes set storage external",
    `insert into wide
      select i, 'Document ' || i, (i * 7 % 100000) / 100.0, timestamptz '2025-01-01' + i * interval '1 minute',
             (select string_agg(md5(i || '-' || k), '') from generate_series(1, 250) k),
             jsonb_build_object('number', i, 'marks', (select jsonb_agg(md5(k || '+' || i)) from generate_series(1, 60) k))
        from generate_series(1, ${rows(60_000)}) i`,
    "create table other (i int)",
    "vacuum analyze",
    "checkpoint",
  ];
}
