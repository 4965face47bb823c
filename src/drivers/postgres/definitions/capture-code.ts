import { quoteIdentifier, quoteName } from "../postgres-quote.ts";
import { IS_MADE_BY_PEOPLE } from "../postgres-triggers.ts";
import {
  type CapturedObject,
  type CatalogQuery,
  isNoMember,
  keyOf,
  parseJson,
  USER_SCHEMAS,
} from "./captured-object.ts";
import {
  COLUMN_OPTIONS,
  type ColumnOptions,
  parseArray,
  RELATION_OPTIONS,
  renderColumnOptions,
  renderOptions,
} from "./capture-tables.ts";

/** Functions and procedures in languages that an ordinary owner may use. */
export async function captureFunctions(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select p.oid, n.nspname, p.proname, pg_catalog.pg_get_functiondef(p.oid), p.prokind
       from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace join pg_catalog.pg_language l on l.oid = p.prolang
      where p.prokind in ('f', 'p', 'w') and l.lanpltrusted and ${USER_SCHEMAS} and ${isNoMember("pg_proc", "p.oid")}
      order by n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)`,
  );
  return rows.map(([oid, schema, name, definition, kind]) => ({
    key: keyOf("pg_proc", oid),
    definition: {
      section: "pre-data",
      kind: kind === "p" ? "procedure" : "function",
      schema: schema ?? "",
      name: name ?? "",
      sql: `${(definition ?? "").trimEnd()};`,
    },
  }));
}

/** What a final function does to the state; said always, as the default depends on the kind. */
const MODIFIES = (column: string) =>
  `case ${column} when 'r' then 'READ_ONLY' when 's' then 'SHAREABLE' else 'READ_WRITE' end`;

/** Aggregates of every kind. */
export async function captureAggregates(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select p.oid, n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid),
            'SFUNC = ' || a.aggtransfn::pg_catalog.text || ', STYPE = ' || pg_catalog.format_type(a.aggtranstype, null) ||
            case when a.aggtransspace <> 0 then ', SSPACE = ' || a.aggtransspace else '' end ||
            case when a.aggfinalfn::pg_catalog.oid <> 0 then ', FINALFUNC = ' || a.aggfinalfn::pg_catalog.text || case when a.aggfinalextra then ', FINALFUNC_EXTRA' else '' end else '' end ||
            case when a.aggfinalfn::pg_catalog.oid <> 0 then ', FINALFUNC_MODIFY = ' || ${MODIFIES("a.aggfinalmodify")} else '' end ||
            case when a.aggcombinefn::pg_catalog.oid <> 0 then ', COMBINEFUNC = ' || a.aggcombinefn::pg_catalog.text else '' end ||
            case when a.aggserialfn::pg_catalog.oid <> 0 then ', SERIALFUNC = ' || a.aggserialfn::pg_catalog.text else '' end ||
            case when a.aggdeserialfn::pg_catalog.oid <> 0 then ', DESERIALFUNC = ' || a.aggdeserialfn::pg_catalog.text else '' end ||
            case when a.agginitval is not null then ', INITCOND = ' || pg_catalog.quote_literal(a.agginitval) else '' end ||
            case when a.aggmtransfn::pg_catalog.oid <> 0 then
              ', MSFUNC = ' || a.aggmtransfn::pg_catalog.text || ', MINVFUNC = ' || a.aggminvtransfn::pg_catalog.text || ', MSTYPE = ' || pg_catalog.format_type(a.aggmtranstype, null) ||
              case when a.aggmtransspace <> 0 then ', MSSPACE = ' || a.aggmtransspace else '' end ||
              case when a.aggmfinalfn::pg_catalog.oid <> 0 then ', MFINALFUNC = ' || a.aggmfinalfn::pg_catalog.text || case when a.aggmfinalextra then ', MFINALFUNC_EXTRA' else '' end ||
                ', MFINALFUNC_MODIFY = ' || ${MODIFIES("a.aggmfinalmodify")} else '' end ||
              case when a.aggminitval is not null then ', MINITCOND = ' || pg_catalog.quote_literal(a.aggminitval) else '' end else '' end ||
            case when a.aggsortop <> 0 then (select ', SORTOP = OPERATOR(' || pg_catalog.quote_ident(m.nspname) || '.' || o.oprname || ')'
                   from pg_catalog.pg_operator o join pg_catalog.pg_namespace m on m.oid = o.oprnamespace where o.oid = a.aggsortop) else '' end ||
            case a.aggkind when 'h' then ', HYPOTHETICAL' else '' end ||
            case p.proparallel when 's' then ', PARALLEL = safe' when 'r' then ', PARALLEL = restricted' else '' end
       from pg_catalog.pg_aggregate a join pg_catalog.pg_proc p on p.oid = a.aggfnoid join pg_catalog.pg_namespace n on n.oid = p.pronamespace
      where ${USER_SCHEMAS} and ${isNoMember("pg_proc", "p.oid")}
      order by n.nspname, p.proname`,
  );
  return rows.map(([oid, schema, name, args, options]) => ({
    key: keyOf("pg_proc", oid),
    definition: {
      section: "pre-data",
      kind: "aggregate",
      schema: schema ?? "",
      name: name ?? "",
      sql: `CREATE AGGREGATE ${quoteName(schema ?? "", name ?? "")}(${args || "*"}) (${options});`,
    },
  }));
}

