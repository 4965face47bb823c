import { quoteIdentifier, quoteLiteral, quoteName } from "../postgres-quote.ts";
import {
  type CapturedObject,
  type CatalogQuery,
  columnOf,
  isNoMember,
  keyOf,
  type ObjectPart,
  parseJson,
  USER_SCHEMAS,
  WITH_ABOVE,
} from "./captured-object.ts";
import { IS_LOST_CHECK } from "./lost-checks.ts";

interface ColumnRow {
  readonly name: string;
  readonly type: string;
  readonly collation: string | null;
  readonly notNull: boolean;
  /** The name of the catalogued NOT NULL (PostgreSQL 18), and what stands behind it. */
  readonly notNullName: string | null;
  readonly notNullNoInherit: boolean | null;
  /** It takes null where its parents do not. */
  readonly nullable?: boolean;
  readonly generated: string;
  readonly expression: string | null;
  readonly identity: string;
  readonly local: boolean;
  readonly inherited: number;
  readonly storage: string | null;
  readonly compression: string;
  readonly statistics: number | null;
  readonly options: readonly string[] | null;
}

interface CheckRow {
  readonly oid: number;
  readonly name: string;
  readonly definition: string;
  readonly local: boolean;
}

/** One table as the catalogs have it. */
interface TableRow {
  readonly oid: string;
  readonly schema: string;
  readonly name: string;
  readonly kind: string;
  readonly columns: readonly ColumnRow[];
  readonly checks: readonly CheckRow[];
  readonly parents: readonly string[];
  readonly partitionKey: string | null;
  readonly bound: string | null;
  readonly options: readonly string[];
  readonly persistence: string;
  readonly replicaIdentity: string;
  readonly replicaIndex: string | null;
  readonly rowSecurity: boolean;
  readonly forced: boolean;
  readonly typeOf: string | null;
  readonly accessMethod: string | null;
  readonly notValid: string | null;
  readonly beforeNotValid: readonly string[];
}

const CHECKS = `
  from pg_catalog.pg_constraint k where k.conrelid = c.oid and k.contype = 'c' and k.convalidated and not ${IS_LOST_CHECK}`;

/** The constraints whose old rows nobody looked at, but for those that come with a parent's. */
const NOT_VALID = `
  from pg_catalog.pg_constraint k where k.conrelid = c.oid and k.contype in ('c', 'n') and not k.convalidated and not ${IS_LOST_CHECK}
   and (k.conislocal or not exists (select from pg_catalog.pg_inherits i join pg_catalog.pg_constraint p on p.conrelid = i.inhparent
                                     where i.inhrelid = c.oid and p.contype = k.contype and p.conname = k.conname))`;

/**
 * Keys of the descendants whose own NOT NULL … NOT VALID goes first, and of other parents after which they are called: once the table has
 * brought them its own, they take no other name.
 */
const BEFORE_NOT_VALID = `
  case when exists (select from pg_catalog.pg_constraint k where k.conrelid = c.oid and k.contype = 'n' and not k.convalidated) then (
    with recursive below(oid) as (select i.inhrelid from pg_catalog.pg_inherits i where i.inhparent = c.oid union
                                  select i.inhrelid from below b join pg_catalog.pg_inherits i on i.inhparent = b.oid)
    select pg_catalog.jsonb_agg(distinct 'pg_class:' || v.conrelid || ':late')
      from below b join pg_catalog.pg_constraint o on o.conrelid = b.oid and o.contype = 'n'
      join pg_catalog.pg_constraint v on v.conname = o.conname and v.contype = 'n' and not v.convalidated and v.conrelid <> c.oid
       and (v.conrelid = b.oid or v.conrelid in (select i.inhparent from pg_catalog.pg_inherits i where i.inhrelid = b.oid))
     where exists (select from pg_catalog.pg_constraint k where k.conrelid = c.oid and k.contype = 'n' and not k.convalidated and k.conname <> o.conname
                      and ${columnOf("k")} = ${columnOf("o")})) end`;

/** Condition: the column `a` of the child `c` takes null, and one above it does not; a child gets NOT NULL when it is made. Not since PostgreSQL 18. */
const IS_NULLABLE = `not a.attnotnull and not c.relispartition and exists (
  ${WITH_ABOVE}
  select from above b join pg_catalog.pg_attribute p on p.attrelid = b.oid and p.attname = a.attname and p.attnotnull and p.attnum > 0)`;

