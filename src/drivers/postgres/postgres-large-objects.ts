import type { PostgresClient } from "./postgres-client.ts";

/**
 * Loads large objects from COPY rows of oid, offset and bytes, in the transaction that is open. They keep their oids;
 * one that is there already is replaced.
 */
export async function loadLargeObjects(client: PostgresClient, bytes: AsyncIterable<Uint8Array>): Promise<void> {
  await client.query(
    "create temporary table rowkeep_large_objects (loid oid, start bigint, bytes bytea) on commit drop",
  );
  await client.copyIn("copy pg_temp.rowkeep_large_objects from stdin", bytes);
  await client.query(
    `select pg_catalog.count(pg_catalog.lo_unlink(oid)) from pg_catalog.pg_largeobject_metadata
      where oid in (select loid from pg_temp.rowkeep_large_objects)`,
  );
  await client.query(
    "select pg_catalog.count(pg_catalog.lo_create(loid)) from (select distinct loid from pg_temp.rowkeep_large_objects) every",
  );
  await client.query(
    `select pg_catalog.count(put) from (select pg_catalog.lo_put(loid, start, bytes)::text as put
       from pg_temp.rowkeep_large_objects where bytes <> '' offset 0) every`,
  );
}