/** A column of a view as it stands where what the view reads is not there yet. */
const NO_VALUE = `'NULL::' || pg_catalog.format_type(a.atttypid, a.atttypmod)
  || case when a.attcollation <> y.typcollation then ' COLLATE ' || a.attcollation::pg_catalog.regcollation::pg_catalog.text else '' end
  || ' AS ' || pg_catalog.quote_ident(a.attname)`;

/** Views and materialized views; the latter without rows, which their refresh brings when the tables have theirs. */
export async function captureViews(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select c.oid, n.nspname, c.relname, c.relkind, pg_catalog.pg_get_viewdef(c.oid), ${RELATION_OPTIONS}, c.relispopulated,
            (select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(${COLUMN_OPTIONS}) order by a.attnum)
               from pg_catalog.pg_attribute a join pg_catalog.pg_type y on y.oid = a.atttypid where a.attrelid = c.oid and a.attnum > 0 and c.relkind = 'm'),
            case when c.relkind = 'v' then (select pg_catalog.string_agg(${NO_VALUE}, ', ' order by a.attnum)
               from pg_catalog.pg_attribute a join pg_catalog.pg_type y on y.oid = a.atttypid where a.attrelid = c.oid and a.attnum > 0) end,
            (select r.oid from pg_catalog.pg_rewrite r where r.ev_class = c.oid and r.rulename = '_RETURN')
       from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace left join pg_catalog.pg_class t on t.oid = c.reltoastrelid
      where c.relkind in ('v', 'm') and c.relpersistence <> 't' and ${USER_SCHEMAS} and ${isNoMember("pg_class", "c.oid")} order by n.nspname, c.relname`,
  );
  return rows.flatMap(([oid, schema, name, kind, definition, reloptions, populated, columns, noValues, rule]) => {
    const options = parseArray(reloptions);
    const withOptions = options.length > 0 ? ` WITH (${renderOptions(options)})` : "";
    const full = quoteName(schema ?? "", name ?? "");
    const body = (definition ?? "").trim().replace(/;$/, "");
    const object = (section: "pre-data" | "post-data", what: string, sql: string, part = ""): CapturedObject => ({
      key: keyOf("pg_class", oid, part),
      definition: { section, kind: what, schema: schema ?? "", name: name ?? "", sql },
    });
    if (kind === "v") {
      const sql = `VIEW ${full}${withOptions} AS\n ${body};`;
      const part = {
        key: keyOf("pg_rewrite", rule),
        kind: "view" as const,
        name: name ?? "",
        sql: `CREATE OR REPLACE ${sql}`,
      };
      const sqlWith = () => `CREATE VIEW ${full} AS\n SELECT ${noValues ?? ""};`;
      return [{ ...object("pre-data", "view", `CREATE ${sql}`), parts: [part], sqlWith }];
    }
    const created = object(
      "pre-data",
      "matview",
      `CREATE MATERIALIZED VIEW ${full}${withOptions} AS\n ${body}\n  WITH NO DATA;`,
    );
    const alterations = parseJson<readonly ColumnOptions[]>(columns, []).flatMap((column) =>
      renderColumnOptions(`MATERIALIZED VIEW ${full}`, column),
    );
    const refresh = `REFRESH MATERIALIZED VIEW ${full};`;
    return [
      created,
      ...(alterations.length > 0 ? [object("pre-data", "matview", alterations.join("\n"), ":columns")] : []),
      ...(populated === "t" ? [object("post-data", "refresh", refresh, ":refresh")] : []),
    ];
  });
}

/** Triggers that people made, with their state; those of partitions come with their parents'. */
export async function captureTriggers(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select g.oid, n.nspname, c.relname, g.tgname, pg_catalog.pg_get_triggerdef(g.oid), g.tgenabled, g.tgparentid <> 0, p.tgenabled,
            (with recursive above(oid) as (
               select g.tgparentid where g.tgparentid <> 0 union all
               select a.tgparentid from above join pg_catalog.pg_trigger a on a.oid = above.oid where a.tgparentid <> 0)
             select pg_catalog.jsonb_agg('pg_trigger:' || oid) from above)
       from pg_catalog.pg_trigger g join pg_catalog.pg_class c on c.oid = g.tgrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       left join pg_catalog.pg_trigger p on p.oid = g.tgparentid
      where ${IS_MADE_BY_PEOPLE} and ${USER_SCHEMAS} and ${isNoMember("pg_class", "c.oid")} order by n.nspname, c.relname, g.tgname`,
  );
  const verbs: Readonly<Record<string, string>> = {
    D: "DISABLE",
    R: "ENABLE REPLICA",
    A: "ENABLE ALWAYS",
    O: "ENABLE",
  };
  return rows.flatMap(([oid, schema, table, name, definition, enabled, isClone, parentEnabled, above]) => {
    const full = quoteName(schema ?? "", table ?? "");
    const state = `ALTER TABLE ${full} ${verbs[enabled ?? "O"]} TRIGGER ${quoteIdentifier(name ?? "")};`;
    const statements =
      isClone === "t"
        ? enabled === parentEnabled
          ? []
          : [state]
        : [`${definition};`, ...(enabled === "O" ? [] : [state])];
    if (statements.length === 0) return [];
    const self = { schema: schema ?? "", name: table ?? "" };
    const definitionOf = {
      section: "post-data" as const,
      kind: "trigger",
      schema: self.schema,
      name: name ?? "",
      table: self,
    };
    return [
      {
        key: keyOf("pg_trigger", oid),
        // The trigger right above is no object where it has the state of the one above it.
        after: parseJson(above, []),
        definition: { ...definitionOf, sql: statements.join("\n") },
      },
    ];
  });
}

