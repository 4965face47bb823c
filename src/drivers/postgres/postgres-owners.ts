import { OperationalError, reasonIn } from "../../base/errors.ts";
import type { OwnerFailure, OwnerRole } from "../creator.ts";
import type { Definition, ObjectOwner } from "../driver.ts";
import { refusalOf } from "./create-definitions.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { quoteIdentifier } from "./postgres-quote.ts";

/** Looks roles up, and whether the connected role may give objects to them. */
export async function readOwnerRoles(client: PostgresClient, roles: readonly string[]): Promise<readonly OwnerRole[]> {
  // Since PostgreSQL 16 a member may be without the right to become the role, which ALTER … OWNER wants.
  const right = client.serverVersion >= 160000 ? "SET" : "MEMBER";
  const rows = await client.query(
    `select w.name, r.oid is not null, r.oid is not null and pg_catalog.pg_has_role(current_user, r.oid, '${right}')
       from pg_catalog.unnest($1::pg_catalog.text[]) with ordinality as w(name, place) left join pg_catalog.pg_roles r on r.rolname = w.name order by w.place`,
    [roles],
  );
  return rows.map(([role, exists, isAssignable]) => ({
    role: role ?? "",
    exists: exists === "t",
    isAssignable: isAssignable === "t",
  }));
}

/** Gives objects to their owners inside the open transaction; one that refuses stays where it is, and is told. */
export async function assignOwners(
  client: PostgresClient,
  owners: readonly ObjectOwner[],
): Promise<readonly OwnerFailure[]> {
  const failures: OwnerFailure[] = [];
  for (const { role, object } of owners) {
    try {
      await client.query(`savepoint owner; alter ${object} owner to ${quoteIdentifier(role)}; release savepoint owner`);
    } catch (error) {
      if (!(error instanceof OperationalError) || error.kind !== "database") throw error;
      await client.query("rollback to savepoint owner; release savepoint owner");
      failures.push({ role, object, reason: reasonIn(error) });
    }
  }
  return failures;
}

/**
 * Executes rights of owners inside the open transaction, each where its object belongs to that role now: on what belongs to another one they
 * would be a gift. Gives a sentence for each that is refused.
 */
export async function setOwnersRights(
  client: PostgresClient,
  rights: readonly Definition[],
): Promise<readonly string[]> {
  const warnings: string[] = [];
  // Without rights on its schema no object is found: the schemas, which are in none, come last.
  const isSchema = ({ schema }: Definition) => Number(schema === undefined);
  for (const definition of rights.toSorted((left, right) => isSchema(left) - isSchema(right))) {
    try {
      await client.query("savepoint rights");
      await setOwnerRights(client, definition);
    } catch (error) {
      warnings.push(refusalOf(definition, error));
      await client.query("rollback to savepoint rights");
    }
    await client.query("release savepoint rights");
  }
  return warnings;
}

async function setOwnerRights(client: PostgresClient, { owner, sql }: Definition): Promise<void> {
  const [, kind, name] = /^(\w+) (.*)$/s.exec(owner?.object ?? "") ?? [];
  const [row] = await client.query(OWNED_BY, [kind, name, owner?.role]);
  const [user, inherits] = row ?? [];
  if (!user || !owner) return;
  // Who may become the owner without having its rights would be told nothing, and nothing would be done.
  const become = (role: string) => (inherits === "t" ? "" : `set local role ${quoteIdentifier(role)};\n`);
  await client.query(`${become(owner.role)}${sql}\n${become(user)}`);
}

/** One row when the object $2 of kind $1 belongs to the role $3. */
const OWNED_BY = `
  select current_user, pg_catalog.pg_has_role(current_user, r.oid, 'USAGE') from pg_catalog.pg_roles r
   where r.rolname = $3 and r.oid = case
     when $1 = 'SCHEMA' then (select nspowner from pg_catalog.pg_namespace where oid = pg_catalog.to_regnamespace($2))
     when $1 in ('TABLE', 'SEQUENCE') then (select relowner from pg_catalog.pg_class where oid = pg_catalog.to_regclass($2))
     when $1 in ('FUNCTION', 'PROCEDURE') then (select proowner from pg_catalog.pg_proc where oid = pg_catalog.to_regprocedure($2))
     when $1 = 'TYPE' then (select typowner from pg_catalog.pg_type where oid = pg_catalog.to_regtype($2)) end`;
