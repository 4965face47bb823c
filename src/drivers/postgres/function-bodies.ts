import type { PostgresClient } from "./postgres-client.ts";

/**
 * Keeps the server from reading the bodies of SQL functions while tables are made. For a generated column or a partition key it puts them
 * in the place of their calls, and they may name tables that come later, or are found by the search path of the application.
 */
export class FunctionBodies {
  readonly #client: PostgresClient;
  readonly #hidden: string[] = [];

  constructor(client: PostgresClient) {
    this.#client = client;
  }

  /** Hides those that are there, in the open transaction, with an empty search path. */
  async hide(): Promise<void> {
    const found = (await this.#client.query(READABLE)).map(([routine]) => routine ?? "");
    await this.#alter(found, "SECURITY DEFINER");
    this.#hidden.push(...found);
  }

  async show(): Promise<void> {
    await this.#alter(this.#hidden, "SECURITY INVOKER");
  }

  async #alter(routines: readonly string[], what: string): Promise<void> {
    if (routines.length === 0) return;
    await this.#client.query(routines.map((routine) => `ALTER FUNCTION ${routine} ${what}`).join(";\n"));
  }
}

/** What a generated column calls is immutable. A body that was parsed when the function was made (PostgreSQL 14) names nothing that comes later. */
const READABLE = `
  select p.oid::pg_catalog.regprocedure::pg_catalog.text
    from pg_catalog.pg_proc p join pg_catalog.pg_language l on l.oid = p.prolang and l.lanname = 'sql'
   where p.oid >= 16384 and p.prokind = 'f' and p.provolatile = 'i' and not p.prosecdef and not p.proretset and p.proconfig is null
     and pg_catalog.to_jsonb(p)->>'prosqlbody' is null and pg_catalog.pg_get_userbyid(p.proowner) = current_user`;
