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
  /** How it stands in a record that is hashed as such: see `RowForm.sumBy`. */
  readonly recordAs?: string | undefined;
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
  /** What chooses the bucket of a row: the lowest bits of its key, an integer, or those of its first hash. */
  readonly bucketBy: "integer-key" | "hash";
  /**
   * What is summed up. `line`: both hashes of the line. `record`: the server's hash of the row as a record, seeded by the key
   * (that hash is linear: without the seed, values that change places between rows would cancel out), and a hash of that
   * hash. A third faster; only for integer keys, columns whose hash is one of all their bits, and two servers of one version.
   * Buckets whose sums differ are listed by lines in either case, so `record` never decides that rows differ.
   */
  readonly sumBy: "line" | "record";
  /** A power of two, at most `MOST_BUCKETS`. */
  readonly buckets: number;
}

/** PostgreSQL's functions take at most 100 arguments. */
export const GROUP_COLUMNS = 80;
export const MOST_BUCKETS = 32_768;
const ROWS_A_BUCKET = 1000;
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

/**
 * Types that can be hashed in a record: as they are, under the collation C, or as the bytes that a function gives. The hash
 * of a type folds int8 and times to 32 bits, and is blind to what `=` is blind to (1.0 and 1.00, 0 and -0).
 */
const RECORD_AS: Readonly<Record<string, string>> = {
  ...SENT_BY,
  smallint: "value",
  integer: "value",
  bigint: "int8send",
  oid: "value",
  boolean: "value",
  date: "value",
  uuid: "value",
  bytea: "value",
  numeric: "numeric_send",
  real: "float4send",
  "double precision": "float8send",
  text: "C",
  "character varying": "C",
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
  const commonType = (name: string) => {
    const [type = "", ...others] = typesOf(name);
    return options.isLive && others.every((other) => other === type) ? type : "";
  };
  const columns = ordered.map((name) => ({
    name,
    sentBy: SENT_BY[commonType(name)],
    recordAs: RECORD_AS[commonType(name)],
    mayBeNull: !key.includes(name) && !(trustNotNull && tables.every((table) => columnOf(table, name).notNull)),
    isComposite: !typesOf(name).every((type) => PLAIN.has(type) || SCALAR_TEXT.has(type) || type.endsWith("[]")),
  }));
  const [only, ...more] = key;
  const hasIntegerKey = only !== undefined && more.length === 0 && typesOf(only).every((type) => INTEGERS.has(type));
  const [left, right] = options.majors;
  const isRecord =
    hasIntegerKey &&
    options.hash.method === "lookup3" &&
    left === right &&
    left >= FIRST_VERSION_WITH_RECORD_HASH &&
    columns.every(({ recordAs }) => recordAs !== undefined);
  return {
    columns,
    sumBy: isRecord ? "record" : "line",
    separator: ordered.filter(isFree).length > 1 ? `|${options.hash.salt}|` : "|",
    hash: options.hash,
    key,
    bucketBy: hasIntegerKey ? "integer-key" : "hash",
    buckets: bucketsFor(options.rows),
  };
}

/** The columns whose values are compared: generated ones are computed again by each server. */
export function storedNames(table: FormTable | undefined): readonly string[] {
  return (table?.columns ?? []).filter((column) => !column.generated).map((column) => column.name);
}

/** The primary key, when all these tables have the same one. */
function commonKey(tables: readonly FormTable[]): readonly string[] {
  const [first, ...others] = tables;
  const key = first?.primaryKey ?? [];
  const isCommon =
    key.every((name) => storedNames(first).includes(name)) &&
    others.every(
      (table) => table.primaryKey.length === key.length && key.every((name) => table.primaryKey.includes(name)),
    );
  return isCommon ? key : [];
}

function columnOf(table: FormTable, name: string): Column {
  return table.columns.find((column) => column.name === name) as Column;
}

function baseType(type: string): string {
  return type.startsWith("interval ") ? "interval" : type.replace(/\(\d+(,-?\d+)?\)/, "");
}

/** About a thousand rows a bucket: few enough to list one, many enough that sums are small beside rows. */
function bucketsFor(rows: number): number {
  const wanted = Math.min(Math.max(rows / ROWS_A_BUCKET, 1), MOST_BUCKETS);
  return 2 ** Math.round(Math.log2(wanted));
}
