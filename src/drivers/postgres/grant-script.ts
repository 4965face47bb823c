import { quoteIdentifier, quoteName } from "./postgres-quote.ts";
import type { TableName } from "../driver.ts";

export interface WantedRights {
  readonly database: string;
  /** The login that is to read. */
  readonly role: string;
  /** The wanted tables and their owners. */
  readonly tables: readonly (TableName & { readonly owner: string })[];
  readonly sequences: readonly TableName[];
  /** Every table is wanted, also those that will be created. */
  readonly isEverything: boolean;
  readonly hidesRows: boolean;
  readonly hasLargeObjects: boolean;
}

/** Renders the statements that let a login back a database up, and nothing else. */
export function renderGrants(wanted: WantedRights): string {
  const role = quoteIdentifier(wanted.role);
  const schemas = [...new Set([...wanted.tables, ...wanted.sequences].map(({ schema }) => schema))].sort();
  const lines = [
    `-- Rights of ${commentOf(wanted.role)} to back up ${commentOf(wanted.database)}: run in that database as its owner or a superuser.`,
    `-- CREATE ROLE ${role} LOGIN PASSWORD '…';`,
    `GRANT CONNECT ON DATABASE ${quoteIdentifier(wanted.database)} TO ${role};`,
    ...schemas.map((schema) => `GRANT USAGE ON SCHEMA ${quoteIdentifier(schema)} TO ${role};`),
    ...(wanted.isEverything ? grantsOnSchemas(wanted, schemas, role) : grantsOnTables(wanted, role)),
  ];
  if (wanted.hidesRows)
    lines.push(`ALTER ROLE ${role} BYPASSRLS; -- row security hides rows otherwise; needs a superuser`);
  if (wanted.hasLargeObjects) {
    lines.push(
      `SELECT format('GRANT SELECT ON LARGE OBJECT %s TO ${role.replaceAll("'", "''").replaceAll("%", "%%")}', oid) FROM pg_largeobject_metadata \\gexec`,
    );
  }
  lines.push(`-- ALTER ROLE ${role} CREATEDB; -- only for rowkeep verify --drill on this server`);
  return `${lines.join("\n")}\n`;
}

function grantsOnSchemas({ tables }: WantedRights, schemas: readonly string[], role: string): readonly string[] {
  return schemas.flatMap((schema) => {
    const name = quoteIdentifier(schema);
    const owners = [...new Set(tables.filter((table) => table.schema === schema).map(({ owner }) => owner))].sort();
    return [
      `GRANT SELECT ON ALL TABLES IN SCHEMA ${name} TO ${role};`,
      `GRANT SELECT ON ALL SEQUENCES IN SCHEMA ${name} TO ${role};`,
      ...owners.flatMap((owner) =>
        ["TABLES", "SEQUENCES"].map(
          (kind) =>
            `ALTER DEFAULT PRIVILEGES FOR ROLE ${quoteIdentifier(owner)} IN SCHEMA ${name} GRANT SELECT ON ${kind} TO ${role};`,
        ),
      ),
    ];
  });
}

function grantsOnTables({ tables, sequences }: WantedRights, role: string): readonly string[] {
  return [
    ...tables.map(({ schema, name }) => `GRANT SELECT ON TABLE ${quoteName(schema, name)} TO ${role};`),
    ...sequences.map(({ schema, name }) => `GRANT SELECT ON SEQUENCE ${quoteName(schema, name)} TO ${role};`),
  ];
}

/** A name may hold a line break, and what follows it would be no comment. */
function commentOf(name: string): string {
  return name.replace(/\s+/g, " ");
}
