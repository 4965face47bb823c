import type { Definition } from "../driver.ts";
import type { PostgresClient } from "./postgres-client.ts";
import type { Violated } from "./postgres-errors.ts";
import { quoteIdentifier, quoteLiteral } from "./postgres-quote.ts";

/**
 * Drops a check, at the table that its children have it from, or of a domain. Gives what puts it on again, with its comment; nothing
 * when it is gone already.
 */
export async function takeOffCheck(client: PostgresClient, violated: Violated): Promise<readonly Definition[]> {
  const { schema, table, domain, constraint } = violated;
  await client.begin("isolation level read committed", { search_path: "" });
  const [row] = await client.query(FIND, [schema, table ?? "", domain ?? "", constraint]);
  const [place, holderSchema, holder, definition, comment] = row ?? [];
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
  if (!comment) return [check];
  const of = `CONSTRAINT ${name} ON ${table ? "" : "DOMAIN "}${place}`;
  return [check, { ...about, kind: "comment", name: of, sql: `COMMENT ON ${of} IS ${quoteLiteral(comment)};` }];
}

/** The check $4 of the table $2 or of the domain $3, where it was not inherited. */
const FIND = `
  with recursive above(oid) as (
    select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2
    union select i.inhparent from above a join pg_catalog.pg_inherits i on i.inhrelid = a.oid)
  select k.conrelid::pg_catalog.regclass::pg_catalog.text, n.nspname, c.relname, pg_catalog.pg_get_constraintdef(k.oid), pg_catalog.obj_description(k.oid, 'pg_constraint')
    from above a join pg_catalog.pg_constraint k on k.conrelid = a.oid and k.contype = 'c' and k.conname = $4 and k.coninhcount = 0
    join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  union all
  select t.oid::pg_catalog.regtype::pg_catalog.text, n.nspname, t.typname, pg_catalog.pg_get_constraintdef(k.oid), pg_catalog.obj_description(k.oid, 'pg_constraint')
    from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace and n.nspname = $1
    join pg_catalog.pg_constraint k on k.contypid = t.oid and k.contype = 'c' and k.conname = $4
   where t.typname = $3`;