function tablesQuery(serverVersion: number): string {
  const hasNotNullConstraints = serverVersion >= 180000;
  const notNull = hasNotNullConstraints
    ? `left join pg_catalog.pg_constraint nn on nn.conrelid = a.attrelid and nn.contype = 'n' and nn.conkey = array[a.attnum]`
    : "";
  const notNullColumns = hasNotNullConstraints
    ? `'notNull', nn.oid is not null and (nn.conislocal or c.relispartition) and nn.convalidated,
       'notNullName', case when nn.conislocal or c.relispartition then nn.conname end, 'notNullNoInherit', nn.connoinherit`
    : `'notNull', a.attnotnull, 'notNullName', null, 'notNullNoInherit', null, 'nullable', ${IS_NULLABLE}`;
  return `
  select c.oid, n.nspname, c.relname, c.relkind,
         (select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                   'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
                   'collation', case when a.attcollation <> 0 and a.attcollation <> y.typcollation then a.attcollation::pg_catalog.regcollation::pg_catalog.text end,
                   ${notNullColumns}, 'generated', a.attgenerated,
                   'expression', case when a.attgenerated <> '' then pg_catalog.pg_get_expr(d.adbin, d.adrelid) end,
                   'identity', a.attidentity, 'local', a.attislocal, 'inherited', a.attinhcount,
                   ${COLUMN_OPTIONS}) order by a.attnum)
            from pg_catalog.pg_attribute a join pg_catalog.pg_type y on y.oid = a.atttypid
            left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum ${notNull}
           where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
         (select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('oid', k.oid, 'name', k.conname, 'definition', pg_catalog.pg_get_constraintdef(k.oid), 'local', k.conislocal) order by k.conname) ${CHECKS}),
         (select pg_catalog.jsonb_agg(i.inhparent::pg_catalog.regclass::pg_catalog.text order by i.inhseqno) from pg_catalog.pg_inherits i where i.inhrelid = c.oid),
         case when c.relkind = 'p' then pg_catalog.pg_get_partkeydef(c.oid) end,
         case when c.relispartition then pg_catalog.pg_get_expr(c.relpartbound, c.oid) end,
         ${RELATION_OPTIONS} as options,
         c.relpersistence, c.relreplident,
         (select x.relname from pg_catalog.pg_index i join pg_catalog.pg_class x on x.oid = i.indexrelid where i.indrelid = c.oid and i.indisreplident),
         c.relrowsecurity, c.relforcerowsecurity, case when c.reloftype <> 0 then pg_catalog.format_type(c.reloftype, null) end,
         case when am.amname <> 'heap' then am.amname end,
         (select pg_catalog.string_agg('ALTER TABLE ' || c.oid::pg_catalog.regclass::pg_catalog.text || ' ADD CONSTRAINT ' || pg_catalog.quote_ident(k.conname) || ' ' || pg_catalog.pg_get_constraintdef(k.oid) || ';', E'\\n' order by k.conname)
            ${NOT_VALID}),
         ${BEFORE_NOT_VALID}
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    left join pg_catalog.pg_class t on t.oid = c.reltoastrelid
    left join pg_catalog.pg_am am on am.oid = c.relam
   where c.relkind in ('r', 'p') and c.relpersistence <> 't' and ${USER_SCHEMAS} and ${isNoMember("pg_class", "c.oid")}
   order by n.nspname, c.relname`;
}

/** Tables with their columns and checks; indexes, keys and defaults are objects of their own. */
export async function captureTables(query: CatalogQuery, serverVersion: number): Promise<readonly CapturedObject[]> {
  return (await query(tablesQuery(serverVersion))).map(tableRowOf).flatMap(objectsOf);
}

function tableRowOf(row: (string | null)[]): TableRow {
  return {
    oid: row[0] ?? "",
    schema: row[1] ?? "",
    name: row[2] ?? "",
    kind: row[3] ?? "r",
    columns: parseJson(row[4], []),
    checks: parseJson(row[5], []),
    parents: parseJson(row[6], []),
    partitionKey: row[7] ?? null,
    bound: row[8] ?? null,
    options: parseArray(row[9]),
    persistence: row[10] ?? "p",
    replicaIdentity: row[11] ?? "d",
    replicaIndex: row[12] ?? null,
    rowSecurity: row[13] === "t",
    forced: row[14] === "t",
    typeOf: row[15] ?? null,
    accessMethod: row[16] ?? null,
    notValid: row[17] ?? null,
    beforeNotValid: parseJson(row[18], []),
  };
}

