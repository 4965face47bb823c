import type { Definition, TableName } from "../driver.ts";
import { parseJson } from "./definitions/captured-object.ts";
import type { PostgresClient } from "./postgres-client.ts";
import type { Violated } from "./postgres-errors.ts";
import { quoteIdentifier, quoteLiteral } from "./postgres-quote.ts";

/**
 * Drops a check, at the tables that its children have it from, or a constraint of a domain, in the open transaction, with an empty search
 * path. Gives what puts it on again, with its comments there and at the children; nothing when it is gone already.
 * `mayTakeOff` can keep one.
 */
export async function takeOffCheck(
  client: PostgresClient,
  violated: Violated,
  mayTakeOff: (check: HeldCheck) => boolean = () => true,
): Promise<readonly Definition[]> {
  const { schema, table, domain, constraint } = violated;
  const rows = table
    ? await client.query(FIND_OF_TABLE, [schema, table, constraint])
    : await client.query(FIND_OF_DOMAIN, [schema, domain ?? "", constraint ?? null]);
  const taken: Definition[] = [];
  for (const [place, of, holder, name, definition, comments] of rows) {
    const about = { schema: of ?? "", holder: holder ?? "", isDomain: !table };
    const check = { ...about, place: place ?? "", name: name ?? undefined, definition: definition ?? "" };
    if (!mayTakeOff(check)) continue;
    const isNotNull = check.definition === NOT_NULL;
    await client.query(`${alter(check)} drop ${isNotNull ? NOT_NULL : `constraint ${quoteIdentifier(name ?? "")}`}`);
    // Before PostgreSQL 17 a session goes on to ask it of the domains above until any check changes.
    if (isNotNull) {
      const any = "constraint rowkeep_taken_off";
      await client.query(`${alter(check)} add ${any} check (true) not valid; ${alter(check)} drop ${any}`);
    }
    taken.push(...putOn(check, parseJson(comments, [])));
  }
  return taken;
}

/** A check, or the NOT NULL of a domain, where it was not inherited. */
export interface HeldCheck {
  readonly schema: string;
  /** Name of the table or domain. */
  readonly holder: string;
  readonly isDomain: boolean;
  /** Name with schema, as the server writes it. */
  readonly place: string;
  /** Undefined for a NOT NULL before PostgreSQL 17. */
  readonly name: string | undefined;
  readonly definition: string;
}

export const NOT_NULL = "NOT NULL";

function alter({ isDomain, place }: HeldCheck): string {
  return `ALTER ${isDomain ? "DOMAIN" : "TABLE"} ${place}`;
}

function putOn(check: HeldCheck, comments: readonly (readonly [string, string])[]): readonly Definition[] {
  const { schema, holder, isDomain, name, definition } = check;
  const about = { section: "post-data" as const, schema, ...(isDomain ? {} : { table: { schema, name: holder } }) };
  const constraint = name === undefined ? "" : quoteIdentifier(name);
  const put = {
    ...about,
    kind: definition === NOT_NULL ? "not-null" : "check",
    name: [...(isDomain ? [holder] : []), ...(name === undefined ? [] : [name])].join("."),
    sql: `${alter(check)} ${name === undefined ? `SET ${NOT_NULL}` : `ADD CONSTRAINT ${constraint} ${definition}`};`,
  };
  return [
    put,
    ...comments.map(([at, comment]) => {
      const of = `CONSTRAINT ${constraint} ON ${isDomain ? "DOMAIN " : ""}${at}`;
      return { ...about, kind: "comment", name: of, sql: `COMMENT ON ${of} IS ${quoteLiteral(comment)};` };
    }),
  ];
}

/** Finds all checks of a table, and of the domains in its columns, that call functions of people: one of them raised an error and is not named. */
export async function findCallingChecks(
  client: PostgresClient,
  { schema, name }: TableName,
): Promise<readonly Violated[]> {
  const rows = await client.query(FIND_CALLING, [schema, name]);
  return rows.map(([of, table, domain, constraint]) => {
    const holder = table === null ? { domain: domain ?? "" } : { table: table ?? "" };
    return { schema: of ?? "", ...holder, constraint: constraint ?? "" };
  });
}

