import { OperationalError } from "../../base/errors.ts";
import type { Definition } from "../driver.ts";
import { refusalOf } from "./create-definitions.ts";
import { reasonIn } from "./postgres-errors.ts";

/** Nothing in the database needs them. */
const DISPENSABLE = new Set(["refresh", "publication", "comment", "grant"]);

const FOREIGN_KEY_VIOLATION = "23503";
const DUPLICATES = new Set(["23505", "23P01"]);

/**
 * Errors that lie in the statement or the rows: functions and relations that are not found, values, violations, what a function raises;
 * not the line, the disk or the server. https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
const OF_STATEMENT = /^(not-found|denied|(0A|2[0-3]|2F|3[89]|3F|42|44|54|P0)\w{3})$/;

/** Executes statements in one transaction. */
type Execute = (sql: string) => Promise<void>;

/**
 * Executes a definition when the rows are there: they are what is to be saved, and they were there with all that the server refuses now.
 * Gives the sentence for what is not there, or is not as it was. Fails for keys and unique indexes, by the name of their table.
 */
export async function createBehindRows(definition: Definition, execute: Execute): Promise<string | undefined> {
  try {
    await execute(definition.sql);
    return undefined;
  } catch (error) {
    if (DISPENSABLE.has(definition.kind)) return refusalOf(definition, error);
    if (!isOfStatement(error)) throw error;
    if (canBeNotValid(definition, error)) return createNotValid(definition, { error, execute });
    throw asNamed(definition, error);
  }
}

function isOfStatement(error: unknown): error is OperationalError {
  return error instanceof OperationalError && OF_STATEMENT.test(error.code);
}

function canBeNotValid({ kind }: Definition, { code }: OperationalError): boolean {
  // The function of a check may look for what it finds by the search_path of the application alone.
  return kind === "check" || (kind === "foreign-key" && code === FOREIGN_KEY_VIOLATION);
}

async function createNotValid(
  definition: Definition,
  { error, execute }: { readonly error: OperationalError; readonly execute: Execute },
): Promise<string> {
  try {
    await execute(definition.sql.replace(/;$/, " NOT VALID;"));
  } catch (second) {
    // Before PostgreSQL 18 no foreign key of a partitioned table can be NOT VALID.
    if (!isOfStatement(second)) throw second;
    return refusalOf(definition, error);
  }
  return `${nameOf(definition)} is restored as NOT VALID: ${reasonIn(error)}`;
}

function asNamed(definition: Definition, error: OperationalError): OperationalError {
  const hint = DUPLICATES.has(error.code)
    ? "Remove the rows that collide from the source and back it up again, or choose other tables with --tables."
    : error.hint;
  const { code, cause } = error;
  return new OperationalError(`cannot create ${nameOf(definition)}: ${reasonIn(error)}`, {
    kind: "database",
    code,
    hint,
    cause,
  });
}

function nameOf({ kind, schema, name, table }: Definition): string {
  if (table) return `${kind} ${name} of ${table.schema}.${table.name}`;
  return `${kind} ${schema ? `${schema}.` : ""}${name}`;
}