/** Reads the text form of a one-dimensional text[]. */
export function parseArray(text: string | null | undefined): readonly string[] {
  const items = (text ?? "{}").slice(1, -1).match(/"(?:[^"\\]|\\.)*"|[^,]+/g) ?? [];
  return items.map((item) => (item.startsWith('"') ? item.slice(1, -1).replace(/\\(.)/g, "$1") : item));
}

function objectsOf(table: TableRow): readonly CapturedObject[] {
  const { oid, schema, name } = table;
  const self = { schema, name };
  const object = (section: "pre-data" | "post-data", kind: string, sql: string, part = ""): CapturedObject => ({
    key: keyOf("pg_class", oid, part),
    definition: { section, kind, schema, name, table: self, sql },
  });
  const full = quoteName(schema, name);
  const checks = ownChecks(table, full);
  const sqlWith = (rest: readonly ObjectPart[]) =>
    createTable(
      table,
      checks.filter(({ key }) => rest.some((part) => part.key === key)),
    );
  const objects: CapturedObject[] = [
    { ...object("pre-data", "table", createTable(table, checks)), parts: checks, sqlWith },
  ];
  if (table.bound !== null && table.parents[0]) {
    const sql = `ALTER TABLE ONLY ${table.parents[0]} ATTACH PARTITION ${full} ${table.bound};`;
    // It must have the checks of the whole by then.
    objects.push({ ...object("pre-data", "attach", sql, ":attach"), after: checks.map(({ key }) => key) });
  }
  const alterations = columnAlterations(table, full);
  if (alterations.length > 0) objects.push(object("pre-data", "table", alterations.join("\n"), ":columns"));
  for (const column of table.columns.filter(({ nullable }) => nullable)) {
    const sql = `ALTER TABLE ONLY ${full} ALTER COLUMN ${quoteIdentifier(column.name)} DROP NOT NULL;`;
    const { key, definition } = object("pre-data", "nullable", sql, ":nullable");
    objects.push({ key, definition: { ...definition, name: `${name}.${column.name}` } });
  }
  const later: string[] = table.notValid ? [table.notValid] : [];
  if (table.replicaIdentity === "f") later.push(`ALTER TABLE ONLY ${full} REPLICA IDENTITY FULL;`);
  if (table.replicaIdentity === "n") later.push(`ALTER TABLE ONLY ${full} REPLICA IDENTITY NOTHING;`);
  if (table.replicaIdentity === "i" && table.replicaIndex) {
    later.push(`ALTER TABLE ONLY ${full} REPLICA IDENTITY USING INDEX ${quoteIdentifier(table.replicaIndex)};`);
  }
  if (later.length > 0) {
    const late = object("post-data", "replica-identity", later.join("\n"), ":late");
    objects.push({ ...late, after: table.beforeNotValid });
  }
  const security = [
    ...(table.rowSecurity ? [`ALTER TABLE ${full} ENABLE ROW LEVEL SECURITY;`] : []),
    ...(table.forced ? [`ALTER TABLE ONLY ${full} FORCE ROW LEVEL SECURITY;`] : []),
  ];
  if (security.length > 0) objects.push(object("post-data", "policy", security.join("\n"), ":rls"));
  return objects;
}

interface OwnCheck extends ObjectPart {
  /** As it stands in CREATE TABLE. */
  readonly line: string;
}

/** The checks that the table does not have from a parent. */
function ownChecks({ checks, bound }: TableRow, table: string): readonly OwnCheck[] {
  const own = checks.filter(({ local }) => local || bound !== null);
  return own.map(({ oid, name, definition }) => {
    const line = `CONSTRAINT ${quoteIdentifier(name)} ${definition}`;
    const key = keyOf("pg_constraint", String(oid));
    return { key, kind: "check", name, line, sql: `ALTER TABLE ${table} ADD ${line};` };
  });
}

function createTable(table: TableRow, checks: readonly OwnCheck[]): string {
  const isPartition = table.bound !== null;
  const columns = table.columns.filter((column) => column.local || isPartition);
  const lines = [
    ...(table.typeOf ? columns.flatMap(typedColumn) : columns.map((column) => columnLine(column, isPartition))),
    ...inheritedNotNulls(table),
    ...checks.map(({ line }) => line),
  ].map((line) => `    ${line}`);
  const body = table.typeOf
    ? ` OF ${table.typeOf}${lines.length > 0 ? ` (\n${lines.join(",\n")}\n)` : ""}`
    : ` (\n${lines.join(",\n")}\n)`;
  const parents = table.parents.length > 0 && !isPartition ? `\nINHERITS (${table.parents.join(", ")})` : "";
  const partitioned = table.partitionKey ? `\nPARTITION BY ${table.partitionKey}` : "";
  const method = table.accessMethod ? `\nUSING ${quoteIdentifier(table.accessMethod)}` : "";
  const options = table.options.length > 0 ? `\nWITH (${renderOptions(table.options)})` : "";
  const unlogged = table.persistence === "u" ? "UNLOGGED " : "";
  return `CREATE ${unlogged}TABLE ${quoteName(table.schema, table.name)}${body}${parents}${partitioned}${method}${options};`;
}

