import type { Segment, SourceTable } from "../driver.ts";
import { SHOWN_CHARACTERS } from "../fingerprints.ts";
import { type FormColumn, GROUP_COLUMNS, type RowForm } from "../row-form.ts";
import { HASH_PROBES, type RowHash } from "../row-hash.ts";
import { quoteIdentifier, quoteLiteral, quoteName } from "./postgres-quote.ts";
import { conditionsOf } from "./postgres-rows.ts";

/** Few enough that one test of a group is cheap, and what it saves is not. */
const NULLS_A_TEST = 6;

/** Types whose own `=` is as exact as their text or finer, found without the schema of an extension. */
const OWN_EQUALITY =
  /^(smallint|integer|bigint|oid|boolean|numeric|date|uuid|text|character varying|timestamp with(out)? time zone)(\(.*\))?$/;

/**
 * How values come and go: as text (undefined), or as the hexadecimal digits of their bytes where those need not be UTF-8. Then it is the
 * encoding of the database: nothing is converted.
 */
export type Passage = string | undefined;

function sent(value: string, passage: Passage): string {
  if (passage === undefined) return value;
  return `pg_catalog.encode(pg_catalog.convert_to(${value}, ${quoteLiteral(passage)}), 'hex')`;
}

function received(value: string, passage: Passage): string {
  if (passage === undefined) return value;
  return `pg_catalog.convert_from(pg_catalog.decode(${value}, 'hex'), ${quoteLiteral(passage)})`;
}

/** Selects `bucket, rows, sum of first, sum of second`. */
export function sumsQuery(table: SourceTable, segment: Segment, form: RowForm): string {
  if (form.sumBy === "record") return recordSumsQuery(table, segment, form);
  const { first, second } = hashesOf(form.hash, "l");
  // OFFSET 0 keeps the line from being written twice, once for each hash.
  return `select ${bucketOf(form)}, pg_catalog.count(*), pg_catalog.sum(${first}), pg_catalog.sum(${second})
    from (select ${selectedKey(form)}${digestOf(form)} as l from ${fromOf(table, segment)} offset 0) x group by 1`;
}

function recordSumsQuery(table: SourceTable, segment: Segment, form: RowForm): string {
  const [seed, secondSeed] = form.hash.seeds;
  const values = form.columns.map(({ name, recordAs }) => {
    const column = `t.${quoteIdentifier(name)}`;
    if (recordAs === "value") return column;
    return recordAs === "C" ? `${column} collate pg_catalog."C"` : `pg_catalog.${recordAs}(${column})`;
  });
  const key = `t.${quoteIdentifier(form.key[0] ?? "")}::bigint`;
  return `select b, pg_catalog.count(*), pg_catalog.sum(h), pg_catalog.sum(pg_catalog.hashint8extended(h, '${secondSeed}'::bigint))
    from (select ${selectedKey(form)}pg_catalog.hash_record_extended(row(${values.join(", ")}), ${key} # '${seed}'::bigint) as h
            from ${fromOf(table, segment)} offset 0) x group by 1`;
}

/** Selects the key columns, both hashes and the count of the rows in these buckets. */
export function listQuery(table: SourceTable, form: RowForm, buckets: readonly number[], passage: Passage): string {
  const { first, second } = hashesOf(form.hash, "l");
  const wanted = `${bucketOf(form)} = any ('{${buckets.join(",")}}'::bigint[])`;
  const rows = `select ${selectedKey(form)}${form.key.map((name, index) => `${textOf(name)} as k${index}, `).join("")}${digestOf(form)} as l
    from ${fromOf(table, {})}`;
  if (form.key.length === 0) {
    return `select ${first}, ${second}, pg_catalog.count(*) from (${rows} offset 0) x where ${wanted} group by 1, 2`;
  }
  const keys = form.key.map((_, index) => sent(`k${index}`, passage)).join(", ");
  // The bucket of an integer key is known before the row is written down and hashed.
  const inner = form.bucketBy === "integer-key" ? filtered(rows, table, integerBucket(form), buckets) : rows;
  const outer = form.bucketBy === "integer-key" ? "" : `where ${wanted}`;
  return `select ${keys}, ${first}, ${second}, 1 from (${inner} offset 0) x ${outer}`;
}