/** The checks of the table $2 and its partitions, and of domains in arrays, composites and ranges of its columns, too. What the server brings is no dependency. */
const FIND_CALLING = `
  with recursive relation(oid) as (
    select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2
    union select c.oid from relation r join pg_catalog.pg_inherits i on i.inhparent = r.oid join pg_catalog.pg_class c on c.oid = i.inhrelid and c.relispartition),
  used(oid) as (
    select a.atttypid from relation r join pg_catalog.pg_attribute a on a.attrelid = r.oid where a.attnum > 0 and not a.attisdropped
    union select o.oid from used u join pg_catalog.pg_type t on t.oid = u.oid, lateral (
      select t.typelem union select t.typbasetype union select r.rngsubtype from pg_catalog.pg_range r where r.rngtypid = t.oid
      union select a.atttypid from pg_catalog.pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped) o(oid))
  select n.nspname, c.relname, t.typname, k.conname
    from pg_catalog.pg_constraint k join pg_catalog.pg_namespace n on n.oid = k.connamespace
    left join pg_catalog.pg_class c on c.oid = k.conrelid left join pg_catalog.pg_type t on t.oid = k.contypid
   where k.contype = 'c' and (k.conrelid in (select oid from relation) or k.contypid in (select oid from used where oid <> 0))
     and exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass and d.objid = k.oid
                    and d.refclassid in ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass))
   order by 1, 2, 3, 4`;

/** Comments on constraints `o`, as pairs of the place and the text. */
const commentsOf = (place: string, constraints: string) => `(
  select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(${place}, d.description)) from ${constraints}
    join pg_catalog.pg_description d on d.classoid = 'pg_catalog.pg_constraint'::pg_catalog.regclass and d.objoid = o.oid)`;

/** The check $3 of the table $2, where it was not inherited. */
const FIND_OF_TABLE = `
  with recursive above(oid) as (
    select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2
    union select i.inhparent from above a join pg_catalog.pg_inherits i on i.inhrelid = a.oid),
  below(root, oid) as (
    select oid, oid from above union select b.root, i.inhrelid from below b join pg_catalog.pg_inherits i on i.inhparent = b.oid)
  select k.conrelid::pg_catalog.regclass::pg_catalog.text, n.nspname, c.relname, k.conname, pg_catalog.pg_get_constraintdef(k.oid),
         ${commentsOf("o.conrelid::pg_catalog.regclass::pg_catalog.text", "below b join pg_catalog.pg_constraint o on b.root = k.conrelid and o.conrelid = b.oid and o.contype = 'c' and o.conname = $3")}
    from above a join pg_catalog.pg_constraint k on k.conrelid = a.oid and k.contype = 'c' and k.conname = $3 and k.coninhcount = 0
    join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace`;

/** The checks $3 of the domain $2 and of those that it is made of, or every NOT NULL of theirs: the server names the outermost domain. */
const FIND_OF_DOMAIN = `
  with recursive made_of(oid) as (
    select t.oid from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace where n.nspname = $1 and t.typname = $2
    union select t.typbasetype from made_of m join pg_catalog.pg_type t on t.oid = m.oid where t.typbasetype <> 0)
  select t.oid::pg_catalog.regtype::pg_catalog.text, n.nspname, t.typname, k.conname,
         case when $3::pg_catalog.name is null then '${NOT_NULL}' else pg_catalog.pg_get_constraintdef(k.oid) end,
         ${commentsOf("t.oid::pg_catalog.regtype::pg_catalog.text", "(select k.oid) o")}
    from made_of m join pg_catalog.pg_type t on t.oid = m.oid join pg_catalog.pg_namespace n on n.oid = t.typnamespace
    left join pg_catalog.pg_constraint k on k.contypid = t.oid and case when $3::pg_catalog.name is null then k.contype = 'n' else k.contype = 'c' and k.conname = $3::pg_catalog.name end
   where t.typtype = 'd' and case when $3::pg_catalog.name is null then t.typnotnull else k.oid is not null end`;
