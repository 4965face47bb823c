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

/** The foreign key of the root that a foreign key of a partition comes from: its number and name. */
export const rootKeyOf = (key: string) => `(
  with recursive above(oid, parent, conname) as (
    select ${key}.oid, ${key}.conparentid, ${key}.conname union all
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

/** Whether a foreign key is that of a partition, which the key of its root brings. */
const isBrought = (key: string) =>
  `(${key}.contype = 'f' and ${key}.conrelid <> (select p.conrelid from pg_catalog.pg_constraint p where p.oid = ${key}.conparentid))`;

/** The name that the constraint `o` gets when it is made. */
const NAME_AT_FIRST = `case when ${isBrought("o")} then (select x.conname from ${rootKeyOf("o")} x) else o.conname end`;

/** Foreign keys of partitions that have another name than that of their root, which brings them, or hold where the one above is NOT VALID. */
async function captureForeignKeys(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select k.oid, n.nspname, c.relname, k.conname, r.conname, k.convalidated and not p.convalidated, r.oid, c.oid
       from pg_catalog.pg_constraint k join pg_catalog.pg_constraint p on p.oid = k.conparentid
       join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace, lateral ${rootKeyOf("k")} r
      where ${isBrought("k")} and (k.conname <> r.conname or k.convalidated and not p.convalidated)
        and not exists (select from pg_catalog.pg_constraint o where o.conrelid = k.conrelid and o.oid <> k.oid and ${NAME_AT_FIRST} = r.conname)
        and ${USER_SCHEMAS} and ${isNoMember("pg_class", "c.oid")}
      order by n.nspname, c.relname, k.conname`,
  );
  const keys = rows.map(([oid, schema = "", table = "", name = "", rootName = "", isProven, root, relation]) => ({
    self: { schema: schema ?? "", name: table ?? "" },
    name: name ?? "",
    rootName: rootName ?? "",
    isProven: isProven === "t",
    key: keyOf("pg_constraint", oid),
    root: keyOf("pg_constraint", root),
    relation,
  }));
  return [...Map.groupBy(keys, ({ relation }) => relation).values()].flatMap(renderKeys);
}

interface BroughtKey {
  readonly self: { readonly schema: string; readonly name: string };
  readonly name: string;
  readonly rootName: string;
  readonly isProven: boolean;
  readonly key: string;
  /** That of the root's key. */
  readonly root: string;
}

/** Renders the keys of one partition. Where one is to have the name that another is made with, the first sets all of them aside. */
function renderKeys(keys: readonly BroughtKey[]): readonly CapturedObject[] {
  const renamed = keys.filter(({ name, rootName }) => name !== rootName);
  const areCrossed = renamed.some(({ name }) => renamed.some(({ rootName }) => rootName === name));
  const [first] = renamed;
  const places = new Map(renamed.map(({ key }, index) => [key, `rowkeep_renamed_${index + 1}`]));
  return keys.map((one) => {
    const { self, name, rootName, isProven, key, root } = one;
    const alter = `ALTER TABLE ${quoteName(self.schema, self.name)}`;
    const rename = (from: string, to: string) =>
      `${alter} RENAME CONSTRAINT ${quoteIdentifier(from)} TO ${quoteIdentifier(to)};`;
    const isCrossed = areCrossed && name !== rootName;
    const setsAside = isCrossed && one === first;
    const aside = setsAside ? renamed.map((other) => rename(other.rootName, places.get(other.key) ?? "")) : [];
    const from = isCrossed ? (places.get(key) ?? "") : rootName;
    const statements = [
      ...aside,
      ...(name === rootName ? [] : [rename(from, name)]),
      ...(isProven ? [`${alter} VALIDATE CONSTRAINT ${quoteIdentifier(name)};`] : []),
    ];
    const others = setsAside ? renamed.map((other) => other.root) : isCrossed && first ? [first.key] : [];
    return {
      key,
      after: [root, ...others],
      definition: {
        section: "post-data",
        kind: "foreign-key",
        schema: self.schema,
        name,
        table: self,
        sql: statements.join("\n"),
      },
    };
  });
}
