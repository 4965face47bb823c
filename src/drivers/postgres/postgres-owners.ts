import { OperationalError } from "../../base/errors.ts";
import type { OwnerFailure, OwnerRole } from "../creator.ts";
import type { ObjectOwner } from "../driver.ts";
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
      failures.push({ role, object, reason: error.message.slice(error.message.indexOf(": ") + 2) });
    }
  }
  return failures;
}
