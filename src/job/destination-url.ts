import { isAbsolute, resolve } from "node:path";
import { OperationalError } from "../base/errors.ts";
import { nearestName } from "../base/nearest-name.ts";
import { SECRET_FIELDS } from "./destination-settings-of.ts";
import { destinationSchema, type JobDestination } from "./job-schema.ts";
import { isReference, keepSecret } from "./secrets.ts";

/** A destination as it is written into a job file. */
export type WrittenDestination = Readonly<Record<string, string | number | boolean>> & {
  readonly type: JobDestination["type"];
};

type Fields = Record<string, string | number | boolean>;

/** They tell who somebody is, not that it is them. */
const OPEN_FIELDS = new Set(["user", "accessKeyId"]);
const NUMBERS = new Set(["port"]);
const FLAGS = new Set(["pathStyle", "agent"]);
const PATHS = new Set(["keyFile", "ca"]);

/**
 * Reads a destination from a command line: a folder, or `s3://bucket/prefix?region=…`, `gs://bucket/prefix`,
 * `azure://container/prefix?account=…`, `sftp://user@host:22/path?hostKey=SHA256:…`, `ftp://` and `ftps://` (implicit TLS).
 * The query takes every other field of the job file. Other users can read a command line: what is secret must be a reference
 * (`${env:NAME}`, `file:path`, `cmd:command`). Relative paths are made absolute with `cwd`.
 * Fails with kind `usage`: `invalid-destination`, `secret-in-url`.
 */
export function parseDestinationUrl(text: string, cwd: string): WrittenDestination {
  const scheme = /^([a-zA-Z][a-zA-Z0-9+.-]*):\/\//.exec(text)?.[1]?.toLowerCase();
  if (scheme === undefined) return withAbsolutePaths({ type: "local", path: text }, cwd);
  if (scheme === "file") return { type: "local", path: decode(text.slice("file://".length), text) };
  const [address = "", ...query] = text.split("?");
  const parameters = parametersOf(query.join("?"), text);
  const fields: Fields = { ...placeOf(scheme, address, text), ...parameters };
  refuseSecrets(fields, text);
  for (const [name, value] of Object.entries(fields)) fields[name] = convert(name, value);
  return withAbsolutePaths(checked(fields, text), cwd);
}

/** A file at a destination, as export and import name one. */
export interface RemoteFile {
  readonly destination: WrittenDestination;
  /** Empty where the URL names a folder. */
  readonly key: string;
  /** The file as people read it. */
  readonly place: string;
}

/**
 * Reads the URL of one file: that of a destination, and behind its last slash the name of the file. Fails as `parseDestinationUrl`, also
 * for a name that no destination takes.
 */
export function parseFileUrl(text: string, cwd: string): RemoteFile {
  const [address = "", ...query] = text.split("?");
  const start = address.indexOf("://") + "://".length;
  const slash = address.indexOf("/", start) < 0 ? address.length : address.lastIndexOf("/");
  const key = decode(address.slice(slash + 1), text);
  if (!/^[0-9A-Za-z._-]*$/.test(key) || /^\.+$/.test(key)) {
    throw invalid(text, "the name of its file is not plain", "Use letters, digits, dots, hyphens and underscores.");
  }
  const folder = `${address.slice(0, slash)}/`;
  const destination = parseDestinationUrl([folder, ...query].join("?"), cwd);
  return { destination, key, place: `${shown(folder)}${key}` };
}

/** What stands before the question mark. */
function placeOf(scheme: string, address: string, text: string): Fields {
  const rest = address.slice(scheme.length + "://".length);
  const slash = rest.indexOf("/");
  const authority = slash < 0 ? rest : rest.slice(0, slash);
  const path = slash < 0 ? "" : decode(rest.slice(slash), text);
  const folder = path.replace(/^\/+|\/+$/g, "");
  const prefix = folder === "" ? {} : { prefix: folder };
  switch (scheme) {
    case "s3":
      return { type: "s3", bucket: authority, ...prefix };
    case "gs":
    case "gcs":
      return { type: "gcs", bucket: authority, ...prefix };
    case "azure":
      return { type: "azure", container: authority, ...prefix };
    case "sftp":
      return { type: "sftp", ...serverOf(authority, text), path: serverPath(path) };
    case "ftp":
      return { type: "ftp", ...serverOf(authority, text), path: serverPath(path) };
    case "ftps":
      return { type: "ftp", tls: "implicit", ...serverOf(authority, text), path: serverPath(path) };
    default:
      throw invalid(
        text,
        `${scheme} is no type of destination`,
        "Use a folder, s3://, gs://, azure://, sftp://, ftp:// or ftps://.",
      );
  }
}

/** `user:password@host:port`; the last @ ends the login. */
function serverOf(authority: string, text: string): Fields {
  const at = authority.lastIndexOf("@");
  const login = at < 0 ? "" : authority.slice(0, at);
  const colon = login.indexOf(":");
  const user = decode(colon < 0 ? login : login.slice(0, colon), text);
  const password = colon < 0 ? "" : decode(login.slice(colon + 1), text);
  const [, host = "", port] = /^(\[[^\]]*\]|[^:]*)(?::(\d{1,5}))?$/.exec(authority.slice(at + 1)) ?? [];
  if (host === "") throw invalid(text, "it names no host");
  return {
    host: host.replace(/^\[(.*)\]$/, "$1"),
    ...(port === undefined ? {} : { port }),
    ...(user === "" ? {} : { user }),
    ...(password === "" ? {} : { password }),
  };
}

