import type { Segment, SourceTable } from "../driver.ts";
import { SHOWN_CHARACTERS, type SumsRequest } from "../fingerprints.ts";
import { KEY_BITS, type RowForm, SPREADING_FACTOR } from "../row-form.ts";
import { HASH_PROBES, type RowHash } from "../row-hash.ts";
import { hashOfColumns, mixedHash } from "./postgres-column-hash.ts";
import { quoteIdentifier, quoteLiteral, quoteName } from "./postgres-quote.ts";
import { isNull, lineOf, textOf } from "./postgres-row-line.ts";
import { conditionsOf } from "./postgres-rows.ts";

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
export function sumsQuery(table: SourceTable, segment: Segment, { form, within }: SumsRequest): string {
  const [inner, outer] = withinConditions(form, within);
  const rows = `${fromOf(table, segment, inner)} offset 0`;
  // OFFSET 0 keeps the line, or the hashes of the columns, from being computed twice, once for each sum.
  if (form.sumBy === "columns") {
    const [first, second] = form.hash.seeds.map((seed) => mixedHash("h", seed));
    return `select b, pg_catalog.count(*), pg_catalog.sum(${first}), pg_catalog.sum(${second})
    from (select ${keyBucket(form)} as b, ${hashOfColumns(form, form.columns)} as h from ${rows}) x group by 1`;
  }
  const { first, second } = hashesOf(form.hash, "l");
  return `select ${bucketOf(form)}, pg_catalog.count(*), pg_catalog.sum(${first}), pg_catalog.sum(${second})
    from (select ${selectedKey(form)}${digestOf(form)} as l from ${rows}) x${outer} group by 1`;
}

/** What keeps rows of other buckets out: before a row is written down and hashed, where its key tells; else behind that. */
function withinConditions(form: RowForm, within: SumsRequest["within"]): readonly [readonly string[], string] {
  if (!within) return [[], ""];
  const coarse = { ...form, buckets: within.of };
  if (form.bucketBy === "hash") return [[], ` where ${isOneOf(bucketOf(coarse), within.buckets)}`];
  return [[isOneOf(keyBucket(coarse), within.buckets)], ""];
}

/** Selects the key columns, both hashes and the count of the rows in these buckets. */
export function listQuery(table: SourceTable, form: RowForm, buckets: readonly number[], passage: Passage): string {
  const { first, second } = hashesOf(form.hash, "l");
  const [inner, outer] = withinConditions(form, { buckets, of: form.buckets });
  const names = form.key.map((name, index) => `${textOf(name)} as k${index}, `);
  const rows = `(select ${names.join("")}${digestOf(form)} as l from ${fromOf(table, {}, inner)} offset 0) x${outer}`;
  if (form.key.length === 0) return `select ${first}, ${second}, pg_catalog.count(*) from ${rows} group by 1, 2`;
  const keys = form.key.map((_, index) => sent(`k${index}`, passage)).join(", ");
  return `select ${keys}, ${first}, ${second}, 1 from ${rows}`;
}

/** Selects the key columns and a hash of each column; the parameters are one text array for each key column. */
export function findQuery(table: SourceTable, form: RowForm, passage: Passage): string {
  const wanted = form.key.map((_, index) => `pg_catalog.unnest($${index + 1}::text[])`).join(", ");
  const names = form.key.map((_, index) => `w${index}`).join(", ");
  const matches = form.key.map((name, index) => {
    const value = received(`w.w${index}`, passage);
    const type = keyType(form, name);
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

/** The type as which keys of both sides can be looked up; none: only their text can be. */
function keyType(form: RowForm, name: string): string {
  // No key of either side is too large for it, and indexes of all integers find it.
  if (form.bucketBy === "integer-key") return "bigint";
  return form.columns.find((column) => column.name === name)?.sharedType ?? "";
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

function fromOf(table: SourceTable, segment: Pick<Segment, "pages">, others: readonly string[] = []): string {
  const conditions = [...conditionsOf(table, segment), ...others];
  const where = conditions.length > 0 ? ` where ${conditions.join(" and ")}` : "";
  return `only ${quoteName(table.schema, table.name)} t${where}`;
}

function isOneOf(bucket: string, buckets: readonly number[]): string {
  return `${bucket} = any ('{${buckets.join(",")}}'::bigint[])`;
}

/** As `bucketOfInteger` computes it of `RowEncoder.integerKey`. */
function integerBucket(form: RowForm): string {
  const key = `t.${quoteIdentifier(form.key[0] ?? "")}::bigint`;
  return `(((((${key} # (${key} >> 31)) & ${KEY_BITS}) * ${SPREADING_FACTOR}) >> 31) & ${form.buckets - 1})`;
}

/** The bucket of a row of `t`, of its key alone. */
function keyBucket(form: RowForm): string {
  if (form.bucketBy === "integer-key") return integerBucket(form);
  const columns = form.columns.filter(({ name }) => form.key.includes(name));
  return `(${hashOfColumns(form, columns)} & ${form.buckets - 1})`;
}

function selectedKey(form: RowForm): string {
  return form.bucketBy === "integer-key" ? `${integerBucket(form)} as b, ` : "";
}

function bucketOf(form: RowForm): string {
  return form.bucketBy === "integer-key" ? "b" : `(${hashesOf(form.hash, "l").first} & ${form.buckets - 1})`;
}

/** The line of `row-form.ts`, or its SHA-256. */
function digestOf(form: RowForm): string {
  return digest(form.hash, `${lineOf(form)} collate pg_catalog."C"`);
}

/** The line of a row of `t` behind its place, or the SHA-256 of both: see place-hashes.ts. */
export function placedDigestOf(form: RowForm): string {
  return digest(form.hash, `${lineOf(form, ["t.ctid"])} collate pg_catalog."C"`);
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
