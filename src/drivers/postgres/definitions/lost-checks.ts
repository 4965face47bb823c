import { type CatalogQuery, isNoMember, keyOf, USER_SCHEMAS } from "./captured-object.ts";

/** Condition: the function `p` with the language `l` in the schema `n` is one that no ordinary owner may make. Those of a range come with it. */
export const IS_UNTRUSTED = `not l.lanpltrusted and p.prokind <> 'a' and ${USER_SCHEMAS} and ${isNoMember("pg_proc", "p.oid")}
      and not exists (select from pg_catalog.pg_depend i where i.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and i.objid = p.oid and i.deptype = 'i')`;

/**
 * Condition: the constraint `k` is a check that calls a function that is not captured, itself or through other functions and operators.
 * It is part of its table or domain, which would be lost with it.
 */
export const IS_LOST_CHECK = `(k.contype = 'c' and k.oid in (
  with recursive lost(classid, objid) as (
    select 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid, p.oid
      from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace join pg_catalog.pg_language l on l.oid = p.prolang
     where ${IS_UNTRUSTED}
    union select d.classid, d.objid from lost join pg_catalog.pg_depend d on d.refclassid = lost.classid and d.refobjid = lost.objid
     where d.deptype = 'n' and d.classid in ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass))
  select d.objid from lost join pg_catalog.pg_depend d on d.refclassid = lost.classid and d.refobjid = lost.objid
   where d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass))`;

/** Gives these checks by key, with a sentence for each that did not come from a parent, whose own says it. */
export async function findLostChecks(query: CatalogQuery, excluded: ReadonlySet<string>) {
  const rows = await query(
    `select k.oid, n.nspname, c.relname, k.coninhcount = 0,
            pg_catalog.quote_ident(k.conname) || ' of ' || case when k.contypid <> 0 then k.contypid::pg_catalog.regtype::pg_catalog.text else k.conrelid::pg_catalog.regclass::pg_catalog.text end
       from pg_catalog.pg_constraint k left join pg_catalog.pg_class c on c.oid = k.conrelid left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where ${IS_LOST_CHECK}`,
  );
  return rows.map(([oid, schema, table, isFirst, name]) => {
    const isSaid = isFirst === "t" && !excluded.has(JSON.stringify([schema, table]));
    const sentence = `check ${name} is not captured: it needs what is not captured either`;
    return { key: keyOf("pg_constraint", oid), sentence: isSaid ? sentence : "" };
  });
}
