import type { SequenceState, TableName } from "../driver.ts";
import type { TargetColumn } from "../replacer.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { quoteIdentifier, quoteName } from "./postgres-quote.ts";
import { conditionOf } from "./postgres-tables.ts";
import { IS_MADE_BY_PEOPLE } from "./postgres-triggers.ts";

export interface TriggerState {
  readonly tableOid: string;
  readonly table: string;
  readonly name: string;
  /** `O` on, `D` off, `R` on for replicas, `A` always (pg_trigger.tgenabled). */
  readonly enabled: string;
}

/** A rule that is on, with the letters of a trigger's state (pg_rewrite.ev_enabled). */
export interface RuleState {
  readonly table: string;
  readonly name: string;
  readonly enabled: string;
}

export interface FoundTable extends TableName {
  readonly oid: string;
  readonly kind: "r" | "p";
  readonly columns: readonly TargetColumn[];
  readonly rowSecurity: boolean;
  readonly hasRule: boolean;
  readonly partitionOf: readonly TableName[];
  readonly publications: readonly string[];
  /** A partition whose rows lie on another server. */
  readonly foreignPartition: string | undefined;
  /** Only rows with this condition belong to the user: the table is an extension's, which says so in the catalog. */
  readonly condition: string | undefined;
}

/** Finds tables by their exact names, in the order of oids. */
export async function findTables(client: PostgresClient, names: readonly TableName[]): Promise<readonly FoundTable[]> {
  const rows = await client.query(
    `select c.oid, n.nspname, c.relname, c.relkind, pg_catalog.row_security_active(c.oid),
            (select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
                      a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.atthasdef, a.attgenerated <> '', a.attidentity <> '')
                    order by a.attnum)
               from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
            exists (select from pg_catalog.pg_rewrite r where r.ev_class = c.oid and r.ev_type in ('3', '4')),
            (select pg_catalog.jsonb_agg(distinct p.pubname) from pg_catalog.pg_publication_tables p
              where p.schemaname = n.nspname and p.tablename = c.relname),
            (select pg_catalog.min(f.relname::pg_catalog.text) from pg_catalog.pg_partition_tree(c.oid) t
               join pg_catalog.pg_class f on f.oid = t.relid where f.relkind = 'f'),
            (select e.extcondition[pg_catalog.array_position(e.extconfig, c.oid)] from pg_catalog.pg_extension e
              where c.oid = any (e.extconfig) limit 1),
            (select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('schema', an.nspname, 'name', ac.relname))
               from pg_catalog.pg_partition_ancestors(c.oid) a(relid) join pg_catalog.pg_class ac on ac.oid = a.relid
               join pg_catalog.pg_namespace an on an.oid = ac.relnamespace where a.relid <> c.oid)
       from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       join unnest($1::pg_catalog.text[], $2::pg_catalog.text[]) w(nspname, relname)
         on w.nspname = n.nspname and w.relname = c.relname
      where c.relkind in ('r', 'p') and c.relpersistence <> 't' order by c.oid`,
    [names.map(({ schema }) => schema), names.map(({ name }) => name)],
  );
  return rows.map((row) => ({
    oid: row[0] ?? "",
    schema: row[1] ?? "",
    name: row[2] ?? "",
    kind: row[3] === "p" ? "p" : "r",
    rowSecurity: row[4] === "t",
    columns: (JSON.parse(row[5] ?? "[]") as [string, string, boolean, boolean, boolean, boolean][]).map(
      ([name, type, notNull, hasDefault, generated, identity]) => ({
        name,
        type,
        notNull,
        hasDefault,
        generated,
        identity,
      }),
    ),
    hasRule: row[6] === "t",
    publications: JSON.parse(row[7] ?? "[]") as string[],
    foreignPartition: row[8] ?? undefined,
    condition: row[9] ? conditionOf(row[9]) : undefined,
    partitionOf: JSON.parse(row[10] ?? "[]") as TableName[],
  }));
}