/** `name=value` as the catalog has it, with the value as a literal: some are not plain words. */
export function renderOptions(options: readonly string[]): string {
  return options
    .map((option) => {
      const at = option.indexOf("=");
      return `${option.slice(0, at)}=${quoteLiteral(option.slice(at + 1))}`;
    })
    .join(", ");
}

function columnLine(column: ColumnRow, isPartition: boolean): string {
  const parts = [quoteIdentifier(column.name), column.type];
  if (column.collation) parts.push(`COLLATE ${column.collation}`);
  if (column.generated)
    parts.push(`GENERATED ALWAYS AS (${column.expression}) ${column.generated === "v" ? "VIRTUAL" : "STORED"}`);
  const isIdentity = column.identity !== "" && !isPartition;
  if (column.notNull) parts.push(notNullOf(column));
  else if (isIdentity) parts.push("NOT NULL");
  return parts.join(" ");
}

function notNullOf(column: ColumnRow): string {
  const name = column.notNullName === null ? "" : `CONSTRAINT ${quoteIdentifier(column.notNullName)} `;
  return `${name}NOT NULL${column.notNullNoInherit ? " NO INHERIT" : ""}`;
}

/** A typed table says only what its type does not. */
function typedColumn(column: ColumnRow): readonly string[] {
  return column.notNull ? [`${quoteIdentifier(column.name)} WITH OPTIONS ${notNullOf(column)}`] : [];
}

/** Inherited columns that are NOT NULL here, which their parents need not be (PostgreSQL 18 knows them by name). */
function inheritedNotNulls(table: TableRow): readonly string[] {
  if (table.bound !== null || table.typeOf) return [];
  const inherited = table.columns.filter((column) => !column.local && column.notNull && column.notNullName !== null);
  return inherited.map((column) => {
    const noInherit = column.notNullNoInherit ? " NO INHERIT" : "";
    return `CONSTRAINT ${quoteIdentifier(column.notNullName ?? "")} NOT NULL ${quoteIdentifier(column.name)}${noInherit}`;
  });
}

/** What a column says besides its type, of tables and materialized views. */
export type ColumnOptions = Pick<ColumnRow, "name" | "storage" | "compression" | "statistics" | "options">;

/** Fields of `ColumnOptions` for jsonb_build_object(), of the column `a` with the type `y`. */
export const COLUMN_OPTIONS = `
  'name', a.attname, 'storage', case when a.attstorage <> y.typstorage then a.attstorage end,
  'compression', pg_catalog.to_jsonb(a)->>'attcompression', 'statistics', nullif(coalesce(a.attstattarget, -1), -1), 'options', a.attoptions`;

/** Options as one list, those of the TOAST table `t` of the relation `c` among them. */
export const RELATION_OPTIONS = `coalesce(c.reloptions, '{}') || coalesce((select pg_catalog.array_agg('toast.' || o) from pg_catalog.unnest(t.reloptions) o), '{}')`;

const STORAGE: Readonly<Record<string, string>> = { p: "PLAIN", e: "EXTERNAL", m: "MAIN", x: "EXTENDED" };
const COMPRESSION: Readonly<Record<string, string>> = { p: "pglz", l: "lz4" };

function columnAlterations(table: TableRow, full: string): readonly string[] {
  const isPartition = table.bound !== null;
  const relation = `TABLE ONLY ${full}`;
  return table.columns.flatMap((column) => {
    const inheritedNotNull = !column.local && column.notNull && column.notNullName === null && !isPartition;
    const notNull = `ALTER ${relation} ALTER COLUMN ${quoteIdentifier(column.name)} SET NOT NULL;`;
    return [...(inheritedNotNull ? [notNull] : []), ...renderColumnOptions(relation, column)];
  });
}

