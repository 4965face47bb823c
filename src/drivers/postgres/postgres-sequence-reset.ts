import type { SequenceState } from "../driver.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { quoteIdentifier, quoteLiteral, quoteName } from "./postgres-quote.ts";

/** A sequence with its state, or without one where the snapshot does not have it. */
type SavedSequence = Pick<SequenceState, "schema" | "name" | "ownedBy"> & Partial<SequenceState>;

interface Range {
  readonly increment: bigint;
  readonly min: bigint;
  readonly max: bigint;
  readonly cycles: boolean;
}

/**
 * Moves a sequence to the furthest of what was saved, what the rows hold and where it stands, in the direction in which
 * it counts; so no value is given out twice. Rows that would leave it nothing to give do not count. One that cycles gets its
 * saved state, if there is one. Gives a warning when it is missing or may not be set. `setval` is never rolled back: call it last.
 */
export async function resetSequence(client: PostgresClient, saved: SavedSequence): Promise<string | undefined> {
  const name = quoteName(saved.schema, saved.name);
  const [row] = await client.query(
    `select s.seqincrement, s.seqmin, s.seqmax, s.seqcycle,
            pg_catalog.has_sequence_privilege(c.oid, 'select') and pg_catalog.has_sequence_privilege(c.oid, 'update')
              and pg_catalog.has_schema_privilege(n.oid, 'usage')
       from pg_catalog.pg_sequence s
       join pg_catalog.pg_class c on c.oid = s.seqrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where n.nspname = $1 and c.relname = $2`,
    [saved.schema, saved.name],
  );
  if (!row) return `the sequence ${saved.schema}.${saved.name} is missing in the target`;
  if (row[4] === "f") return `the sequence ${saved.schema}.${saved.name} stays as it is: this login may not set it`;
  const range = {
    increment: BigInt(row[0] ?? "1"),
    min: BigInt(row[1] ?? "1"),
    max: BigInt(row[2] ?? "1"),
    cycles: row[3] === "t",
  };
  const { lastValue, isCalled = false } = saved;
  const candidates: State[] = lastValue === undefined ? [] : [{ last: BigInt(lastValue), isCalled }];
  if (!range.cycles) {
    const furthest = await furthestValue(client, saved, range);
    // A row with the largest id that there is (a sentinel) says nothing about what the sequence gave out.
    if (furthest !== undefined && [furthest, furthest + range.increment].every((value) => isInside(value, range))) {
      candidates.push({ last: furthest, isCalled: true });
    }
  }
  // Last, for nothing keeps others from taking numbers until it is set.
  const [standing] = await client.query(`select last_value, is_called from ${name}`);
  const own = { last: BigInt(standing?.[0] ?? "1"), isCalled: standing?.[1] === "t" };
  if (!range.cycles) candidates.push(own);
  const isFurther = (left: State, right: State) =>
    range.increment > 0n ? nextOf(left, range) > nextOf(right, range) : nextOf(left, range) < nextOf(right, range);
  // Where they agree the saved state wins: a sequence that was used looks used.
  const [first, ...others] = candidates;
  if (!first) return undefined;
  const state = others.reduce((best, other) => (isFurther(other, best) ? other : best), first);
  if (state.last !== own.last || state.isCalled !== own.isCalled) await setState(client, name, state, range);
  return undefined;
}

/** A sequence's state as the server keeps it: the value, and whether it was given out already. */
interface State {
  readonly last: bigint;
  readonly isCalled: boolean;
}

function nextOf({ last, isCalled }: State, { increment }: Range): bigint {
  return isCalled ? last + increment : last;
}

function isInside(value: bigint, { min, max }: Range): boolean {
  return value >= min && value <= max;
}

async function furthestValue(
  client: PostgresClient,
  { ownedBy }: SavedSequence,
  { increment }: Range,
): Promise<bigint | undefined> {
  if (!ownedBy) return undefined;
  const column = quoteIdentifier(ownedBy.column);
  const aggregate = increment > 0n ? "max" : "min";
  // A sequence may belong to a column that holds other things, such as texts with a number in them, or of a table that is
  // not restored and not for this login to read.
  const [type] = await client.query(
    `select pg_catalog.format_type(a.atttypid, null) from pg_catalog.pg_attribute a
       join pg_catalog.pg_class c on c.oid = a.attrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where n.nspname = $1 and c.relname = $2 and a.attname = $3 and not a.attisdropped
        and pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'select')
        and pg_catalog.has_schema_privilege(n.oid, 'usage')`,
    [ownedBy.schema, ownedBy.table, ownedBy.column],
  );
  const value = NUMBERS.get(type?.[0] ?? "");
  if (value === undefined) return undefined;
  const [row] = await client.query(
    `select pg_catalog.${aggregate}(${value(column)})::pg_catalog.int8 from ${quoteName(ownedBy.schema, ownedBy.table)}`,
  );
  return row?.[0] ? BigInt(row[0]) : undefined;
}

/** Integers as they are, so that an index gives the furthest at once; of decimals what is not larger than a sequence. */
const NUMBERS: ReadonlyMap<string, (column: string) => string> = new Map([
  ["smallint", (column) => column],
  ["integer", (column) => column],
  ["bigint", (column) => column],
  ["numeric", (column) => `case when pg_catalog.abs(${column}) < 9.2e18 then pg_catalog.trunc(${column}) end`],
]);

/** What was saved may lie outside the bounds that the target sets: then it is used up, and says so to whoever asks it. */
async function setState(client: PostgresClient, name: string, { last, isCalled }: State, range: Range): Promise<void> {
  const inside = isInside(last, range);
  const value = inside ? last : range.increment > 0n ? range.max : range.min;
  await client.query(
    `select pg_catalog.setval(${quoteLiteral(name)}::pg_catalog.regclass, ${value}, ${isCalled || !inside})`,
  );
}