/** Selects the key columns and a hash of each column; the parameters are one text array for each key column. */
export function findQuery(table: SourceTable, form: RowForm, passage: Passage): string {
  const wanted = form.key.map((_, index) => `pg_catalog.unnest($${index + 1}::text[])`).join(", ");
  const names = form.key.map((_, index) => `w${index}`).join(", ");
  const matches = form.key.map((name, index) => {
    const type = table.columns.find((column) => column.name === name)?.type ?? "";
    const value = received(`w.w${index}`, passage);
    return OWN_EQUALITY.test(type) ? `t.${quoteIdentifier(name)} = ${value}::${type}` : `${textOf(name)} = ${value}`;
  });
  const hashes = form.columns.map((column) => {
    const { first } = hashesOf(form.hash, digest(form.hash, `${textOf(column.name)} collate pg_catalog."C"`));
    return `case when ${isNull(column)} then null else ${first} end`;
  });
  const where = conditionsOf(table, {})
    .map((condition) => ` and ${condition}`)
    .join("");
  const keys = form.key.map((name) => sent(textOf(name), passage));
  return `select ${[...keys, ...hashes].join(", ")}
    from only ${quoteName(table.schema, table.name)} t, rows from (${wanted}) as w(${names})
   where ${matches.join(" and ")}${where}`;
}

/** Selects both hashes and the beginning of each value of the rows with these first hashes. */
export function showQuery(table: SourceTable, form: RowForm, firsts: readonly string[], passage: Passage): string {
  const { first, second } = hashesOf(form.hash, "l");
  // Only the few rows that are wanted have their values written down once more.
  const shown = form.columns.map(({ isComposite }, index) => {
    const value = `v${index}`;
    const isNull = isComposite ? `pg_catalog.num_nulls(${value}) = 1` : `${value} is null`;
    const text = `pg_catalog.left(pg_catalog.concat(${value}), ${SHOWN_CHARACTERS})`;
    return sent(`pg_catalog.min(case when ${isNull} then null else ${text} end collate pg_catalog."C")`, passage);
  });
  const values = form.columns.map(({ name }, index) => `t.${quoteIdentifier(name)} as v${index}`);
  const inner = [...values, `${digestOf(form)} as l`].join(", ");
  return `select ${[first, second, ...shown].join(", ")} from (select ${inner} from ${fromOf(table, {})} offset 0) x
   where ${first} = any ('{${firsts.join(",")}}'::bigint[]) group by 1, 2`;
}

/** Other encodings have other bytes for what is not ASCII. */
export function probesOf({ encoding }: RowHash): readonly string[] {
  return encoding === undefined ? HASH_PROBES : HASH_PROBES.map((probe) => probe.replaceAll("é", "e"));
}

/** Selects both hashes of every probe, in their order. */
export function probeQuery(hash: RowHash): string {
  const { first, second } = hashesOf(hash, "l");
  const rows = probesOf(hash)
    .map((probe, index) => `(${index}, ${quoteLiteral(probe)}::text)`)
    .join(", ");
  const line = digest(hash, `t collate pg_catalog."C"`);
  return `select ${first}, ${second} from (select i, ${line} as l from (values ${rows}) v(i, t) offset 0) x order by i`;
}

export function countQuery(table: SourceTable): string {
  return `select pg_catalog.count(*) from ${fromOf(table, {})}`;
}

function fromOf(table: SourceTable, segment: Pick<Segment, "pages">): string {
  const conditions = conditionsOf(table, segment);
  const where = conditions.length > 0 ? ` where ${conditions.join(" and ")}` : "";
  return `only ${quoteName(table.schema, table.name)} t${where}`;
}

function filtered(rows: string, table: SourceTable, bucket: string, buckets: readonly number[]): string {
  const word = conditionsOf(table, {}).length > 0 ? "and" : "where";
  return `${rows} ${word} ${bucket} = any ('{${buckets.join(",")}}'::bigint[])`;
}

function integerBucket(form: RowForm): string {
  return `(t.${quoteIdentifier(form.key[0] ?? "")}::bigint & ${form.buckets - 1})`;
}