/** Statements that give a column its options; `relation` is what ALTER names. */
export function renderColumnOptions(relation: string, column: ColumnOptions): readonly string[] {
  const alter = (what: string) => `ALTER ${relation} ALTER COLUMN ${quoteIdentifier(column.name)} ${what};`;
  const compression = COMPRESSION[column.compression];
  return [
    ...(column.storage ? [alter(`SET STORAGE ${STORAGE[column.storage] ?? "EXTENDED"}`)] : []),
    ...(compression ? [alter(`SET COMPRESSION ${compression}`)] : []),
    ...(column.statistics !== null ? [alter(`SET STATISTICS ${column.statistics}`)] : []),
    ...(column.options?.length ? [alter(`SET (${renderOptions(column.options)})`)] : []),
  ];
}

/** Defaults of columns, each an object of its own: a default may need a function that needs the table. */
export async function captureDefaults(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select d.oid, n.nspname, c.relname, c.relkind, a.attname, pg_catalog.pg_get_expr(d.adbin, d.adrelid)
       from pg_catalog.pg_attrdef d join pg_catalog.pg_class c on c.oid = d.adrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       join pg_catalog.pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
      where a.attgenerated = '' and not a.attisdropped and c.relkind in ('r', 'p', 'v') and c.relpersistence <> 't' and ${USER_SCHEMAS} and ${isNoMember("pg_class", "c.oid")}
      order by n.nspname, c.relname, a.attnum`,
  );
  return rows.map(([oid, schema, table, kind, column, expression]) => ({
    key: keyOf("pg_attrdef", oid),
    definition: {
      section: "pre-data",
      kind: "default",
      schema: schema ?? "",
      name: `${table}.${column}`,
      ...(kind === "v" ? {} : { table: { schema: schema ?? "", name: table ?? "" } }),
      sql: `ALTER ${kind === "v" ? "VIEW" : "TABLE ONLY"} ${quoteName(schema ?? "", table ?? "")} ALTER COLUMN ${quoteIdentifier(column ?? "")} SET DEFAULT ${expression};`,
    },
  }));
}

/** Sequences, their owners, and identity columns with all options of their sequences. */
export async function captureSequences(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select c.oid, n.nspname, c.relname, pg_catalog.format_type(s.seqtypid, null), s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle,
            d.deptype, tn.nspname, t.relname, a.attname, a.attidentity, c.relpersistence
       from pg_catalog.pg_sequence s join pg_catalog.pg_class c on c.oid = s.seqrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       left join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.refobjsubid > 0 and d.deptype in ('a', 'i')
       left join pg_catalog.pg_class t on t.oid = d.refobjid left join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
       left join pg_catalog.pg_attribute a on a.attrelid = t.oid and a.attnum = d.refobjsubid
      where c.relpersistence <> 't' and ${USER_SCHEMAS} and ${isNoMember("pg_class", "c.oid")} order by n.nspname, c.relname`,
  );
  return rows.flatMap((row) => {
    const [oid, schema, name, type, start, increment, min, max, cache, cycle, dependency] = row;
    const full = quoteName(schema ?? "", name ?? "");
    const options = `START WITH ${start}\n    INCREMENT BY ${increment}\n    MINVALUE ${min}\n    MAXVALUE ${max}\n    CACHE ${cache}${cycle === "t" ? "\n    CYCLE" : ""}`;
    const owner = row[12] ? { schema: row[11] ?? "", name: row[12] } : undefined;
    const object = (kind: string, sql: string, part = ""): CapturedObject => ({
      key: keyOf("pg_class", oid, part),
      definition: {
        section: "pre-data",
        kind,
        schema: schema ?? "",
        name: name ?? "",
        ...(owner ? { table: owner } : {}),
        sql,
      },
    });
    const column = owner ? `${quoteName(owner.schema, owner.name)}` : "";
    if (dependency === "i") {
      const always = row[14] === "a" ? "ALWAYS" : "BY DEFAULT";
      const sql = `ALTER TABLE ${column} ALTER COLUMN ${quoteIdentifier(row[13] ?? "")} ADD GENERATED ${always} AS IDENTITY (\n    SEQUENCE NAME ${full}\n    ${options}\n);`;
      return [object("sequence", sql)];
    }
    const unlogged = row[15] === "u" ? "UNLOGGED " : "";
    const created = object("sequence", `CREATE ${unlogged}SEQUENCE ${full}\n    AS ${type}\n    ${options};`);
    if (!owner) return [created];
    return [
      created,
      object("sequence", `ALTER SEQUENCE ${full} OWNED BY ${column}.${quoteIdentifier(row[13] ?? "")};`, ":owned"),
    ];
  });
}