/** Rules but for those that make views, with their state. */
export async function captureRules(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select r.oid, n.nspname, c.relname, r.rulename, pg_catalog.pg_get_ruledef(r.oid), r.ev_enabled, c.relkind
       from pg_catalog.pg_rewrite r join pg_catalog.pg_class c on c.oid = r.ev_class join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where r.rulename <> '_RETURN' and ${USER_SCHEMAS} and ${isNoMember("pg_class", "c.oid")} order by n.nspname, c.relname, r.rulename`,
  );
  const verbs: Readonly<Record<string, string>> = { D: "DISABLE", R: "ENABLE REPLICA", A: "ENABLE ALWAYS" };
  return rows.map(([oid, schema, table, name, definition, enabled, kind]) => {
    const self = { schema: schema ?? "", name: table ?? "" };
    const verb = verbs[enabled ?? ""];
    const state = verb
      ? `\nALTER TABLE ${quoteName(self.schema, self.name)} ${verb} RULE ${quoteIdentifier(name ?? "")};`
      : "";
    return {
      key: keyOf("pg_rewrite", oid),
      definition: {
        section: "post-data",
        kind: "rule",
        schema: self.schema,
        name: name ?? "",
        ...(kind === "v" ? {} : { table: self }),
        sql: `${(definition ?? "").trimEnd().replace(/;?$/, ";")}${state}`,
      },
    };
  });
}

/** Row-level security policies. Roles that a target lacks make the statement fail there, by name. */
export async function capturePolicies(query: CatalogQuery): Promise<readonly CapturedObject[]> {
  const rows = await query(
    `select p.oid, n.nspname, c.relname, p.polname, p.polpermissive, p.polcmd,
            case when p.polroles = '{0}' then 'PUBLIC' else
              (select pg_catalog.string_agg(pg_catalog.quote_ident(r.rolname), ', ' order by r.rolname) from pg_catalog.pg_roles r where r.oid = any (p.polroles)) end,
            pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)
       from pg_catalog.pg_policy p join pg_catalog.pg_class c on c.oid = p.polrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where ${USER_SCHEMAS} and ${isNoMember("pg_class", "c.oid")} order by n.nspname, c.relname, p.polname`,
  );
  const commands: Readonly<Record<string, string>> = { r: "SELECT", a: "INSERT", w: "UPDATE", d: "DELETE", "*": "ALL" };
  return rows.map(([oid, schema, table, name, permissive, command, roles, using, check]) => {
    const self = { schema: schema ?? "", name: table ?? "" };
    const parts = [
      `CREATE POLICY ${quoteIdentifier(name ?? "")} ON ${quoteName(self.schema, self.name)}`,
      ...(permissive === "t" ? [] : ["AS RESTRICTIVE"]),
      `FOR ${commands[command ?? "*"]} TO ${roles}`,
      ...(using ? [`USING (${using})`] : []),
      ...(check ? [`WITH CHECK (${check})`] : []),
    ];
    const sql = `${parts.join(" ")};`;
    return {
      key: keyOf("pg_policy", oid),
      definition: { section: "post-data", kind: "policy", schema: self.schema, name: name ?? "", table: self, sql },
    };
  });
}
