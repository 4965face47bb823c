import { hash } from "node:crypto";
import type { TableMark } from "../change-tracker.ts";
import { PINNED_SETTINGS, type PostgresClient } from "./postgres-client.ts";

/**
 * Everything that makes text of stored rows, table by table: columns with their missing values (a default that ADD COLUMN gave to
 * rows without touching them), and every type that they reach through arrays, domains, composites and ranges. `xmin` of
 * catalog rows stands for whatever else of them may change. Types of the server itself count only where their text depends on
 * names of other objects.
 */
const MARKS = `
with recursive reached(relid, typid) as (
  select a.attrelid, a.atttypid
    from pg_attribute a
   where a.attrelid = any ($1::oid[]) and a.attnum > 0 and not a.attisdropped
   union
  select r.relid, n.typid
    from reached r
    join pg_type t on t.oid = r.typid
   cross join lateral (
           select t.typelem union all select t.typbasetype
           union all select a.atttypid from pg_attribute a
                      where t.typrelid <> 0 and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
           union all select g.rngsubtype from pg_range g where t.oid in (g.rngtypid, g.rngmultitypid)) n(typid)
   where n.typid <> 0
)
select c.oid, pg_relation_filenode(c.oid),
       (select string_agg(row(a.attnum, a.attname, a.atttypid, a.atttypmod, a.attisdropped, a.attgenerated, a.attcollation,
                              a.atthasmissing, a.attmissingval::text)::text, ';' order by a.attnum)
          from pg_attribute a where a.attrelid = c.oid and a.attnum > 0),
       (select string_agg(row(t.oid, t.xmin, t.typtype, t.typoutput, p.xmin, x.extversion,
                 (select string_agg(row(e.oid, e.enumlabel, e.xmin)::text, ',' order by e.oid)
                    from pg_enum e where e.enumtypid = t.oid),
                 (select string_agg(row(a.attnum, a.xmin, a.atttypid, a.atttypmod, a.attisdropped)::text, ',' order by a.attnum)
                    from pg_attribute a where t.typrelid <> 0 and a.attrelid = t.typrelid and a.attnum > 0))::text,
               ';' order by t.oid)
          from reached r
          join pg_type t on t.oid = r.typid
          left join pg_proc p on p.oid = t.typoutput
          left join pg_depend d on d.classid = 'pg_type'::regclass and d.objid = t.oid and d.objsubid = 0 and d.deptype = 'e'
          left join pg_extension x on x.oid = d.refobjid
         where r.relid = c.oid and t.oid >= 16384),
       (select min(format_type(r.typid, null))
          from reached r
         where r.relid = c.oid
           and r.typid in ('regproc'::regtype, 'regprocedure'::regtype, 'regoper'::regtype, 'regoperator'::regtype,
                 'regclass'::regtype, 'regtype'::regtype, 'regconfig'::regtype, 'regdictionary'::regtype,
                 'regnamespace'::regtype, 'regrole'::regtype, 'regcollation'::regtype, 'aclitem'::regtype))
  from pg_class c
 where c.oid = any ($1::oid[])`;

/** Reads the marks of tables by their oids; a text says why a table can have none. */
export async function readTableMarks(
  client: PostgresClient,
  oids: readonly string[],
): Promise<ReadonlyMap<string, TableMark | string>> {
  const marks = new Map<string, TableMark | string>();
  const rows = await client.query(MARKS, [`{${oids.join(",")}}`]);
  for (const [oid, filenode, columns, types, named] of rows) {
    if (!oid) continue;
    // The text of such a value changes with the name of another object, and no row header tells.
    if (named) marks.set(oid, `text of type ${named} depends on other objects`);
    else if (!filenode) marks.set(oid, "it has no file of its own");
    else marks.set(oid, { oid, filenode, digest: digestOf([client.serverVersion, columns, types]) });
  }
  return marks;
}

function digestOf(parts: readonly unknown[]): string {
  return hash("sha256", JSON.stringify([PINNED_SETTINGS, ...parts]));
}
