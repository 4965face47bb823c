import { execFileSync } from "node:child_process";
import { chown, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Connection } from "../../src/drivers/driver.ts";
import { openPostgresClient } from "../../src/drivers/postgres/postgres-client.ts";
import { restoreSnapshot } from "../../src/usecases/restore-snapshot.ts";
import { connectionOfUrl } from "../support/connection.ts";
import { type PostgresServer, startPostgres } from "../support/postgres-server.ts";
import { inPlaceOptionsFor, snapshotOf } from "../support/restoring.ts";

const signal = new AbortController().signal;

function hasOpenssl(): boolean {
  try {
    execFileSync("openssl", ["version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** Makes a key and a certificate of its own for these names (`DNS:localhost`, `IP:127.0.0.1`). */
async function makeCertificate(folder: string, label: string, names: string): Promise<{ key: string; cert: string }> {
  const [key, cert] = [join(folder, `${label}.key`), join(folder, `${label}.crt`)];
  const kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
  execFileSync(
    "openssl",
    ["req", ...kind, "-subj", `/CN=${label}`, "-addext", `subjectAltName=${names}`, "-keyout", key, "-out", cert],
    { stdio: "ignore" },
  );
  return { key: await readFile(key, "utf8"), cert: await readFile(cert, "utf8") };
}

describe.skipIf(!hasOpenssl() && !process.env["CI"])("TLS to PostgreSQL", () => {
  let folder: string;
  let server: PostgresServer;
  let own: { key: string; cert: string };
  let numbered: { key: string; cert: string };
  let other: { key: string; cert: string };

  async function run(sql: string): Promise<void> {
    const client = new pg.Client({ connectionString: server.url });
    await client.connect();
    for (const statement of sql.split(";")) await client.query(statement);
    await client.end();
  }

  /** Gives the server this certificate; its owner must own the files. */
  async function serve({ key, cert }: { key: string; cert: string }): Promise<void> {
    const { uid, gid } = await stat(server.folder);
    for (const [name, text] of [
      ["server.key", key],
      ["server.crt", cert],
    ] as const) {
      await writeFile(join(server.folder, name), text, { mode: 0o600 });
      await chown(join(server.folder, name), uid, gid);
    }
    await run("alter system set ssl = on; select pg_reload_conf(); select pg_sleep(0.3)");
  }

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "rowkeep-test-"));
    server = await startPostgres(18);
    own = await makeCertificate(folder, "own", "DNS:localhost");
    numbered = await makeCertificate(folder, "numbered", "IP:127.0.0.1");
    other = await makeCertificate(folder, "other", "DNS:localhost");
  }, 60_000);

  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  /** Whether the session is encrypted, as the server says; or the code of the error. */
  async function connect(options: Partial<Connection>): Promise<string> {
    try {
      await using client = await openPostgresClient(
        { ...connectionOfUrl(server.url), ...options },
        { signal, stallTimeoutMs: 10_000, applicationName: "rowkeep test" },
      );
      const [row] = await client.query("select ssl from pg_stat_ssl where pid = pg_backend_pid()");
      return row?.[0] === "t" ? "encrypted" : "plain";
    } catch (error) {
      return (error as { code: string }).code;
    }
  }

  test("is refused when the server does not offer it, and never falls back to plain", async () => {
    await run("alter system set ssl = off; select pg_reload_conf(); select pg_sleep(0.3)");

    const outcomes = await Promise.all([
      connect({ tls: "verify-full" }),
      connect({ tls: "ca" }),
      connect({ tls: "insecure" }),
      connect({ tls: "off" }),
    ]);

    expect(outcomes).toEqual(["tls-refused", "tls-refused", "tls-refused", "plain"]);
  });

  test("verify-full wants a known authority and the name that was connected to", async () => {
    await serve(own);

    const outcomes = {
      right: await connect({ tls: "verify-full", host: "localhost", ca: own.cert }),
      unknownAuthority: await connect({ tls: "verify-full", host: "localhost" }),
      otherAuthority: await connect({ tls: "verify-full", host: "localhost", ca: other.cert }),
      otherName: await connect({ tls: "verify-full", host: "127.0.0.1", ca: own.cert }),
    };

    expect(outcomes).toEqual({
      right: "encrypted",
      unknownAuthority: "tls-refused",
      otherAuthority: "tls-refused",
      otherName: "tls-refused",
    });
  });

  test("verify-full knows an address that stands in the certificate", async () => {
    await serve(numbered);

    const outcomes = {
      address: await connect({ tls: "verify-full", host: "127.0.0.1", ca: numbered.cert }),
      name: await connect({ tls: "verify-full", host: "localhost", ca: numbered.cert }),
    };

    expect(outcomes).toEqual({ address: "encrypted", name: "tls-refused" });
  });

  test("ca wants the authority and no name, insecure wants neither, off is plain", async () => {
    await serve(own);

    const outcomes = {
      ca: await connect({ tls: "ca", host: "127.0.0.1", ca: own.cert }),
      otherCa: await connect({ tls: "ca", host: "127.0.0.1", ca: other.cert }),
      noCa: await connect({ tls: "ca", host: "127.0.0.1" }),
      insecure: await connect({ tls: "insecure", ca: other.cert }),
      off: await connect({ tls: "off" }),
    };

    expect(outcomes).toEqual({
      ca: "encrypted",
      otherCa: "tls-refused",
      noCa: "tls-refused",
      insecure: "encrypted",
      off: "plain",
    });
  });

  test("carries a backup and a restore", async () => {
    await serve(own);
    await run(
      "create table t (i int, a text); insert into t select i, repeat('x', i % 5000) from generate_series(1, 20000) i",
    );
    const connection: Connection = {
      ...connectionOfUrl(server.url),
      host: "localhost",
      tls: "verify-full",
      ca: own.cert,
    };

    await using snapshot = await snapshotOf(server.url, { connection });
    const result = await restoreSnapshot(inPlaceOptionsFor(server.url, snapshot.reader, { target: connection }));

    expect(result.tables).toEqual([{ schema: "public", name: "t", deleted: 20_000, inserted: 20_000 }]);
  });
});
