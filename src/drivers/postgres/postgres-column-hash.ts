import { createHash } from "node:crypto";
import type { FormColumn, RowForm } from "../row-form.ts";
import { quoteIdentifier } from "./postgres-quote.ts";
import { groupsOf, lineOf } from "./postgres-row-line.ts";

/** Terms of one pair of parentheses: thousands without any would be as many levels for the server's parser. */
const TERMS_A_GROUP = 40;

type HashOf = (column: string, seed: string) => string;
type Written = (column: string) => string;

/**
 * What hashes a value by itself, and sees each of its bits. `character` has its blanks cut off by its hash, and a `bigint` is folded to 32
 * bits; the seed sees them.
 */
const HASHED_BY: ReadonlyMap<string, HashOf> = new Map<string, HashOf>([
  ["smallint", (column, seed) => `pg_catalog.hashint2extended(${column}, ${seed})`],
  ["integer", (column, seed) => `pg_catalog.hashint4extended(${column}, ${seed})`],
  ["bigint", (column, seed) => `pg_catalog.hashint8extended(${column}, ${column} # ${seed})`],
  ["oid", (column, seed) => `pg_catalog.hashoidextended(${column}, ${seed})`],
  ["boolean", (column, seed) => `pg_catalog.hashint4extended(${column}::int, ${seed})`],
  ["uuid", (column, seed) => `pg_catalog.uuid_hash_extended(${column}, ${seed})`],
  ["text", (column, seed) => `pg_catalog.hashtextextended(${column} collate pg_catalog."C", ${seed})`],
  ["character varying", (column, seed) => `pg_catalog.hashtextextended(${column} collate pg_catalog."C", ${seed})`],
  [
    "character",
    (column, seed) =>
      `pg_catalog.hashbpcharextended(${column} collate pg_catalog."C", ${seed} # pg_catalog.octet_length(${column})::bigint)`,
  ],
]);

/**
 * How a value stands in a record that is hashed: as it is, or as the bytes that a function gives where the hash of its type is blind to what
 * `=` is blind to (1.0 and 1.00, 0 and -0) or folds it to 32 bits. NaN has several bit patterns and one text: the smaller of NaN and NaN is
 * the one that is written here.
 */
const RECORDED_AS: ReadonlyMap<string, Written> = new Map<string, Written>([
  ["date", (column) => column],
  ["bytea", (column) => column],
  ["numeric", (column) => `pg_catalog.numeric_send(${column})`],
  ["real", (column) => `pg_catalog.float4send(pg_catalog.float4smaller(${column}, 'NaN'::float4))`],
  ["double precision", (column) => `pg_catalog.float8send(pg_catalog.float8smaller(${column}, 'NaN'::float8))`],
  ["timestamp without time zone", (column) => `pg_catalog.timestamp_send(${column})`],
  ["timestamp with time zone", (column) => `pg_catalog.timestamptz_send(${column})`],
]);

/**
 * Writes the hash of these columns of `t`, 64 bits, as servers of one version compute it: the hash of each with a seed of its own, so that
 * values which change places are seen. It is linear: only behind `mixedHash` may those of several rows be added up.
 */
export function hashOfColumns(form: RowForm, columns: readonly FormColumn[]): string {
  const direct = columns.filter((column) => HASHED_BY.has(typeOf(column)));
  const terms = direct.map((column) => {
    const name = `t.${quoteIdentifier(column.name)}`;
    const hash = HASHED_BY.get(typeOf(column))?.(name, seedOf(form, `of ${column.name}`)) ?? "";
    // Also where it is NOT NULL: a catalog that was changed by hand can lie, and one NULL would hide its whole row.
    return `coalesce(${hash}, ${seedOf(form, `no ${column.name}`)})`;
  });
  const others = columns.filter((column) => !direct.includes(column));
  if (others.length > 0) terms.push(recordHash(form, others));
  if (terms.length === 0) return "0::bigint";
  return groupsOf(terms, TERMS_A_GROUP)
    .map((group) => `(${group.join(" # ")})`)
    .join(" # ");
}

/** Writes a hash of a number of 64 bits that is no linear function of it. */
export function mixedHash(value: string, seed: bigint): string {
  return `pg_catalog.hashint8extended(${value}, ${value} # '${seed}'::bigint)`;
}

/** What has no hash of its own that can be trusted is hashed as a record of values, sent bytes, and one line of all the rest. */
function recordHash(form: RowForm, columns: readonly FormColumn[]): string {
  const recorded = columns.filter((column) => RECORDED_AS.has(typeOf(column)));
  const values = recorded.map((column) => RECORDED_AS.get(typeOf(column))?.(`t.${quoteIdentifier(column.name)}`) ?? "");
  const written = columns.filter((column) => !recorded.includes(column));
  if (written.length > 0) values.push(`${lineOf({ ...form, columns: written })} collate pg_catalog."C"`);
  return `pg_catalog.hash_record_extended(row(${values.join(", ")}), ${seedOf(form, `record of ${columns[0]?.name}`)})`;
}

/** `numeric` of `numeric(12,2)`; nothing that is in the tables above where both sides are not of one type. */
function typeOf({ sharedType = "" }: FormColumn): string {
  return sharedType.replace(/\(\d+(,-?\d+)?\)/, "");
}

/** The same for both sides, another one for each comparison and column. */
function seedOf({ hash }: RowForm, purpose: string): string {
  return `'${createHash("sha256").update(`${hash.salt} ${purpose}`).digest().readBigInt64LE()}'::bigint`;
}
