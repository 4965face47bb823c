import { OperationalError, reasonIn } from "../../base/errors.ts";
import type { Definition } from "../driver.ts";
import type { PostgresClient } from "./postgres-client.ts";

/** What the server makes for superusers only; an index that needs one says so itself when it is built. */
const SUPERUSER_KINDS = new Set(["operator-family", "operator-class", "cast"]);

/** Since PostgreSQL 18 a child cannot take null where its parent does not. */
const INVALID_TABLE_DEFINITION = "42P16";

/** Executes definitions in the open transaction. Gives a sentence for each that the role may not make. */
export async function createDefinitions(
  client: PostgresClient,
  definitions: readonly Definition[],
): Promise<readonly string[]> {
  const warnings: string[] = [];
  for (const definition of definitions) {
    // A comment may be for what was refused.
    const isOptional =
      SUPERUSER_KINDS.has(definition.kind) ||
      definition.kind === "nullable" ||
      (warnings.length > 0 && definition.kind === "comment");
    if (!isOptional) {
      await client.query(definition.sql);
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
  return warnings;
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
