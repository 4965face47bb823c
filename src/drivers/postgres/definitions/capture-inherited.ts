import { quoteIdentifier, quoteName } from "../postgres-quote.ts";
import {
  type CapturedObject,
  type CatalogQuery,
  columnOf,
  isNoMember,
  keyOf,
  parseJson,
  USER_SCHEMAS,
  WITH_ABOVE,
} from "./captured-object.ts";
import { IS_LOST_CHECK } from "./lost-checks.ts";

/** The foreign key of the root that the foreign key `k` of a partition comes from: its number and name. */
export const ROOT_KEY = `(
  with recursive above(oid, parent, conname) as (
    select k.oid, k.conparentid, k.conname union all
    select a.oid, a.conparentid, a.conname from above join pg_catalog.pg_constraint a on a.oid = above.parent)
  select above.oid, above.conname from above where above.parent = 0)`;

/** What a table has otherwise than what it has its constraints from. */
export async function captureInherited(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  return [...(await captureProven(query)), ...(await captureForeignKeys(query))];
}

/**
 * Checks and NOT NULLs that hold for all rows of a child and are NOT VALID at its parent, which brings them as such after the rows. Those of
 * partitions are part of their CREATE TABLE.
 */
async function captureProven(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select c.oid, k.oid, n.nspname, c.relname, k.conname,
            (${WITH_ABOVE}
             select pg_catalog.jsonb_agg('pg_class:' || oid || ':late') from above)
       from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where k.contype in ('c', 'n') and k.convalidated and not k.conislocal and not c.relispartition and not ${IS_LOST_CHECK}
        and exists (select from pg_catalog.pg_inherits i join pg_catalog.pg_constraint p on p.conrelid = i.inhparent
                     where i.inhrelid = c.oid and p.contype = k.contype and not p.convalidated
                      and case k.contype when 'c' then p.conname = k.conname else ${columnOf("p")} = ${columnOf("k")} end)
        and ${USER_SCHEMAS} and ${isNoMember("pg_class", "c.oid")}
      order by n.nspname, c.relname, k.conname`,
  );
  return rows.map(([oid, constraint, schema, table, name, after]) => {
    const self = { schema: schema ?? "", name: table ?? "" };
    return {
      key: keyOf("pg_class", oid, `:proven-${constraint}`),
      after: parseJson(after, []),
      definition: {
        section: "post-data",
        kind: "replica-identity",
        ...self,
        table: self,
        sql: `ALTER TABLE ${quoteName(self.schema, self.name)} VALIDATE CONSTRAINT ${quoteIdentifier(name ?? "")};`,
      },
    };
  });
}

/** Foreign keys of partitions that have another name than that of their root, which brings them, or hold where the one above is NOT VALID. */
async function captureForeignKeys(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select k.oid, n.nspname, c.relname, k.conname, r.conname, k.convalidated and not p.convalidated, r.oid
       from pg_catalog.pg_constraint k join pg_catalog.pg_constraint p on p.oid = k.conparentid
       join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace, lateral ${ROOT_KEY} r
      where k.contype = 'f' and k.conrelid <> p.conrelid and (k.conname <> r.conname or k.convalidated and not p.convalidated)
        and not exists (select from pg_catalog.pg_constraint o where o.conrelid = k.conrelid and o.oid <> k.oid and o.conname = r.conname)
        and ${USER_SCHEMAS} and ${isNoMember("pg_class", "c.oid")}
      order by n.nspname, c.relname, k.conname`,
  );
  return rows.map(([oid, schema, table, name, rootName, isProven, root]) => {
    const self = { schema: schema ?? "", name: table ?? "" };
    const relation = `ALTER TABLE ${quoteName(self.schema, self.name)}`;
    const statements = [
      ...(name === rootName
        ? []
        : [`${relation} RENAME CONSTRAINT ${quoteIdentifier(rootName ?? "")} TO ${quoteIdentifier(name ?? "")};`]),
      ...(isProven === "t" ? [`${relation} VALIDATE CONSTRAINT ${quoteIdentifier(name ?? "")};`] : []),
    ];
    return {
      key: keyOf("pg_constraint", oid),
      after: [keyOf("pg_constraint", root)],
      definition: {
        section: "post-data",
        kind: "foreign-key",
        schema: self.schema,
        name: name ?? "",
        table: self,
        sql: statements.join("\n"),
      },
    };
  });
}
