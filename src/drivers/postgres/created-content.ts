import { OperationalError } from "../../base/errors.ts";
import { OBJECT_ADDRESSES } from "./definitions/object-addresses.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { quoteLiteral } from "./postgres-quote.ts";

/** The schema that tells, until the end of a restore into an empty database, that it is unfinished. */
export const RESTORE_MARKER = "rowkeep_restore";
/** The letters of "rowkeep": a session that fills this database holds the advisory lock with this number. */
const RESTORE_LOCK = "32210706038613360";

/** Sets the marker, with the comment that proves whose it is, at once or not at all. */
export async function setMarker(client: PostgresClient, snapshot: string): Promise<void> {
  const comment = quoteLiteral(`${COMMENT_START}${snapshot}${COMMENT_END}`);
  await client.query(`create schema ${RESTORE_MARKER}; comment on schema ${RESTORE_MARKER} is ${comment}`);
}

const COMMENT_START = "restore of ";
const COMMENT_END = ", not finished";

/** Whether a restore began here and did not end. A schema of the same name that somebody made for himself is none. */
export async function hasMarker(client: PostgresClient): Promise<boolean> {
  const [row] = await client.query(
    `select pg_catalog.obj_description(n.oid, 'pg_namespace'), exists (select from pg_catalog.pg_class c where c.relnamespace = n.oid)
       from pg_catalog.pg_namespace n where n.nspname = $1`,
    [RESTORE_MARKER],
  );
  const comment = row?.[0] ?? "";
  return row?.[1] === "f" && comment.startsWith(COMMENT_START) && comment.endsWith(COMMENT_END);
}

/**
 * Refuses a database in which a restore began and did not end: keys and indexes may be missing there, and the next one removes
 * everything, also what was put in since. `action` is what cannot be done with it. Fails with kind `refused`, `unfinished`.
 */
export async function refuseUnfinished(client: PostgresClient, action: string): Promise<void> {
  if (!(await hasMarker(client))) return;
  throw new OperationalError(`cannot ${action} ${client.connection.database}: a restore --create into it did not end`, {
    kind: "refused",
    code: "unfinished",
    hint: "Restore with --create again: it removes what is there and begins anew.",
  });
}

/** Keeps every other restore out of this database until the session ends. Fails with kind `refused`, `busy`. */
export async function lockDatabase(client: PostgresClient, waitMs: number): Promise<void> {
  // Behind a pooler a lock of the session would stay with a connection of others.
  if (client.isPooled) return;
  for (const deadline = Date.now() + waitMs; ; await new Promise((resolve) => setTimeout(resolve, 50))) {
    const [row] = await client.query(`select pg_catalog.pg_try_advisory_lock(${RESTORE_LOCK})`);
    if (row?.[0] === "t") return;
    if (Date.now() >= deadline) break;
  }
  throw new OperationalError(`cannot restore into ${client.connection.database}: another restore is filling it`, {
    kind: "refused",
    code: "busy",
    hint: "Wait until that restore has ended, or restore into another database.",
  });
}

/** What a user made: schemas but for public, and in it relations, types and functions that no extension brought. */
const NO_MEMBER = (catalog: string, oid: string) =>
  `not exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.${catalog}'::pg_catalog.regclass and d.objid = ${oid} and d.deptype = 'e')`;
/** Operators, collations and the like of the public schema, and publications. A cast goes with its type or function. */
const OTHERS = `
  select o.place from (${OBJECT_ADDRESSES}) o(catalog, objoid, place, schema, owner)
   where o.schema = 'public' or o.catalog = 'pg_publication' order by o.catalog, o.place`;
const CONTENT = `
  select 'schema', n.nspname from pg_catalog.pg_namespace n
   where n.nspname not in ('public', 'information_schema') and n.nspname !~ '^pg_' and ${NO_MEMBER("pg_namespace", "n.oid")}
  union all select case c.relkind when 'v' then 'view' when 'S' then 'sequence' when 'm' then 'materialized view' else 'table' end, c.relname
    from pg_catalog.pg_class c where c.relnamespace = 'public'::pg_catalog.regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f', 'c') and ${NO_MEMBER("pg_class", "c.oid")}
  union all select 'function', p.proname from pg_catalog.pg_proc p where p.pronamespace = 'public'::pg_catalog.regnamespace and ${NO_MEMBER("pg_proc", "p.oid")}
  union all select 'type', t.typname from pg_catalog.pg_type t
    where t.typnamespace = 'public'::pg_catalog.regnamespace and t.typtype in ('e', 'd', 'r') and ${NO_MEMBER("pg_type", "t.oid")}`;

/** Names what users made there. */
export async function findContent(client: PostgresClient): Promise<readonly string[]> {
  const rows = await client.query(CONTENT);
  const others = await client.query(OTHERS);
  return [...rows.map(([kind, name]) => `${kind} ${name}`), ...others.map(([place]) => place ?? "")];
}

/** Drops what users made. Called only where a marker proves that the database was empty before. */
export async function dropContent(client: PostgresClient): Promise<void> {
  await client.begin("isolation level read committed", { search_path: "" });
  await client.query("set local client_min_messages = error");
  const extensions = await client.query(
    "select pg_catalog.quote_ident(extname) from pg_catalog.pg_extension e where pg_catalog.pg_get_userbyid(e.extowner) = current_user and extname <> 'plpgsql'",
  );
  for (const [name] of extensions) await client.query(`drop extension if exists ${name} cascade`);
  const schemas = await client.query(
    `select pg_catalog.quote_ident(nspname) from pg_catalog.pg_namespace where nspname not in ('public', 'information_schema') and nspname !~ '^pg_'`,
  );
  for (const [name] of schemas) await client.query(`drop schema if exists ${name} cascade`);
  const drops = await client.query(DROPS);
  for (const [sql] of drops) await client.query(sql ?? "");
  // One takes others with it: each time the first of those that are left.
  for (let [first] = await client.query(OTHERS); first; [first] = await client.query(OTHERS)) {
    await client.query(`drop ${first[0]} cascade`);
  }
  await client.query(
    "select pg_catalog.count(pg_catalog.lo_unlink(oid)) from pg_catalog.pg_largeobject_metadata where lomowner = (select oid from pg_catalog.pg_roles where rolname = current_user)",
  );
  await client.query("commit");
}

/** A sequence of an identity column goes with its table and not without it. */
const DROPS = `
  select 'drop ' || case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence' when 'c' then 'type' when 'f' then 'foreign table' else 'table' end
         || ' if exists public.' || pg_catalog.quote_ident(c.relname) || ' cascade'
    from pg_catalog.pg_class c where c.relnamespace = 'public'::pg_catalog.regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f', 'c') and ${NO_MEMBER("pg_class", "c.oid")}
     and not exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.deptype = 'i' and c.relkind = 'S')
  union all select 'drop routine if exists ' || p.oid::pg_catalog.regprocedure::text || ' cascade' from pg_catalog.pg_proc p
   where p.pronamespace = 'public'::pg_catalog.regnamespace and ${NO_MEMBER("pg_proc", "p.oid")}
  union all select 'drop type if exists public.' || pg_catalog.quote_ident(t.typname) || ' cascade' from pg_catalog.pg_type t
   where t.typnamespace = 'public'::pg_catalog.regnamespace and t.typtype in ('e', 'd', 'r') and ${NO_MEMBER("pg_type", "t.oid")}`;
