import { codeOf, OperationalError } from "../../base/errors.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { quoteIdentifier, quoteLiteral, quoteName } from "./postgres-quote.ts";
import { renderTriggerState, WITH_ALL_LEVELS } from "./postgres-replace-catalog.ts";

const FOREIGN_KEY_VIOLATION = "23503";

/** A foreign key, with what puts it on again exactly as it was. */
export interface ForeignKey {
  /** Quoted name of the table that it belongs to. */
  readonly child: string;
  readonly name: string;
  readonly definition: string;
  /** Oids of those of the asked tables on whose rows it acts. */
  readonly actsOn: readonly string[];
  /** The key itself, and what partitions have of it: each may have a name and a comment of its own. */
  readonly parts: readonly KeyPart[];
}

interface KeyPart {
  readonly oid: string;
  /** The tables at its two ends: the same before and after. */
  readonly ends: string;
  /** Quoted name of the table that it belongs to. */
  readonly child: string;
  readonly name: string;
  readonly comment: string | undefined;
  /** Those by which the server enforces it; none where it does not. */
  readonly triggers: readonly KeyTrigger[];
}

interface KeyTrigger {
  /** Its table and function, which tell it apart among those of its key. */
  readonly place: string;
  /** Quoted. */
  readonly table: string;
  readonly name: string;
  /** See `TriggerState`. */
  readonly enabled: string;
  /** How deep its table lies below a partitioned one: a state that is given to that one goes down to its partitions. */
  readonly level: number;
}

/**
 * Every foreign key in force with at least one end among these tables, their partitions or the partitioned tables above them: a
 * key of the root acts on the rows of each partition, and only the root's can be taken off. One whose triggers are all switched
 * off acts on no row and stays on. Fails with kind `refused` when this login could not switch off again what is off.
 */
export async function findForeignKeys(client: PostgresClient, oids: readonly string[]): Promise<readonly ForeignKey[]> {
  const rows = await client.query(
    `with wanted as (
       ${WITH_ALL_LEVELS})
     select n.nspname, c.relname, k.conname, pg_catalog.pg_get_constraintdef(k.oid), k.oid,
            (select pg_catalog.jsonb_agg(distinct w.root::text) from wanted w where w.oid in (k.conrelid, k.confrelid)),
            pg_catalog.current_setting('is_superuser')
       from pg_catalog.pg_constraint k
       join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where k.contype = 'f' and k.conparentid = 0
        and (k.conrelid in (select oid from wanted) or k.confrelid in (select oid from wanted))
      order by k.oid`,
    [`{${oids.join(",")}}`],
  );
  const parts = await findParts(
    client,
    rows.map((row) => row[4] ?? ""),
  );
  const keys = rows.map((row) => ({
    child: quoteName(row[0] ?? "", row[1] ?? ""),
    name: row[2] ?? "",
    definition: row[3] ?? "",
    actsOn: JSON.parse(row[5] ?? "[]") as string[],
    parts: parts.get(row[4] ?? "") ?? [],
    isSuperuser: row[6] === "on",
  }));
  const acting = keys.filter(({ parts }) =>
    parts.some(({ triggers }) => triggers.some(({ enabled }) => enabled !== "D")),
  );
  const lost = acting.find(({ parts, isSuperuser }) => !isSuperuser && hasOwnStates(parts));
  if (lost) throw cannotSwitchOff(lost);
  return acting;
}

/** Finds the parts of the keys of these oids, each key's under its oid. */
async function findParts(client: PostgresClient, keys: readonly string[]): Promise<ReadonlyMap<string, KeyPart[]>> {
  const rows = await client.query(
    `with recursive part(key, oid) as (
       select oid, oid from pg_catalog.unnest($1::pg_catalog.oid[]) oid
       union all select p.key, k.oid from part p join pg_catalog.pg_constraint k on k.conparentid = p.oid and k.contype = 'f')
     select p.key, k.oid, k.conrelid || ' ' || k.confrelid, n.nspname, c.relname, k.conname,
            pg_catalog.obj_description(k.oid, 'pg_constraint'),
            (select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
                      g.tgrelid || ' ' || g.tgfoid, gn.nspname, gc.relname, g.tgname, g.tgenabled,
                      (select pg_catalog.count(*) from pg_catalog.pg_partition_ancestors(g.tgrelid))) order by g.oid)
               from pg_catalog.pg_trigger g join pg_catalog.pg_class gc on gc.oid = g.tgrelid
               join pg_catalog.pg_namespace gn on gn.oid = gc.relnamespace
              where g.tgconstraint = k.oid)
       from part p join pg_catalog.pg_constraint k on k.oid = p.oid
       join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      order by k.oid`,
    [`{${keys.join(",")}}`],
  );
  const parts = new Map<string, KeyPart[]>();
  for (const row of rows) {
    const key = row[0] ?? "";
    const triggers = JSON.parse(row[7] ?? "[]") as [string, string, string, string, string, number][];
    const part = {
      oid: row[1] ?? "",
      ends: row[2] ?? "",
      child: quoteName(row[3] ?? "", row[4] ?? ""),
      name: row[5] ?? "",
      comment: row[6] ?? undefined,
      triggers: triggers.map(([place, schema, table, name, enabled, level]) => ({
        place,
        table: quoteName(schema, table),
        name,
        enabled,
        level,
      })),
    };
    parts.set(key, [...(parts.get(key) ?? []), part]);
  }
  return parts;
}

