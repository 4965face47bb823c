import { type CapturedDefinitions, readDefinitions } from "../../src/drivers/postgres/definitions/read-definitions.ts";
import { openPostgresClient } from "../../src/drivers/postgres/postgres-client.ts";
import { connectionOfUrl } from "./connection.ts";
import type { Content } from "./increments.ts";

const TABLES = `
  select c.oid::regclass::text, n.nspname || '.' || c.relname, string_agg(quote_ident(a.attname), ', ' order by a.attnum)
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
   where c.relkind = 'r' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
   group by c.oid, n.nspname, c.relname`;

interface Truth extends AsyncDisposable {
  /** Rows, by one plain COPY a table. */
  read(): Promise<Content>;
  /** What there is besides rows. */
  readDefinitions(): Promise<CapturedDefinitions>;
}

/** Reads a database as it is now, on a connection that stays open. */
export async function openTruth(url: string): Promise<Truth> {
  const { signal } = new AbortController();
  const options = { applicationName: "truth", stallTimeoutMs: 60_000, signal };
  const client = await openPostgresClient(connectionOfUrl(url), options);
  return {
    async read() {
      const content: Record<string, readonly string[]> = {};
      await client.begin("isolation level repeatable read read only");
      for (const [table, name, columns] of await client.query(TABLES)) {
        const parts: Buffer[] = [];
        const sql = `copy (select ${columns} from only ${table}) to stdout`;
        for await (const { bytes } of client.copyOut(sql, { batchBytes: 1 << 20, countMessages: true })) {
          parts.push(Buffer.from(bytes));
        }
        content[name ?? ""] = Buffer.concat(parts).toString("utf8").split("\n").slice(0, -1).sort();
      }
      await client.query("commit");
      return content;
    },
    async readDefinitions() {
      await client.begin("isolation level repeatable read read only", { search_path: "" });
      const { serverVersion } = client;
      const options = { serverVersion, excluded: new Set<string>() };
      const captured = await readDefinitions((sql, values) => client.query(sql, values), options);
      await client.query("commit");
      return captured;
    },
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  };
}
