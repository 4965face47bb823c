import { hash } from "node:crypto";
import type { DefinitionsMark, TrustToken } from "../change-tracker.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { quoteName } from "./postgres-quote.ts";
import { headerXidOf, isNew } from "./postgres-range-rows.ts";

/**
 * Catalogs that no definition is read from. Statistics and large objects are large and change all the time. Who depends on which role
 * is written for all databases of the server, and says nothing that owners, rights and policies do not. Of roles, which hold
 * passwords, the names are hashed in their place. Few logins may read user mappings and subscriptions, and who drops or refreshes a
 * subscription would have to wait until the backup ends, and its workers behind them; or the backup for them.
 */
export const CATALOGS_LEFT_OUT: readonly string[] = [
  "pg_authid",
  "pg_largeobject",
  "pg_largeobject_metadata",
  "pg_shdepend",
  "pg_statistic",
  "pg_statistic_ext_data",
  "pg_subscription",
  "pg_subscription_rel",
  "pg_user_mapping",
];

/** What must hold for definitions that an earlier snapshot with this token read. */
export interface CatalogsQuestion {
  /** Of now, or of the earlier snapshot. */
  readonly token: TrustToken;
  /** All that the caller puts into definitions besides what the server says. */
  readonly besides: readonly unknown[];
}

export interface CatalogsAnswer {
  readonly mark: DefinitionsMark;
  /** Some row may be from after the snapshot with the token. */
  readonly hasNewRows: boolean;
}

/**
 * Marks what definitions are read from, in the snapshot of the leader's transaction. No statement fails for lack of a right; undefined
 * where this login may not read a catalog that counts.
 *
 * Definitions are the same as those of an earlier snapshot whose token is believed when no row is new and both marks are equal:
 *
 * 1. They are computed from visible rows of the server's own catalogs, from names of roles, and from settings of the session. The digest
 *    holds the latter two, and which catalogs were read. All ordinary ones are: a list by hand would miss one some day.
 * 2. A row that is visible now and was not then was written by a transaction that the earlier snapshot did not see as ended: none that
 *    ended before can have written it, as what it deleted stays deleted. So its xmin is not below the xmin of the token, and the row
 *    is new. CREATE, ALTER, GRANT, COMMENT and so on insert rows or write new versions of them. Freezing keeps xmin, VACUUM FULL too.
 * 3. Without a new row each catalog has some of the rows that it had then. As many in all as then are all of them: a DROP makes fewer.
 *
 * Not seen is what the server writes into rows where they are: numbers of pages and rows, ages of transactions, and whether a table has or
 * had an index, a rule or a trigger (`relhasindex`, which CREATE INDEX sets beside new rows, and VACUUM takes back). No definition shows
 * any of it; pg_index, pg_rewrite and pg_trigger tell. Functions like pg_get_viewdef() look at what is committed when they run, which
 * may be later than the snapshot: whatever they saw of that has new rows, or fewer, in every later snapshot, but for objects that
 * were created and dropped again meanwhile. They leave at most a name that could be left out, and says the same: an index tells its
 * class of operators while another one is the default for its type. Whoever edits catalog rows below the server,
 * or exchanges the library of an extension beneath a running server, is not found out, as with rows of tables.
 */
export async function readDefinitionsMark(
  leader: PostgresClient,
  { token, besides }: CatalogsQuestion,
): Promise<CatalogsAnswer | undefined> {
  // How old a row is depends on when a process looks first: what is compared must be computed by one.
  await leader.query("set local max_parallel_workers_per_gather = 0");
  const [asked] = await leader.query(CATALOGS, [`{${CATALOGS_LEFT_OUT.join(",")}}`]);
  const [listed, isAllowed] = asked ?? [];
  if (!listed || isAllowed !== "t") return undefined;
  const catalogs = JSON.parse(listed) as readonly string[];
  const [read] = await leader.query(readAll(catalogs), [headerXidOf(token)]);
  const [count, hasNewRows, ...others] = read ?? [];
  const rows = Number(count);
  if (!Number.isSafeInteger(rows) || rows === 0) return undefined;
  const digest = hash("sha256", JSON.stringify([leader.serverVersion, catalogs, others, besides]));
  return { mark: { rows, digest }, hasNewRows: hasNewRows !== "f" };
}

/** Tables that people made in pg_catalog are none of the server's. Anybody's right to read or execute what is asked may be revoked. */
const CATALOGS = `
  select pg_catalog.jsonb_agg(c.relname order by c.relname),
         pg_catalog.bool_and(pg_catalog.has_table_privilege(c.oid, 'select'))
           and pg_catalog.has_table_privilege('pg_catalog.pg_roles', 'select')
           and pg_catalog.has_table_privilege('pg_catalog.pg_settings', 'select')
           and pg_catalog.has_function_privilege('pg_catalog.pg_show_all_settings()', 'execute')
           and pg_catalog.has_function_privilege('pg_catalog.hashtextextended(text, bigint)', 'execute')
    from pg_catalog.pg_class c
   where c.relkind = 'r' and c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace and c.oid < 16384
     and c.relname <> all ($1::pg_catalog.name[])`;

/**
 * Renders one statement for all: each would be a round trip. $1 is the oldest transaction whose rows are new. Settings of extensions come
 * and go with their libraries.
 */
function readAll(catalogs: readonly string[]): string {
  const counts = catalogs.map(
    (name) =>
      `select pg_catalog.count(*) as rows, pg_catalog.count(*) filter (where ${isNew("x", "$1")}) as added from ${quoteName("pg_catalog", name)} x`,
  );
  return `
    select pg_catalog.sum(c.rows), pg_catalog.bool_or(c.added > 0), current_user,
           ${hashOf("r.oid || ' ' || r.rolname, E'\\n' order by r.oid", "pg_catalog.pg_roles r")},
           ${hashOf(`s.name || '=' || s.setting, E'\\n' order by s.name collate "C"`, "pg_catalog.pg_settings s where s.name !~ '[.]'")}
      from (${counts.join(" union all ")}) c`;
}

/** Of bytes as they are: names of roles may be in the encoding of another database, and nothing may fail here. */
function hashOf(lines: string, from: string): string {
  const text = `pg_catalog.string_agg(${lines}) collate "C"`;
  return `(select pg_catalog.hashtextextended(${text}, 0) || ' ' || pg_catalog.hashtextextended(${text}, 1) from ${from})`;
}
