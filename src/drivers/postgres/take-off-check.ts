import type { Definition, TableName } from "../driver.ts";
import { parseJson } from "./definitions/captured-object.ts";
import type { PostgresClient } from "./postgres-client.ts";
import type { Violated } from "./postgres-errors.ts";
import { quoteIdentifier, quoteLiteral } from "./postgres-quote.ts";

/**
 * Drops a check, at one of the tables that its children have it from, or of a domain. Gives what puts it on again, with its comments there and
 * at the children; nothing when it is gone already.
 */
export async function takeOffCheck(client: PostgresClient, violated: Violated): Promise<readonly Definition[]> {
  const { schema, table, domain, constraint } = violated;
  await client.begin("isolation level read committed", { search_path: "" });
  const [row] = await client.query(FIND, [schema, table ?? "", domain ?? "", constraint]);
  const [place, holderSchema, holder, definition, commented] = row ?? [];
  const name = quoteIdentifier(constraint);
  const alter = `ALTER ${table ? "TABLE" : "DOMAIN"} ${place}`;
  if (place) await client.query(`${alter} drop constraint ${name}`);
  await client.query("commit");
  if (!place) return [];
  const about = {
    section: "post-data" as const,
    schema: holderSchema ?? "",
    ...(table ? { table: { schema: holderSchema ?? "", name: holder ?? "" } } : {}),
  };
  const check = {
    ...about,
    kind: "check",
    name: table ? constraint : `${holder}.${constraint}`,
    sql: `${alter} ADD CONSTRAINT ${name} ${definition};`,
  };
  const comments = parseJson<readonly (readonly [string, string])[]>(commented, []);
  return [
    check,
    ...comments.map(([at, comment]) => {
      const of = `CONSTRAINT ${name} ON ${table ? "" : "DOMAIN "}${at}`;
      return { ...about, kind: "comment", name: of, sql: `COMMENT ON ${of} IS ${quoteLiteral(comment)};` };
    }),
  ];
}

/** Drops all checks of a table, and of the domains in its columns, that call functions of people: one of them failed and is not named. */
export async function takeOffChecks(
  client: PostgresClient,
  { schema, name }: TableName,
): Promise<readonly Definition[]> {
  const rows = await client.query(FIND_CALLING, [schema, name]);
  const taken: Definition[] = [];
  for (const [of, table, domain, constraint] of rows) {
    const holder = table === null ? { domain: domain ?? "" } : { table: table ?? "" };
    taken.push(...(await takeOffCheck(client, { schema: of ?? "", ...holder, constraint: constraint ?? "" })));
  }
  return taken;
}

/** The checks of the table $2, and of domains in arrays, composites and ranges of its columns, too. What the server brings is no dependency. */
const FIND_CALLING = `
  with recursive relation(oid) as (
    select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2),
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

/** The check $4 of the table $2 or of the domain $3, where it was not inherited. */
const FIND = `
  with recursive above(oid) as (
    select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2
    union select i.inhparent from above a join pg_catalog.pg_inherits i on i.inhrelid = a.oid),
  below(root, oid) as (
    select oid, oid from above union select b.root, i.inhrelid from below b join pg_catalog.pg_inherits i on i.inhparent = b.oid)
  select k.conrelid::pg_catalog.regclass::pg_catalog.text, n.nspname, c.relname, pg_catalog.pg_get_constraintdef(k.oid),
         ${commentsOf("o.conrelid::pg_catalog.regclass::pg_catalog.text", "below b join pg_catalog.pg_constraint o on b.root = k.conrelid and o.conrelid = b.oid and o.contype = 'c' and o.conname = $4")}
    from above a join pg_catalog.pg_constraint k on k.conrelid = a.oid and k.contype = 'c' and k.conname = $4 and k.coninhcount = 0
    join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  union all
  select t.oid::pg_catalog.regtype::pg_catalog.text, n.nspname, t.typname, pg_catalog.pg_get_constraintdef(o.oid),
         ${commentsOf("t.oid::pg_catalog.regtype::pg_catalog.text", "(select o.oid) o")}
    from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace and n.nspname = $1
    join pg_catalog.pg_constraint o on o.contypid = t.oid and o.contype = 'c' and o.conname = $4
   where t.typname = $3`;
