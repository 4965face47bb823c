import { execFileSync } from "node:child_process";

/** Executes a statement while this process waits: nothing that is under way gets further. */
export function executeMeanwhile(url: string, sql: string): void {
  const script = `import pg from "pg"; const client = new pg.Client({ connectionString: process.argv[1] });
    await client.connect(); await client.query(process.argv[2]); await client.end();`;
  execFileSync(process.execPath, ["--input-type=module", "-e", script, url, sql], {
    cwd: import.meta.dirname,
    timeout: 20_000,
  });
}
