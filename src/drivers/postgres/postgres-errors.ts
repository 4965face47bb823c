import { codeOf, messageOf, OperationalError } from "../../base/errors.ts";
import type { Connection, TableName } from "../driver.ts";

interface Known {
  readonly code: string;
  readonly reason?: string;
  readonly hint?: string;
}

/** SQLSTATEs of text that cannot be converted between two encodings. */
const UNCONVERTIBLE: Known = {
  code: "encoding",
  hint: "Look for names, comments and definitions with characters that are not in both encodings, and change them.",
};

const NO_PARTITION: Known = {
  code: "23514",
  hint: "Some rows lie outside the partitions there: make one that takes them, or a default one.",
};

const STOPPED = { code: "server-stopped", hint: "Look at the server's log for the reason, then run it again." };

/** What the server's SQLSTATEs mean to a backup. https://www.postgresql.org/docs/current/errcodes-appendix.html */
const BY_STATE: Readonly<Record<string, Known>> = {
  "28P01": {
    code: "wrong-password",
    reason: "the password is wrong",
    hint: "Check the user and the password of the job's source.",
  },
  "28000": { code: "login-refused", hint: "Check the user, and whether the server's pg_hba.conf admits this machine." },
  "3D000": { code: "missing-database", reason: "the database does not exist", hint: "Check the name of the database." },
  "42501": { code: "denied", hint: "Grant the missing right to the login, or use another login." },
  "42P01": { code: "not-found" },
  "3F000": { code: "not-found" },
  "25006": {
    code: "read-only",
    hint: "Turn default_transaction_read_only off for this login, if rows may be written here.",
  },
  "53300": { code: "too-many-connections", hint: "Lower the job's parallel, or raise max_connections." },
  "53100": { code: "server-disk-full", hint: "Free space on the server's disk." },
  "53200": {
    code: "server-out-of-memory",
    hint: "With thousands of tables, raise max_locks_per_transaction on the server.",
  },
  "55P03": {
    code: "lock-timeout",
    hint: "Another session holds a lock; run it again when no schema migration or long transaction is under way.",
  },
  "40P01": { code: "deadlock", hint: "Run it again." },
  "40001": {
    code: "standby-conflict",
    hint: "On a replica raise max_standby_streaming_delay or set hot_standby_feedback, then run it again.",
  },
  "22P05": UNCONVERTIBLE,
  "22021": UNCONVERTIBLE,
  "23502": {
    code: "23502",
    hint: "The rows hold NULL where none may be today: drop the NOT NULL where they are restored.",
  },
  "23505": {
    code: "23505",
    hint: "A row there has the same unique value as one that is restored: change or remove it there, or restore it too.",
  },
  "23514": {
    code: "23514",
    hint: "The rows violate a check of today: make it NOT VALID where they are restored, as it cannot be proven for them.",
  },
  "25P03": { code: "idle-timeout", hint: "Raise idle_in_transaction_session_timeout for this login." },
  "57014": { code: "canceled" },
  "57P01": { ...STOPPED, reason: "the server ended the connection" },
  "57P02": { ...STOPPED, reason: "the server crashed" },
  "57P03": { code: "server-starting", reason: "the server is starting or stopping", hint: "Try again in a moment." },
};

const LOST: Known = {
  code: "connection-lost",
  reason: "the connection was cut",
  hint: "Check the network and the server's log, then run it again.",
};

/** What errors of the socket and of TLS mean. */
const BY_CODE: Readonly<Record<string, Known>> = {
  ECONNREFUSED: {
    code: "unreachable",
    reason: "nothing listens there",
    hint: "Check host and port, and whether the server runs.",
  },
  ENOTFOUND: { code: "unreachable", reason: "the host name is unknown", hint: "Check the host name." },
  EAI_AGAIN: { code: "unreachable", reason: "the host name cannot be looked up now", hint: "Check the network." },
  ETIMEDOUT: { code: "unreachable", reason: "it does not answer", hint: "Check host, port and firewalls." },
  EHOSTUNREACH: { code: "unreachable", reason: "there is no route to it", hint: "Check the network." },
  ENETUNREACH: { code: "unreachable", reason: "there is no route to it", hint: "Check the network." },
  ENOENT: { code: "unreachable", reason: "its socket does not exist", hint: "Check the socket's folder and the port." },
  ECONNRESET: LOST,
  EPIPE: LOST,
  stalled: { code: "stalled", hint: "Check the network between this machine and the server." },
  ERR_TLS_CERT_ALTNAME_INVALID: {
    code: "tls-refused",
    reason: "its certificate is for another name",
    hint: "Connect by the name in the certificate, or set tls: ca.",
  },
};

const TLS_CODES = /^(DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_|CERT_|ERR_SSL_|ERR_TLS_)/;

/** The server's complaint about a value that is too long for text; COPY in binary can still carry it. */
const TOO_LARGE =
  /^(invalid memory alloc request size|out of memory|string buffer exceeds maximum|cannot enlarge string buffer)/;

/**
 * Makes the error of kind `database` for what the server or the network said while `action` was done.
 * DETAIL and CONTEXT are left out: they carry values of rows.
 */
