import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { messageOf, OperationalError } from "../base/errors.ts";
import type { Connection, TlsMode } from "../drivers/driver.ts";
import type { JobFile } from "./job-schema.ts";
import { keepSecret, resolveSecret, type SecretSurroundings } from "./secrets.ts";

const POSTGRES_PORT = 5432;
const TLS_MODES: readonly TlsMode[] = ["verify-full", "ca", "insecure", "off"];

/**
 * Resolves how to reach the source of a job. TLS is the job's own `tls`, never a meaning that a client gives to a URL:
 * by default `verify-full`, and `off` where the server is this machine.
 * `place` is the field of the job file that a failure names. Fails with kind `job`: `secret`, `invalid-url`, `not-available`.
 */
export async function connectionOf(
  source: JobFile["source"],
  surroundings: SecretSurroundings,
  place: "source" | "dr" = "source",
): Promise<Connection> {
  const resolved = async (text: string | undefined, field: string) =>
    text === undefined ? undefined : resolveSecret(text, `${place}.${field}`, surroundings);
  const ca = source.ca === undefined ? undefined : await readCa(resolve(surroundings.folder, source.ca));
  const url = await resolved(source.url, "url");
  if (url !== undefined) {
    const own = await resolved(source.password, "password");
    const connection = await connectionOfUrl(url, { ...surroundings, tls: source.tls, ca });
    return own === undefined ? connection : { ...connection, password: own };
  }
  if (source.engine !== "postgres") throw engineNotAvailable(source.engine ?? "nothing");
  const host = source.host ?? "localhost";
  const user =
    (await resolved(source.user, "user")) ?? surroundings.env["PGUSER"] ?? surroundings.env["USER"] ?? "postgres";
  const database = (await resolved(source.database, "database")) ?? user;
  const port = source.port ?? POSTGRES_PORT;
  const password =
    (await resolved(source.password, "password")) ??
    (await foundPassword({ host, port, user, database }, surroundings.env));
  return { engine: "postgres", host, port, user, password, database, tls: source.tls ?? defaultTls(host), ca };
}

export interface UrlSurroundings {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly tls?: TlsMode | undefined;
  readonly ca?: string | undefined;
}

/** Reads a `postgres://` URL. A password in it is kept out of every output from now on. */
export async function connectionOfUrl(text: string, { env, tls, ca }: UrlSurroundings): Promise<Connection> {
  const url = parseUrl(text);
  const scheme = url.protocol.replace(":", "");
  if (scheme !== "postgres" && scheme !== "postgresql") throw engineNotAvailable(scheme);
  const parameters = new Map(url.searchParams);
  const host = parameters.get("host") ?? (url.hostname === "" ? "localhost" : url.hostname.replace(/^\[(.*)\]$/, "$1"));
  const port = Number(parameters.get("port") ?? (url.port || POSTGRES_PORT));
  const user = decode(url.username) || env["PGUSER"] || env["USER"] || "postgres";
  const database = decode(url.pathname.slice(1)) || user;
  const urlTls = tlsOfParameters(parameters);
  for (const known of ["host", "port", "tls", "sslmode", "application_name"]) parameters.delete(known);
  const [unknown] = parameters.keys();
  if (unknown !== undefined) throw invalidUrl(`unknown parameter ${unknown}`);
  const password = decode(url.password) || (await foundPassword({ host, port, user, database }, env));
  if (password) keepSecret(password);
  return { engine: "postgres", host, port, user, password, database, tls: tls ?? urlTls ?? defaultTls(host), ca };
}

/** Fails with kind `job`, `invalid-url`. */
export function parseUrl(text: string): URL {
  try {
    // A URL without a host (`postgres:///shop?host=/run/postgresql`) is one of libpq's own.
    return new URL(text);
  } catch {
    throw invalidUrl("it is not a URL");
  }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalidUrl("a % in it is not followed by two hexadecimal digits");
  }
}

