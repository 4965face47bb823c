import type { Column } from "./driver.ts";
import type { RowHash } from "./row-hash.ts";

export interface FormColumn {
  readonly name: string;
  readonly mayBeNull: boolean;
  /** Whether `IS NULL` means that there is no value; for a composite it can mean one made of NULLs. */
  readonly isComposite: boolean;
  /**
   * Written as the bytes that this function of the server gives, in hexadecimal, instead of its text: a third of the time,
   * as exact, but only servers can do it.
   */
  readonly sentBy?: string | undefined;
  /** Its type with all modifiers, where both sides have the same one. */
  readonly sharedType?: string | undefined;
}

/**
 * How the rows of one table are written down to be hashed, the same on every server and in every snapshot, whatever the
 * order of columns in either table:
 *
 *     ~3|~7|.|12|2024-01-01|any text
 *
 * First the numbers of the columns that are NULL and a dot (both left out when no column can be NULL), then the other
 * values as COPY writes them, unescaped, in the order of `columns`. Values that can hold the separator come last; where
 * there is more than one of them, the separator is random. So different rows are never written alike.
 * Above `GROUP_COLUMNS` columns the values are joined in groups: each but the first begins with a separator.
 */
export interface RowForm {
  readonly columns: readonly FormColumn[];
  readonly separator: string;
  readonly hash: RowHash;
  /** Columns that identify a row on both sides; none: rows are told apart by their content alone. */
  readonly key: readonly string[];
  /** What chooses the bucket of a row: its key, an integer (`bucketOfInteger`), a hash of its key, or the lowest bits of its first hash. */
  readonly bucketBy: "integer-key" | "key" | "hash";
  /**
   * What is summed up. `line`: both hashes of the line. `columns`: two hashes of what the server's own hashes of all columns are
   * together; a third of the time, but only two servers of one version agree on it. Buckets whose sums differ are listed by
   * lines in either case, so `columns` never decides that rows differ.
   */
  readonly sumBy: "line" | "columns";
  /** A power of two. */
  readonly buckets: number;
}

/** PostgreSQL's functions take at most 100 arguments. */
export const GROUP_COLUMNS = 80;
const MOST_BUCKETS = 32_768;
/** More buckets would leave the caches of a processor. */
const ROWS_A_BUCKET = 4000;
const INTEGERS: ReadonlySet<string> = new Set(["smallint", "integer", "bigint"]);

/** Types whose text never holds a `|`. */
const PLAIN: ReadonlySet<string> = new Set([
  ...INTEGERS,
  "oid",
  "boolean",
  "real",
  "double precision",
  "numeric",
  "date",
  "time without time zone",
  "time with time zone",
  "timestamp without time zone",
  "timestamp with time zone",
  "interval",
  "uuid",
  "bytea",
  "inet",
  "cidr",
  "macaddr",
  "macaddr8",
  "pg_lsn",
  "bit",
  "bit varying",
]);

/** Types whose text takes longer than all the rest, and what gives their eight bytes, the same in every version. */
const SENT_BY: Readonly<Record<string, string>> = {
  "timestamp without time zone": "timestamp_send",
  "timestamp with time zone": "timestamptz_send",
};

const FIRST_VERSION_WITH_RECORD_HASH = 14;
const FIRST_VERSION_WITH_NOT_VALID_NOT_NULL = 18;

/** Types that are no composites, though they can hold anything. */
const SCALAR_TEXT: ReadonlySet<string> = new Set([
  "text",
  "character",
  "character varying",
  "json",
  "jsonb",
  "xml",
  "name",
  '"char"',
]);

/** One table of either side, as far as its form depends on it. */
export interface FormTable {
  readonly columns: readonly Column[];
  readonly primaryKey: readonly string[];
}

export interface FormOptions {
  readonly hash: RowHash;
  /** About how many rows there are, for the number of buckets. */
  readonly rows: number;
  /** Versions of both servers. */
  readonly majors: readonly [number, number];
  /** Only servers write these rows down, no snapshot is among the sides. */
  readonly isLive: boolean;
}