function hasOwnStates(parts: readonly KeyPart[]): boolean {
  return parts.some(({ triggers }) => triggers.some(({ enabled }) => enabled !== "O"));
}

function cannotSwitchOff({ child, name }: Pick<ForeignKey, "child" | "name">): OperationalError {
  return new OperationalError(
    `cannot take the foreign key ${name} of ${child} off: some of its triggers are switched off, and only a superuser can do that again`,
    {
      kind: "refused",
      code: "key-triggers",
      hint: "Restore as a superuser, or have one enable the triggers of both tables.",
    },
  );
}

/** Puts a key on that was taken off, checks its rows, and makes it what it was. Fails with `foreign-key`. */
export async function putForeignKeyBack(client: PostgresClient, key: ForeignKey): Promise<void> {
  const { child, name, definition, parts } = key;
  try {
    await client.query(`alter table ${child} add constraint ${quoteIdentifier(name)} ${definition}`);
  } catch (cause) {
    if (codeOf(cause) !== FOREIGN_KEY_VIOLATION) throw cause;
    throw new OperationalError(
      `cannot restore: rows of ${child} refer to rows that are not in the snapshot (${name})`,
      {
        kind: "database",
        code: "foreign-key",
        hint: "Restore the tables at both ends of the foreign key together, or remove those rows first.",
        cause,
      },
    );
  }
  if (parts.length > 1 || hasOwnStates(parts)) {
    const now = await findAgain(client, key);
    await rename(client, parts, now);
    if (hasOwnStates(parts)) await switchTriggers(client, parts, now);
  }
  for (const { child, name, comment } of parts) {
    if (comment === undefined) continue;
    await client.query(`comment on constraint ${quoteIdentifier(name)} on ${child} is ${quoteLiteral(comment)}`);
  }
}

async function findAgain(client: PostgresClient, { child, name }: ForeignKey): Promise<readonly KeyPart[]> {
  await client.query("set local search_path = ''");
  const [row] = await client.query(
    "select oid from pg_catalog.pg_constraint where conrelid = $1::pg_catalog.regclass and conname = $2 and contype = 'f'",
    [child, name],
  );
  const oid = row?.[0] ?? "";
  const parts = (await findParts(client, [oid])).get(oid) ?? [];
  await client.query("set local search_path to default");
  return parts;
}

/** In two steps: two parts of one table may have changed their names with each other. */
async function rename(client: PostgresClient, before: readonly KeyPart[], now: readonly KeyPart[]): Promise<void> {
  const changed = now.flatMap((part) => {
    const name = before.find(({ ends }) => ends === part.ends)?.name ?? part.name;
    return name === part.name ? [] : [{ ...part, meanwhile: `rowkeep_${part.oid}`, before: name }];
  });
  const to = (child: string, from: string, name: string) =>
    client.query(`alter table ${child} rename constraint ${quoteIdentifier(from)} to ${quoteIdentifier(name)}`);
  for (const { child, name, meanwhile } of changed) await to(child, name, meanwhile);
  for (const { child, meanwhile, before: name } of changed) await to(child, meanwhile, name);
}

async function switchTriggers(
  client: PostgresClient,
  before: readonly KeyPart[],
  now: readonly KeyPart[],
): Promise<void> {
  const states = new Map(
    before.flatMap(({ ends, triggers }) => triggers.map(({ place, enabled }) => [`${ends} ${place}`, enabled])),
  );
  const triggers = now.flatMap(({ ends, triggers }) =>
    triggers.map((trigger) => ({ ...trigger, enabled: states.get(`${ends} ${trigger.place}`) ?? "O" })),
  );
  for (const trigger of triggers.toSorted((left, right) => left.level - right.level)) {
    await client.query(renderTriggerState(trigger));
  }
}