export function databaseError(action: string, error: unknown, connection: Connection): OperationalError {
  if (error instanceof OperationalError) return error;
  const target = `${connection.database} at ${connection.host}:${connection.port}`;
  const known = explain(error);
  return new OperationalError(`cannot ${action} ${target}: ${known.reason ?? reasonOf(error)}`, {
    kind: "database",
    code: known.code,
    hint: known.hint,
    cause: withoutValues(error),
  });
}

/** Gives the error for rows of which some text has no equivalent in UTF-8; any other error as it is. */
export function asUnconvertible(error: unknown, { database }: Connection, table?: TableName): unknown {
  if (codeOf(error) !== UNCONVERTIBLE.code) return error;
  const what = table ? `${table.schema}.${table.name}` : "the rows";
  return new OperationalError(`cannot read ${what} of ${database}: some of its text has no equivalent in UTF-8`, {
    kind: "database",
    code: "unconvertible",
    hint: "Find it by convert_to(column, 'UTF8') for each column of text, and change it; or leave the table out.",
    cause: error,
  });
}

function explain(error: unknown): Known {
  const code = codeOf(error) ?? "";
  const message = messageOf(error);
  const { table, constraint } = error as { readonly table?: string; readonly constraint?: string };
  // Of a check the server tells the name, and what a function raises names no table.
  if (code === "23514" && table && !constraint) return NO_PARTITION;
  if (TOO_LARGE.test(message)) return { code: "value-too-large" };
  if (BY_STATE[code]) return BY_STATE[code];
  if (BY_CODE[code]) return BY_CODE[code];
  if (TLS_CODES.test(code)) {
    return {
      code: "tls-refused",
      hint: "Name the certificate authority in the job's source, or choose another tls mode.",
    };
  }
  if (/does not support SSL/.test(message)) {
    return {
      code: "tls-refused",
      reason: "the server does not offer TLS",
      hint: "Set tls: off if the network can be trusted.",
    };
  }
  if (/timeout expired/.test(message)) return BY_CODE["ETIMEDOUT"] ?? { code: "unreachable" };
  if (/^Connection terminated|not queryable|Client was closed/.test(message)) {
    return LOST;
  }
  // Lower case is for our own words, which no output hides: a server could send anything.
  return { code: /^[0-9A-Z_]+$/.test(code) ? code : "failed" };
}

/** First line of the server's message, without the values that some messages quote: `invalid input … : "…"`. */
function reasonOf(error: unknown): string {
  const [line = ""] = messageOf(error).split("\n");
  const quotesValue = /^(invalid input (syntax|value)|value too long|malformed|date\/time|.* out of range)/.test(line);
  return quotesValue ? line.replace(/:?\s*".*"/s, "") : line;
}

function withoutValues(error: unknown): ServerError {
  const code = codeOf(error);
  return new ServerError(`${code === undefined ? "" : `${code}: `}${reasonOf(error)}`, violatedBy(error));
}

/** A constraint that rows violate: of a table, or of a domain. */
export interface Violated {
  readonly schema: string;
  readonly table?: string | undefined;
  readonly domain?: string | undefined;
  /** Undefined: the NOT NULL of the domain. */
  readonly constraint?: string | undefined;
}

/** What the server said, without values of rows. */
class ServerError extends Error {
  readonly violated: Violated | undefined;

  constructor(message: string, violated: Violated | undefined) {
    super(message);
    this.name = "Error";
    this.violated = violated;
  }
}

/** Reads which constraint of a table or domain the server named in the error that `databaseError` made. */
export function violatedOf(error: unknown): Violated | undefined {
  return error instanceof OperationalError && error.cause instanceof ServerError ? error.cause.violated : undefined;
}

/** Whether a function may have said this of the values that it was given: what it raises itself, and data exceptions. */
export function isRaised(error: unknown): boolean {
  return error instanceof OperationalError && /^(P0|22|23|38)\w{3}$/.test(error.code);
}

/** Whether a constraint was violated, or a function of one raised an error itself. */
export function isOfConstraint(error: unknown): error is OperationalError {
  return error instanceof OperationalError && (violatedOf(error) !== undefined || /^(P0|38)/.test(error.code));
}

const NOT_NULL_VIOLATION = "23502";

/** https://www.postgresql.org/docs/current/protocol-error-fields.html */
function violatedBy(error: unknown): Violated | undefined {
  const { code, schema, table, dataType: domain, constraint } = error as Record<string, string | undefined>;
  const isNamed = constraint || (domain && code === NOT_NULL_VIOLATION);
  return schema && isNamed ? { schema, table, domain, constraint } : undefined;
}

/**
 * Errors that lie in the statement or the rows: functions and relations that are not found, values, violations, what a function raises;
 * not the line, the disk or the server. https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
const OF_STATEMENT = /^(not-found|denied|(0A|2[0-3]|2F|3[89]|3F|42|44|54|P0)\w{3})$/;

/** A relation, function, type or column that is not found. */
export const UNKNOWN_NAME: ReadonlySet<string> = new Set(["not-found", "42883", "42704", "42703"]);

export function isOfStatement(error: unknown): error is OperationalError {
  return error instanceof OperationalError && OF_STATEMENT.test(error.code);
}