/** `/~/backups` is relative to the login's home. */
function serverPath(path: string): string {
  const trimmed = path.replace(/(.)\/+$/, "$1");
  if (trimmed === "/~") return ".";
  return trimmed.startsWith("/~/") ? trimmed.slice(3) : trimmed || "/";
}

/** Unlike in a form a plus is a plus: fingerprints of host keys hold some. */
function parametersOf(query: string, text: string): Fields {
  const fields: Fields = {};
  for (const part of query.split("&").filter((one) => one !== "")) {
    const equals = part.indexOf("=");
    const name = decode(equals < 0 ? part : part.slice(0, equals), text);
    if (name === "type" || name in fields) throw invalid(text, `it says ${name} twice`);
    fields[name] = equals < 0 ? "true" : decode(part.slice(equals + 1), text);
  }
  return fields;
}

/** Whether a field of a destination holds a secret itself, and not a reference to one. */
export function isSecretValue(name: string, value: string | number | boolean): boolean {
  return SECRET_FIELDS.has(name) && !OPEN_FIELDS.has(name) && !isReference(String(value));
}

function refuseSecrets(fields: Fields, text: string): void {
  for (const [name, value] of Object.entries(fields)) {
    if (!isSecretValue(name, value)) continue;
    keepSecret(String(value));
    throw new OperationalError(
      `cannot use the destination ${shown(text)}: its ${name} stands in clear on the command line`,
      {
        kind: "usage",
        code: "secret-in-url",
        hint: `Write ${name}=\${env:NAME} or ${name}=file:path, in single quotes, and change the secret: others could read it.`,
      },
    );
  }
}

function convert(name: string, value: string | number | boolean): string | number | boolean {
  const text = String(value);
  if (NUMBERS.has(name)) return Number(text);
  if (FLAGS.has(name)) return text === "true" ? true : text === "false" ? false : text;
  return text;
}

/** Makes the paths of a destination absolute: those of a job file are relative to the file, a person's to where they are. */
export function withAbsolutePaths(destination: WrittenDestination, cwd: string): WrittenDestination {
  const fields: Fields = { ...destination };
  for (const [name, value] of Object.entries(destination)) {
    const text = String(value);
    if (PATHS.has(name) || (name === "path" && destination.type === "local")) fields[name] = absolute(text, cwd);
    if (SECRET_FIELDS.has(name) && typeof value === "string") fields[name] = absoluteReference(value, cwd);
  }
  return fields as unknown as WrittenDestination;
}

/** Makes the path of a reference to a secret file absolute. */
export function absoluteReference(text: string, cwd: string): string {
  return text.startsWith("file:") ? `file:${absolute(text.slice("file:".length), cwd)}` : text;
}

function absolute(path: string, cwd: string): string {
  return path.startsWith("~/") || isAbsolute(path) ? path : resolve(cwd, path);
}

function checked(fields: Fields, text: string): WrittenDestination {
  const result = destinationSchema.safeParse(fields);
  if (result.success) return fields as unknown as WrittenDestination;
  const [issue] = result.error.issues;
  if (issue?.code === "unrecognized_keys") {
    const [key = ""] = issue.keys;
    const near = nearestName(key, fieldsOf(String(fields["type"])));
    throw invalid(text, `${key} is no field of ${fields["type"]}`, near && `Did you mean ${near}?`);
  }
  const field = String(issue?.path[0] ?? "");
  if (field !== "" && fields[field] === undefined) throw invalid(text, `${field} is missing`, MISSING_HINTS[field]);
  throw invalid(text, `${field}: ${issue?.message ?? "it is wrong"}`);
}

const MISSING_HINTS: Readonly<Record<string, string>> = {
  hostKey:
    "Add ?hostKey=SHA256:…, as ssh-keyscan <host> | ssh-keygen -lf - prints it, once you know that it is the server's.",
  user: "Write user@host.",
};

/** The fields that a type of destination has. */
function fieldsOf(type: string): readonly string[] {
  const option = destinationSchema.options.find(({ shape }) => shape.type.value === type);
  return Object.keys(option?.shape ?? {});
}

function decode(text: string, whole: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalid(whole, "a % in it is not followed by two hexadecimal digits");
  }
}

/** Type and place without login and query, which may hold a secret: also a password with a slash or an @ in it. */
function shown(text: string): string {
  const [address = ""] = text.split("?");
  return address.replace(/^([^/]*:\/\/).*@/, "$1");
}

function invalid(text: string, reason: string, hint?: string): OperationalError {
  return new OperationalError(`cannot use the destination ${shown(text)}: ${reason}`, {
    kind: "usage",
    code: "invalid-destination",
    hint: hint ?? "See docs/destinations.md for how each type is written.",
  });
}
