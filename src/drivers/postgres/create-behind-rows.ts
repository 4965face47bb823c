import { type OperationalError, reasonIn } from "../../base/errors.ts";
import type { Definition } from "../driver.ts";
import { asNamed, nameOf, refusalOf } from "./create-definitions.ts";
import { isOfStatement, UNKNOWN_NAME } from "./postgres-errors.ts";
import { quoteLiteral, quoteName } from "./postgres-quote.ts";

/** Nothing in the database needs them. */
const DISPENSABLE = new Set(["refresh", "publication", "comment", "grant", "extension-dependency"]);

const FOREIGN_KEY_VIOLATION = "23503";
const DUPLICATES = new Set(["23505", "23P01"]);
const COLLIDE =
  "Remove the rows that collide from the source and back it up again, or choose other tables with --tables.";

/** Executes statements in one transaction, with an empty search_path or that of the role. */
export type Execute = (sql: string, path?: "own") => Promise<void>;

/**
 * Executes a definition when the rows are there: they are what is to be saved, and they were there with all that the server refuses now.
 * Gives the sentence for what is not there, or is not as it was. Fails for keys and unique indexes, by the name of their table.
 */
export async function createBehindRows(definition: Definition, execute: Execute): Promise<string | undefined> {
  try {
    // What a query that is stored with its meaning calls may look for things by the search_path of the application.
    await execute(definition.sql, definition.kind === "refresh" ? "own" : undefined);
    return undefined;
  } catch (error) {
    if (DISPENSABLE.has(definition.kind)) return refusalOf(definition, error);
    if (!isOfStatement(error)) throw error;
    if (canBeNotValid(definition, error)) return createNotValid(definition, { error, execute });
    if (mayLookAround(definition, error) && (await createUnderOwnPath(definition, execute))) return undefined;
    if (canBeMissing(definition, error)) return refusalOf(definition, error);
    throw asNamed(definition, error, DUPLICATES.has(error.code) ? COLLIDE : undefined);
  }
}

function canBeNotValid({ kind }: Definition, { code }: OperationalError): boolean {
  // The function of a check may look for what it finds by the search_path of the application alone.
  return kind === "check" || kind === "not-null" || (kind === "foreign-key" && code === FOREIGN_KEY_VIOLATION);
}

async function createNotValid(
  definition: Definition,
  { error, execute }: { readonly error: OperationalError; readonly execute: Execute },
): Promise<string> {
  const isNotNull = definition.kind === "not-null";
  // Nothing but a check can be NOT VALID there: it keeps further ones out.
  const sql = isNotNull
    ? definition.sql.replace(/SET NOT NULL;$/, "ADD NOT NULL;").replace(/NOT NULL;$/, "CHECK (VALUE IS NOT NULL);")
    : definition.sql;
  try {
    await execute(sql.replace(/;$/, " NOT VALID;"));
  } catch (second) {
    // Before PostgreSQL 18 no foreign key of a partitioned table can be NOT VALID.
    if (!isOfStatement(second)) throw second;
    return refusalOf(definition, error);
  }
  return `${nameOf(definition)} is restored as ${isNotNull ? "a check that is " : ""}NOT VALID: ${reasonIn(error)}`;
}

function mayLookAround({ kind }: Definition, { code }: OperationalError): boolean {
  return kind === "index" && UNKNOWN_NAME.has(code);
}

/**
 * Builds an index whose function finds what it calls by the search_path of the role; before PostgreSQL 17 the application's counted. Names
 * of the definition itself may not come to mean something else by it: false, with nothing done.
 */
async function createUnderOwnPath({ schema = "", name, sql }: Definition, execute: Execute): Promise<boolean> {
  const [definition = ""] = sql.split(";\n", 1);
  const place = `${quoteLiteral(quoteName(schema, name))}::pg_catalog.regclass`;
  const check = `begin if pg_catalog.pg_get_indexdef(${place}) || ';' <> ${quoteLiteral(`${definition.replace(/;$/, "")};`)} then
    raise 'another index' using errcode = 'ambiguous_function'; end if; end`;
  try {
    await execute(`${sql}\nset local search_path = '';\ndo ${quoteLiteral(check)}`, "own");
    return true;
  } catch (error) {
    if (!isOfStatement(error)) throw error;
    return false;
  }
}

/**
 * An index that only makes queries faster, its place in the index of a partitioned table, and the name or proof of a constraint that another
 * one brings: it may not be there, or have a name that the server chose.
 */
function canBeMissing({ kind, sql }: Definition, { code }: OperationalError): boolean {
  return (
    (kind === "index" && sql.startsWith("CREATE INDEX ")) ||
    (kind === "attach" && code === "not-found") ||
    (BROUGHT.test(sql) && (code === "42704" || code === "42710"))
  );
}

const BROUGHT = /^ALTER TABLE .+ (?:RENAME|VALIDATE) CONSTRAINT /;