/** The triggers that people made, of these tables and their partitions, roots before leaves. */
export async function findTriggers(client: PostgresClient, oids: readonly string[]): Promise<readonly TriggerState[]> {
  const rows = await client.query(
    `with wanted as (
       select root as oid, 0 as level from pg_catalog.unnest($1::pg_catalog.oid[]) root
       union select t.relid, t.level from pg_catalog.unnest($1::pg_catalog.oid[]) root, pg_catalog.pg_partition_tree(root) t)
     select g.tgrelid, n.nspname, c.relname, g.tgname, g.tgenabled
       from pg_catalog.pg_trigger g join pg_catalog.pg_class c on c.oid = g.tgrelid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       join (select oid, pg_catalog.max(level) as level from wanted group by oid) w on w.oid = c.oid
      where ${IS_MADE_BY_PEOPLE} order by w.level, g.oid`,
    [`{${oids.join(",")}}`],
  );
  return rows.map((row) => ({
    tableOid: row[0] ?? "",
    table: quoteName(row[1] ?? "", row[2] ?? ""),
    name: row[3] ?? "",
    enabled: row[4] ?? "O",
  }));
}

/** Counts the rows that this transaction has inserted, updated and deleted in each of these tables and its partitions, by its oid. */
export async function countWritten(
  client: PostgresClient,
  oids: readonly string[],
): Promise<ReadonlyMap<string, string>> {
  const rows = await client.query(
    `select root, pg_catalog.sum(pg_catalog.pg_stat_get_xact_tuples_inserted(oid) + pg_catalog.pg_stat_get_xact_tuples_updated(oid)
                                 + pg_catalog.pg_stat_get_xact_tuples_deleted(oid))
       from (${WITH_PARTITIONS}) w group by root`,
    [`{${oids.join(",")}}`],
  );
  return new Map(rows.map(([root, count]) => [root ?? "", count ?? "0"]));
}

/** Selects `oid, root`: each of the asked tables, the oids in $1, and what it consists of. */
export const WITH_PARTITIONS = `
  select oid, oid as root from pg_catalog.unnest($1::pg_catalog.oid[]) oid
  union select t.relid, root from pg_catalog.unnest($1::pg_catalog.oid[]) root, pg_catalog.pg_partition_tree(root) t`;
/** The same with the partitioned tables above it. */
export const WITH_ALL_LEVELS = `${WITH_PARTITIONS}
  union select a.relid, leaf from pg_catalog.unnest($1::pg_catalog.oid[]) leaf, pg_catalog.pg_partition_ancestors(leaf) a(relid)`;

/** A sequence that gives defaults to the rows of one of the asked tables. */
export interface UsedSequence extends TableName {
  readonly tableOid: string;
}

/**
 * The sequences that defaults and identities of these tables use, and those of their partitions and of the partitioned
 * tables above them, by which rows come in too.
 */
export async function findUsedSequences(
  client: PostgresClient,
  oids: readonly string[],
): Promise<readonly UsedSequence[]> {
  const rows = await client.query(
    `with wanted as (
       ${WITH_ALL_LEVELS}),
     used as (
       select f.adrelid as relid, d.refobjid as sequence
         from pg_catalog.pg_attrdef f
         join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and d.objid = f.oid
                                    and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
       union all select d.refobjid, d.objid from pg_catalog.pg_depend d
        where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.deptype = 'i'
          and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjsubid > 0)
     select distinct w.root, n.nspname, s.relname
       from wanted w join used u on u.relid = w.oid join pg_catalog.pg_class s on s.oid = u.sequence and s.relkind = 'S'
       join pg_catalog.pg_namespace n on n.oid = s.relnamespace`,
    [`{${oids.join(",")}}`],
  );
  return rows.map((row) => ({ tableOid: row[0] ?? "", schema: row[1] ?? "", name: row[2] ?? "" }));
}

