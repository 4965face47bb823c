import { columnOf } from "./definitions/captured-object.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { quoteIdentifier, quoteLiteral, quoteName } from "./postgres-quote.ts";
import { WITH_PARTITIONS } from "./postgres-replace-catalog.ts";

/** A check or NOT NULL that is NOT VALID: rows that violate it may stay, but none can come. With what puts it on again exactly as it was. */
export interface UnprovenConstraint {
  /** The constraint where it was not inherited, and what children have of it, those nearer to it first. */
  readonly parts: readonly [UnprovenPart, ...UnprovenPart[]];
}

interface UnprovenPart {
  /** Quoted. */
  readonly table: string;
  readonly name: string;
  readonly definition: string;
  readonly comment: string | undefined;
  /** It would be there without its parents', too. */
  readonly isLocal: boolean;
  readonly isProven: boolean;
}

/** Those that act on the rows of these tables and their partitions. Needs an empty search path: then names in expressions are whole. */
export async function findUnproven(
  client: PostgresClient,
  oids: readonly string[],
): Promise<readonly UnprovenConstraint[]> {
  const rows = await client.query(
    `with recursive above(oid) as (
       select oid from (${WITH_PARTITIONS}) asked
       union select i.inhparent from above a join pg_catalog.pg_inherits i on i.inhrelid = a.oid),
     part(root, oid, depth) as (
       select k.oid, k.oid, 0 from above a join pg_catalog.pg_constraint k on k.conrelid = a.oid
        where k.contype in ('c', 'n') and not k.convalidated and k.coninhcount = 0
       union select p.root, c.oid, p.depth + 1
         from part p join pg_catalog.pg_constraint k on k.oid = p.oid and not k.connoinherit
         join pg_catalog.pg_inherits i on i.inhparent = k.conrelid
         join pg_catalog.pg_constraint c on c.conrelid = i.inhrelid and c.contype = k.contype and c.coninhcount > 0
          and case k.contype when 'c' then c.conname = k.conname else
              ${columnOf("c")} = ${columnOf("k")} end)
     select p.root, n.nspname, c.relname, k.conname, pg_catalog.pg_get_constraintdef(k.oid),
            pg_catalog.obj_description(k.oid, 'pg_constraint'), k.conislocal, k.convalidated
       from (select root, oid, pg_catalog.max(depth) as depth from part group by root, oid) p
       join pg_catalog.pg_constraint k on k.oid = p.oid
       join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      order by p.root, p.depth, k.oid`,
    [`{${oids.join(",")}}`],
  );
  const found = new Map<string, [UnprovenPart, ...UnprovenPart[]]>();
  for (const [root = "", schema, table, name, definition, comment, isLocal, isProven] of rows) {
    const part = {
      table: quoteName(schema ?? "", table ?? ""),
      name: quoteIdentifier(name ?? ""),
      definition: definition ?? "",
      comment: comment ?? undefined,
      isLocal: isLocal === "t",
      isProven: isProven === "t",
    };
    const parts = found.get(root ?? "");
    if (parts) parts.push(part);
    else found.set(root ?? "", [part]);
  }
  return [...found.values()].map((parts) => ({ parts }));
}

/** Takes one off. The server drops what children only inherited with it. */
export async function takeUnprovenOff(client: PostgresClient, { parts }: UnprovenConstraint): Promise<void> {
  for (const { table, name, isLocal } of parts) {
    if (isLocal) await client.query(`alter table ${table} drop constraint if exists ${name}`);
  }
}

/** Puts one on again. Needs an empty search path. Fails where a child has proven it, and rows that were restored violate it. */
export async function putUnprovenBack(client: PostgresClient, { parts }: UnprovenConstraint): Promise<void> {
  for (const { table, name, definition, isLocal } of parts.toReversed()) {
    const unproven = definition.endsWith(" NOT VALID") ? definition : `${definition} NOT VALID`;
    if (isLocal) await client.query(`alter table ${table} add constraint ${name} ${unproven}`);
  }
  for (const { table, name, comment, isProven } of parts) {
    if (isProven) await client.query(`alter table ${table} validate constraint ${name}`);
    if (comment === undefined) continue;
    await client.query(`comment on constraint ${name} on ${table} is ${quoteLiteral(comment)}`);
  }
}
