import type { PostgresClient } from "./postgres-client.ts";

/** https://www.postgresql.org/docs/current/lo-interfaces.html#LO-OPEN */
const FOR_WRITING = 0x20000;

/**
 * Loads large objects from COPY rows of oid, offset and bytes, in the transaction that is open. They keep their oids; one that is there
 * already keeps its owner, rights and comment, which no snapshot holds, too.
 */
export async function loadLargeObjects(client: PostgresClient, bytes: AsyncIterable<Uint8Array>): Promise<void> {
  await client.query(
    "create temporary table rowkeep_large_objects (loid oid, start bigint, bytes bytea) on commit drop",
  );
  await client.copyIn("copy pg_temp.rowkeep_large_objects from stdin", bytes);
  await client.query(
    `select pg_catalog.count(case when pg_catalog.lo_truncate(fd, 0) = 0 then pg_catalog.lo_close(fd) end)
       from (select pg_catalog.lo_open(oid, ${FOR_WRITING}) as fd from pg_catalog.pg_largeobject_metadata
              where oid in (select loid from pg_temp.rowkeep_large_objects) offset 0) known`,
  );
  await client.query(
    `select pg_catalog.count(pg_catalog.lo_create(loid))
       from (select loid from pg_temp.rowkeep_large_objects except select oid from pg_catalog.pg_largeobject_metadata) missing`,
  );
  await client.query(
    `select pg_catalog.count(put) from (select pg_catalog.lo_put(loid, start, bytes)::text as put
       from pg_temp.rowkeep_large_objects where bytes <> '' offset 0) every`,
  );
}
