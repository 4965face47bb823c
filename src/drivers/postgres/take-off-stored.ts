import { codeOf, OperationalError, reasonIn } from "../../base/errors.ts";
import type { Definition, TableName } from "../driver.ts";
import type { PostgresClient } from "./postgres-client.ts";
import { isRaised, type Violated, violatedOf } from "./postgres-errors.ts";
import { findCallingChecks, type HeldCheck, NOT_NULL, takeOffCheck } from "./take-off-check.ts";

/** Why rows did not come into a table, and what the definitions of the snapshot say. */
export interface Refusal {
  readonly error: OperationalError;
  readonly table: TableName;
  readonly stored: readonly Definition[];
}

/** Whether a check may have said this of rows. */
export function isRefusal(error: unknown): error is OperationalError {
  return error instanceof OperationalError && (violatedOf(error) !== undefined || isRaised(error));
}

/**
 * Takes the check off that refused rows, or all of the table that may have raised the error, as far as the snapshot has them too, in the
 * open transaction, with an empty search path. Gives what puts them on again. Fails with the error where there is nothing to take off, or
 * the login may not.
 */
export async function takeOffStored(
  client: PostgresClient,
  { error, table, stored }: Refusal,
): Promise<readonly Definition[]> {
  const violated = violatedOf(error);
  const suspects = violated ? [violated] : await findCallingChecks(client, table);
  const taken: Definition[] = [];
  for (const suspect of suspects) {
    const checks = await takeOffCheck(client, suspect, (check) => isStoredCheck(check, stored)).catch((second) => {
      // Why the rows did not come is what the person must read.
      throw codeOf(second) === "denied" ? withHint(error, table, notOwned(suspect)) : second;
    });
    taken.push(...checks);
  }
  if (taken.length === 0) {
    throw violated || suspects.length === 0 ? error : withHint(error, table, error.hint ?? raisedBy(suspects));
  }
  return taken;
}

function withHint(error: OperationalError, { schema, name }: TableName, hint: string): OperationalError {
  const { kind, code, cause } = error;
  return new OperationalError(`cannot restore ${schema}.${name}: ${reasonIn(error)}`, { kind, code, hint, cause });
}

function notOwned({ schema, table, domain }: Violated): string {
  const holder = table
    ? `table ${schema}.${table} and what it inherits from`
    : `domain ${schema}.${domain} and what it is made of`;
  return `Restore with a login that owns the ${holder}.`;
}

/** The checks that came later, or are not the snapshot's any more. */
function raisedBy(suspects: readonly Violated[]): string {
  const names = suspects.map(({ schema, table, domain, constraint }) =>
    table ? `${constraint} of ${schema}.${table}` : `${constraint} of domain ${schema}.${domain}`,
  );
  return `Look at the checks that call functions there, and make NOT VALID the one that raises it: ${names.join(", ")}.`;
}

/**
 * Whether a snapshot has rows with the same check: then they violate it since its function changed, or it never saw them, and not since it
 * came later. One that is NOT VALID is for rows that come from applications.
 */
function isStoredCheck({ schema, holder, isDomain, definition }: HeldCheck, stored: readonly Definition[]): boolean {
  if (definition.endsWith(" NOT VALID")) return true;
  return stored.some(({ kind, schema: of, name, table, sql }) => {
    const isOfHolder = isDomain
      ? kind === "domain" && of === schema && name === holder
      : table?.schema === schema && table.name === holder;
    return isOfHolder && (definition === NOT_NULL ? DOMAIN_NOT_NULL.test(sql) : sql.includes(definition));
  });
}

/** At the end of what stands before the checks. */
const DOMAIN_NOT_NULL = / NOT NULL(?:;| CONSTRAINT )/;