function selectedKey(form: RowForm): string {
  return form.bucketBy === "integer-key" ? `${integerBucket(form)} as b, ` : "";
}

function bucketOf(form: RowForm): string {
  return form.bucketBy === "integer-key" ? "b" : `(${hashesOf(form.hash, "l").first} & ${form.buckets - 1})`;
}

/** What type output gives, as COPY does: a cast to text would print booleans, addresses and characters otherwise. */
function textOf(name: string): string {
  return `pg_catalog.concat(t.${quoteIdentifier(name)})`;
}

function isNull(column: FormColumn): string {
  const name = `t.${quoteIdentifier(column.name)}`;
  return column.isComposite ? `pg_catalog.num_nulls(${name}) = 1` : `${name} is null`;
}

/** The line of `row-form.ts`, or its SHA-256. */
function digestOf(form: RowForm): string {
  return digest(form.hash, `${lineOf(form)} collate pg_catalog."C"`);
}

/** The line of a row of `t` behind its place, or the SHA-256 of both: see place-hashes.ts. */
export function placedDigestOf(form: RowForm): string {
  return digest(form.hash, `${lineOf(form, ["t.ctid"])} collate pg_catalog."C"`);
}

function lineOf(form: RowForm, before: readonly string[] = []): string {
  const joined = (parts: readonly string[]) =>
    `pg_catalog.concat_ws(${[quoteLiteral(form.separator), ...parts].join(", ")})`;
  const values = groupsOf(
    form.columns.map(({ name, sentBy }) => {
      const column = `t.${quoteIdentifier(name)}`;
      return sentBy ? `pg_catalog.${sentBy}(${column})` : column;
    }),
    GROUP_COLUMNS,
  );
  const head = [...before, ...headOf(form, joined)];
  if (values.length === 0) return `''::text`;
  return joined(values.length === 1 ? [...head, ...(values[0] ?? [])] : [...head, ...values.map(joined)]);
}

/** The numbers of the NULLs and the dot; tested in groups, because mostly nothing is NULL. */
function headOf(form: RowForm, joined: (parts: readonly string[]) => string): readonly string[] {
  const nullable = form.columns.flatMap((column, index) => (column.mayBeNull ? [{ column, index }] : []));
  if (nullable.length === 0) return [];
  const tests = groupsOf(nullable, NULLS_A_TEST).map((group) => {
    const marks = group.map(({ column, index }) => `case when ${isNull(column)} then '~${index}' end`);
    return `case when ${group.map(({ column }) => isNull(column)).join(" or ")} then ${joined(marks)} end`;
  });
  const marks = tests.length > 10 ? groupsOf(tests, GROUP_COLUMNS).map((some) => `nullif(${joined(some)}, '')`) : tests;
  return [...marks, "'.'"];
}

/** Bytes without an encoding cannot be converted; they are hashed as they are, as they are stored. */
const HASHED_ENCODING = `case pg_catalog.getdatabaseencoding() when 'SQL_ASCII' then 'SQL_ASCII' else 'UTF8' end`;

function digest(hash: RowHash, line: string): string {
  if (hash.method === "lookup3") return line;
  const encoding = hash.encoding === undefined ? HASHED_ENCODING : quoteLiteral(hash.encoding);
  return `pg_catalog.sha256(pg_catalog.convert_to(${quoteLiteral(hash.salt)} || (${line}), ${encoding}))`;
}

/** Two signed 64-bit hashes of what `digest` gives. */
export function hashesOf(hash: RowHash, line: string): { readonly first: string; readonly second: string } {
  if (hash.method === "lookup3") {
    const [first, second] = hash.seeds.map((seed) => `pg_catalog.hashtextextended(${line}, '${seed}'::bigint)`);
    return { first: first ?? "", second: second ?? "" };
  }
  const part = (start: number) =>
    `('x' || pg_catalog.encode(pg_catalog.substr(${line}, ${start}, 8), 'hex'))::bit(64)::bigint`;
  return { first: part(1), second: part(9) };
}

function groupsOf<T>(items: readonly T[], size: number): readonly (readonly T[])[] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, index) =>
    items.slice(index * size, (index + 1) * size),
  );
}