/** The sequences that columns of these tables own, and of those above them and their partitions. */
export async function findOwnedSequences(
  client: PostgresClient,
  oids: readonly string[],
): Promise<readonly Pick<SequenceState, "schema" | "name" | "ownedBy">[]> {
  const rows = await client.query(
    `with wanted as (
       ${WITH_ALL_LEVELS})
     select distinct n.nspname, s.relname, tn.nspname, t.relname, a.attname
       from wanted w
       join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = w.oid
                                  and d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.deptype in ('a', 'i')
       join pg_catalog.pg_class s on s.oid = d.objid and s.relkind = 'S'
       join pg_catalog.pg_namespace n on n.oid = s.relnamespace
       join pg_catalog.pg_class t on t.oid = w.oid join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
       join pg_catalog.pg_attribute a on a.attrelid = w.oid and a.attnum = d.refobjsubid`,
    [`{${oids.join(",")}}`],
  );
  return rows.map(([schema, name, tableSchema, table, column]) => ({
    schema: schema ?? "",
    name: name ?? "",
    ownedBy: { schema: tableSchema ?? "", table: table ?? "", column: column ?? "" },
  }));
}

const TRIGGER_VERBS: Readonly<Record<string, string>> = {
  O: "enable",
  D: "disable",
  R: "enable replica",
  A: "enable always",
};

/** The rules of these tables that would add to a DELETE or replace it; COPY passes all others by. */
export async function findDeleteRules(client: PostgresClient, oids: readonly string[]): Promise<readonly RuleState[]> {
  const rows = await client.query(
    `select n.nspname, c.relname, r.rulename, r.ev_enabled
       from pg_catalog.pg_rewrite r join pg_catalog.pg_class c on c.oid = r.ev_class
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where r.ev_class = any ($1::pg_catalog.oid[]) and r.ev_type = '4' and r.ev_enabled <> 'D' order by r.oid`,
    [`{${oids.join(",")}}`],
  );
  return rows.map((row) => ({
    table: quoteName(row[0] ?? "", row[1] ?? ""),
    name: row[2] ?? "",
    enabled: row[3] ?? "O",
  }));
}

/** Renders the statement that gives a rule this state. */
export function renderRuleState({ table, name }: RuleState, enabled: string): string {
  return `alter table ${table} ${TRIGGER_VERBS[enabled] ?? "enable"} rule ${quoteIdentifier(name)}`;
}

/** Renders the statement that gives a trigger its state; `ENABLE TRIGGER USER` would also wake those that were off. */
export function renderTriggerState({ table, name, enabled }: Omit<TriggerState, "tableOid">): string {
  return `alter table ${table} ${TRIGGER_VERBS[enabled] ?? "enable"} trigger ${quoteIdentifier(name)}`;
}

/**
 * Materialized views that read these tables, their partitions, or what they are partitions or children of, directly or through
 * others, in the order in which they can be refreshed.
 */
export async function findMatviews(client: PostgresClient, oids: readonly string[]): Promise<readonly string[]> {
  const rows = await client.query(
    `with recursive above(oid) as (
       select oid from (${WITH_PARTITIONS}) asked
       union select i.inhparent from above a join pg_catalog.pg_inherits i on i.inhrelid = a.oid),
     reading(oid, depth) as (
       select oid, 0 from above
       union
       select r.ev_class, d.depth + 1
         from reading d
         join pg_catalog.pg_depend p on p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and p.refobjid = d.oid
                                    and p.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
         join pg_catalog.pg_rewrite r on r.oid = p.objid and r.ev_class <> d.oid
        where d.depth < 50)
     select n.nspname, c.relname
       from (select oid, pg_catalog.max(depth) as depth from reading group by oid) d
       join pg_catalog.pg_class c on c.oid = d.oid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where c.relkind = 'm' and c.relispopulated order by d.depth, c.oid`,
    [`{${oids.join(",")}}`],
  );
  return rows.map((row) => quoteName(row[0] ?? "", row[1] ?? ""));
}
