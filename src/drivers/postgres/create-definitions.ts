import { OperationalError, reasonIn } from "../../base/errors.ts";
import type { Definition } from "../driver.ts";
import { FunctionBodies } from "./function-bodies.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { isOfStatement, UNKNOWN_NAME } from "./postgres-errors.ts";

/** What the server makes for superusers only; an index that needs one says so itself when it is built. */
const SUPERUSER_KINDS = new Set(["operator-family", "operator-class", "cast"]);

/** Since PostgreSQL 18 a child cannot take null where its parent does not. */
const INVALID_TABLE_DEFINITION = "42P16";

/** What the server plans when it makes the table. */
const COMPUTES = / GENERATED ALWAYS AS \(|\nPARTITION BY /;

/**
 * Executes definitions in the open transaction, with an empty search path. Gives a sentence for each that the role may not make; fails for
 * any other by its name.
 */
export async function createDefinitions(
  client: PostgresClient,
  definitions: readonly Definition[],
): Promise<readonly string[]> {
  const warnings: string[] = [];
  const bodies = new FunctionBodies(client);
  for (const definition of definitions) {
    // A comment may be for what was refused.
    const isOptional =
      SUPERUSER_KINDS.has(definition.kind) ||
      definition.kind === "nullable" ||
      (warnings.length > 0 && definition.kind === "comment");
    if (!isOptional) {
      await create(client, definition, bodies).catch((error: unknown) => {
        throw isOfStatement(error) ? asNamed(definition, error, hintFor(definition, error)) : error;
      });
      continue;
    }
    try {
      await client.query(`savepoint optional;\n${definition.sql}\n;release savepoint optional`);
    } catch (error) {
      const isRefused =
        error instanceof OperationalError && (error.code === "denied" || error.code === INVALID_TABLE_DEFINITION);
      // A class whose family was refused fails because the family is not there.
      if (!isRefused && warnings.length === 0) throw error;
      warnings.push(refusalOf(definition, error));
      await client.query("rollback to savepoint optional; release savepoint optional");
    }
  }
  await bodies.show();
  return warnings;
}

async function create(client: PostgresClient, { kind, sql }: Definition, bodies: FunctionBodies): Promise<void> {
  if (kind !== "table" || !COMPUTES.test(sql)) {
    await client.query(sql);
    return;
  }
  try {
    await client.query(`savepoint computing;\n${sql}\n;release savepoint computing`);
  } catch (error) {
    if (!isOfStatement(error) || !UNKNOWN_NAME.has(error.code)) throw error;
    await client.query("rollback to savepoint computing; release savepoint computing");
    await bodies.hide();
    await client.query(sql);
  }
}

function hintFor({ kind, sql }: Definition, { code, hint }: OperationalError): string | undefined {
  if (kind !== "table" || !COMPUTES.test(sql) || !UNKNOWN_NAME.has(code)) return hint;
  return "Change in the source what its generated columns or its partition key call, which reads what is not there yet, and back it up again; or choose other tables with --tables.";
}

/** The error for a definition that the server refused. */
export function asNamed(
  definition: Definition,
  error: OperationalError,
  hint: string | undefined = error.hint,
): OperationalError {
  const { code, cause } = error;
  return new OperationalError(`cannot create ${nameOf(definition)}: ${reasonIn(error)}`, {
    kind: "database",
    code,
    hint,
    cause,
  });
}

export function nameOf({ kind, schema, name, table }: Definition): string {
  if (table && kind !== "table") return `${kind} ${name} of ${table.schema}.${table.name}`;
  return `${kind} ${schema ? `${schema}.` : ""}${name}`;
}

/** The sentence for a definition that the server refused; any other error goes on. */
export function refusalOf({ kind, schema, name }: Definition, error: unknown): string {
  if (!(error instanceof OperationalError) || error.kind !== "database") throw error;
  const reason = reasonIn(error);
  if (kind === "grant") return `rights on ${name} are not restored: ${reason}`;
  if (kind === "refresh") return `materialized view ${schema}.${name} is left without rows: ${reason}`;
  if (kind === "comment") return `the comment on ${name} is not restored: ${reason}`;
  return `${kind} ${schema ? `${schema}.` : ""}${name} is not restored: ${reason}`;
}