/** libpq's sslmode, where it has one clear meaning here. */
function tlsOfParameters(parameters: ReadonlyMap<string, string>): TlsMode | undefined {
  const own = parameters.get("tls");
  if (own !== undefined) {
    const mode = TLS_MODES.find((candidate) => candidate === own);
    if (!mode) throw invalidUrl(`tls must be ${TLS_MODES.join(", ")}`);
    return mode;
  }
  const sslmode = parameters.get("sslmode");
  if (sslmode === undefined) return undefined;
  const meaning: Readonly<Record<string, TlsMode>> = {
    disable: "off",
    require: "insecure",
    "verify-ca": "ca",
    "verify-full": "verify-full",
  };
  const mode = meaning[sslmode];
  if (!mode)
    throw invalidUrl(`sslmode=${sslmode} may end without encryption`, "Choose tls=verify-full, ca, insecure or off.");
  return mode;
}

/** Whether a connection to this host never leaves the machine. */
export function isLocalHost(host: string): boolean {
  return host.startsWith("/") || host === "localhost" || host === "::1" || host.startsWith("127.");
}

function defaultTls(host: string): TlsMode {
  return isLocalHost(host) ? "off" : "verify-full";
}

async function readCa(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new OperationalError(`cannot read the certificate authority ${path}: ${messageOf(cause)}`, {
      kind: "job",
      code: "unreadable",
      cause,
    });
  }
}

interface Account {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
}

/**
 * Finds a password where PostgreSQL's own tools look: PGPASSWORD, then the password file
 * (https://www.postgresql.org/docs/current/libpq-pgpass.html), which counts only when no other user can read it.
 */
async function foundPassword(
  account: Account,
  env: Readonly<Record<string, string | undefined>>,
): Promise<string | undefined> {
  const own = env["PGPASSWORD"];
  if (own) {
    keepSecret(own);
    return own;
  }
  const path = env["PGPASSFILE"] ?? join(env["HOME"] ?? "", ".pgpass");
  const lines = await readPasswordFile(path);
  for (const line of lines) {
    const [host, port, database, user, ...rest] = splitPasswordLine(line);
    const password = rest.join(":");
    const isSocket = account.host.startsWith("/");
    const matches =
      (host === "*" || host === account.host || (isSocket && host === "localhost")) &&
      (port === "*" || port === String(account.port)) &&
      (database === "*" || database === account.database) &&
      (user === "*" || user === account.user);
    if (!matches || password === "") continue;
    keepSecret(password);
    return password;
  }
  return undefined;
}

async function readPasswordFile(path: string): Promise<readonly string[]> {
  try {
    const { stat } = await import("node:fs/promises");
    const { mode } = await stat(path);
    if (process.platform !== "win32" && (mode & 0o077) !== 0) return [];
    return (await readFile(path, "utf8")).split(/\r?\n/).filter((line) => line !== "" && !line.startsWith("#"));
  } catch {
    return [];
  }
}

/** Fields are separated by colons; a backslash keeps the next character. */
function splitPasswordLine(line: string): string[] {
  const fields = [""];
  for (let at = 0; at < line.length; at += 1) {
    const char = line[at] as string;
    if (char === "\\" && at + 1 < line.length) {
      at += 1;
      fields.push((fields.pop() ?? "") + line[at]);
    } else if (char === ":" && fields.length < 5) {
      fields.push("");
    } else {
      fields.push((fields.pop() ?? "") + char);
    }
  }
  return fields;
}

function invalidUrl(
  reason: string,
  hint = "Write it as postgres://user:password@host:5432/database.",
): OperationalError {
  return new OperationalError(`cannot use the database's URL: ${reason}`, { kind: "job", code: "invalid-url", hint });
}

function engineNotAvailable(engine: string): OperationalError {
  return new OperationalError(`cannot use ${engine}: only postgres is available yet`, {
    kind: "job",
    code: "not-available",
    hint: "Use a postgres:// source.",
  });
}
