import type { ServerIdentity } from "./driver.ts";

/** Whether two connections have reached the same database: that of one cluster, or as far as a login may know. */
export function isSameDatabase(one: ServerIdentity, other: ServerIdentity): boolean {
  if (one.databaseOid !== other.databaseOid) return false;
  if (one.systemIdentifier !== undefined && other.systemIdentifier !== undefined) {
    return one.systemIdentifier === other.systemIdentifier;
  }
  return one.database === other.database;
}

/** The same database of the same server, too: a replica that was promoted is another one. */
export function isSamePlace(one: ServerIdentity, other: ServerIdentity): boolean {
  return isSameDatabase(one, other) && one.host === other.host && one.port === other.port;
}