/** Makes the form in which tables (of both sides, several where one is partitioned) are compared. */
export function makeRowForm(tables: readonly FormTable[], options: FormOptions): RowForm {
  // NOT NULL can be there without being true of old rows (NOT VALID).
  const trustNotNull = options.majors.every((major) => major < FIRST_VERSION_WITH_NOT_VALID_NOT_NULL);
  const key = commonKey(tables);
  const names = storedNames(tables[0]).filter((name) => tables.every((table) => storedNames(table).includes(name)));
  const typesOf = (name: string) => tables.map((table) => baseType(columnOf(table, name).type));
  const isFree = (name: string) => !typesOf(name).every((type) => PLAIN.has(type));
  const ordered = [...names.filter((name) => !isFree(name)).sort(), ...names.filter(isFree).sort()];
  const common = (types: readonly string[]) => (types.every((type) => type === types[0]) ? types[0] : undefined);
  const columns = ordered.map((name) => ({
    name,
    sentBy: options.isLive ? SENT_BY[common(typesOf(name)) ?? ""] : undefined,
    sharedType: common(tables.map((table) => columnOf(table, name).type)),
    mayBeNull: !key.includes(name) && !(trustNotNull && tables.every((table) => columnOf(table, name).notNull)),
    isComposite: !typesOf(name).every((type) => PLAIN.has(type) || SCALAR_TEXT.has(type) || type.endsWith("[]")),
  }));
  const [only, ...more] = key;
  const hasIntegerKey = only !== undefined && more.length === 0 && typesOf(only).every((type) => INTEGERS.has(type));
  const [left, right] = options.majors;
  const isHashedByColumns =
    options.isLive &&
    key.length > 0 &&
    options.hash.method === "lookup3" &&
    left === right &&
    left >= FIRST_VERSION_WITH_RECORD_HASH;
  return {
    columns,
    sumBy: isHashedByColumns ? "columns" : "line",
    separator: ordered.filter(isFree).length > 1 ? `|${options.hash.salt}|` : "|",
    hash: options.hash,
    key,
    bucketBy: hasIntegerKey ? "integer-key" : isHashedByColumns ? "key" : "hash",
    buckets: bucketsFor(options.rows),
  };
}

/** The columns whose values are compared: generated ones are computed again by each server. */
export function storedNames(table: FormTable | undefined): readonly string[] {
  return (table?.columns ?? []).filter((column) => !column.generated).map((column) => column.name);
}

/** The primary key, when all these tables have the same one and none of them computes it. */
function commonKey(tables: readonly FormTable[]): readonly string[] {
  const key = tables[0]?.primaryKey ?? [];
  const isCommon = tables.every(
    (table) =>
      table.primaryKey.length === key.length &&
      key.every((name) => table.primaryKey.includes(name) && storedNames(table).includes(name)),
  );
  return isCommon ? key : [];
}

function columnOf(table: FormTable, name: string): Column {
  return table.columns.find((column) => column.name === name) as Column;
}

function baseType(type: string): string {
  return type.startsWith("interval ") ? "interval" : type.replace(/\(\d+(,-?\d+)?\)/, "");
}

/** Some thousand rows a bucket: few enough to list one, many enough that sums are small beside rows. */
function bucketsFor(rows: number): number {
  const wanted = Math.min(Math.max(rows / ROWS_A_BUCKET, 1), MOST_BUCKETS);
  return 2 ** Math.round(Math.log2(wanted));
}

/** Bits that choose the bucket of an integer key: its lowest 31 and those above them, joined by XOR. */
export const KEY_BITS = 2 ** 31 - 1;
/** Spreads numbers that follow each other, and those that have their lowest bits in common, over all buckets: 2^32 divided by the golden ratio. */
export const SPREADING_FACTOR = 2_654_435_769;

/** The bucket of an integer key by the `KEY_BITS` of it: bits 31 and above of the product with the factor. */
export function bucketOfInteger(bits: number, buckets: number): number {
  const high = (bits >>> 16) * SPREADING_FACTOR;
  const low = (bits & 0xffff) * SPREADING_FACTOR;
  // In two steps, since the product has 63 bits and a number holds 53.
  const carried = Math.floor(((high % 2 ** 15) * 2 ** 16 + low) / 2 ** 31);
  return (Math.floor(high / 2 ** 15) + carried) & (buckets - 1);
}
