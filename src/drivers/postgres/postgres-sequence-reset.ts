import type { SequenceState } from "../driver.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { quoteIdentifier, quoteLiteral, quoteName } from "./postgres-quote.ts";

interface Range {
  readonly increment: bigint;
  readonly min: bigint;
  readonly max: bigint;
  readonly cycles: boolean;
}

/**
 * Moves a sequence to the furthest of what was saved, what the rows hold and where it stands, in the direction in which
 * it counts; so no value is given out twice. One that cycles gets its saved state. Gives a warning when it is missing.
 * `setval` is never rolled back: call it last.
 */
export async function resetSequence(client: PostgresClient, saved: SequenceState): Promise<string | undefined> {
  const name = quoteName(saved.schema, saved.name);
  const [row] = await client.query(
    `select s.seqincrement, s.seqmin, s.seqmax, s.seqcycle from pg_catalog.pg_sequence s
       join pg_catalog.pg_class c on c.oid = s.seqrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where n.nspname = $1 and c.relname = $2`,
    [saved.schema, saved.name],
  );
  if (!row) return `the sequence ${saved.schema}.${saved.name} is missing in the target`;
  const range = {
    increment: BigInt(row[0] ?? "1"),
    min: BigInt(row[1] ?? "1"),
    max: BigInt(row[2] ?? "1"),
    cycles: row[3] === "t",
  };
  const savedNext = nextOf(saved.lastValue, saved.isCalled, range);
  if (range.cycles) {
    await setNext(client, name, savedNext, range);
    return undefined;
  }
  const [own] = await client.query(`select last_value, is_called from ${name}`);
  const candidates = [savedNext, nextOf(own?.[0] ?? "1", own?.[1] === "t", range)];
  const furthest = await furthestValue(client, saved, range);
  if (furthest !== undefined) candidates.push(furthest + range.increment);
  const up = range.increment > 0n;
  await setNext(
    client,
    name,
    candidates.reduce((a, b) => (up === a > b ? a : b)),
    range,
  );
  return undefined;
}

function nextOf(lastValue: string, isCalled: boolean, { increment }: Range): bigint {
  return isCalled ? BigInt(lastValue) + increment : BigInt(lastValue);
}

async function furthestValue(
  client: PostgresClient,
  { ownedBy }: SequenceState,
  { increment }: Range,
): Promise<bigint | undefined> {
  if (!ownedBy) return undefined;
  const column = quoteIdentifier(ownedBy.column);
  const aggregate = increment > 0n ? "max" : "min";
  const [row] = await client.query(
    `select pg_catalog.${aggregate}(${column})::pg_catalog.int8 from ${quoteName(ownedBy.schema, ownedBy.table)}`,
  );
  return row?.[0] ? BigInt(row[0]) : undefined;
}

/** The value that the sequence gives next; behind its end it is used up, and says so to whoever asks it. */
async function setNext(
  client: PostgresClient,
  name: string,
  next: bigint,
  { increment, min, max }: Range,
): Promise<void> {
  const inside = next >= min && next <= max;
  const last = inside ? next : increment > 0n ? max : min;
  await client.query(`select pg_catalog.setval(${quoteLiteral(name)}::pg_catalog.regclass, ${last}, ${!inside})`);
}
