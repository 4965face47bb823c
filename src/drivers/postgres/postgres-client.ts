import { once } from "node:events";
import { connect, type Socket } from "node:net";
import pg from "pg";
import { OperationalError } from "../../base/errors.ts";
import type { Connection } from "../driver.ts";
import { CopyOutQuery } from "./copy-out.ts";
import { CopySocket } from "./copy-socket.ts";
import { databaseError } from "./postgres-errors.ts";
import { quoteLiteral } from "./postgres-quote.ts";
import { watchSilence } from "./postgres-silence.ts";

export interface OpenClientOptions {
  /** What the server's administrators see in pg_stat_activity. */
  readonly applicationName: string;
  /** A COPY that moves no byte for so long, though it could, fails; and a statement when a new connection gets no answer either. */
  readonly stallTimeoutMs: number;
  /**
   * Nothing of a view or foreign table can be read (CVE-2024-7348): a table that was swapped for a view while it waits for its lock would run the
   * view's code. Where rows are restored, materialized views and checks may have to read them.
   */
  readonly refusesViews?: boolean | undefined;
  readonly signal: AbortSignal;
}

/** One row as the server printed it: raw strings, never values of a type parser (they lose digits and dates). */
export type RawRow = (string | null)[];

/**
 * One connection. An abort cancels the running statement on the server, closes the socket and rejects with the
 * signal's reason; the server then rolls back. Disposal closes the socket too, so what is not committed never is.
 */
export interface PostgresClient extends AsyncDisposable {
  readonly connection: Connection;
  /** `server_version_num`: 150018 is 15.18. */
  readonly serverVersion: number;
  /** A pooler stands between: session settings would leak to others, so only those inside a transaction are used. */
  readonly isPooled: boolean;
  /** How text travels: as UTF-8, or, where the server does not know what its bytes mean (SQL_ASCII), as it is. */
  readonly clientEncoding: "UTF8" | "SQL_ASCII";
  /** Nothing was heard yet of an end of this connection. */
  readonly isOpen: boolean;
  /** Opens a transaction with every setting pinned in it; `mode` is what follows BEGIN. Takes no snapshot yet. */
  begin(mode: string, settings?: Readonly<Record<string, string>>): Promise<void>;
  /** Fails with `not-utf8` where a value is not UTF-8: what it says could not be told from something else. */
  query(sql: string, values?: readonly unknown[]): Promise<RawRow[]>;
  /** The same with U+FFFD for what is not UTF-8: for what is only shown, or looked through by the caller. */
  queryLossy(sql: string, values?: readonly unknown[]): Promise<RawRow[]>;
  /** Runs statements without parameters, sent together; gives the rows of each. */
  queryAll(statements: readonly string[]): Promise<readonly (readonly RawRow[])[]>;
  /** Runs a statement and gives the number of rows in its command tag (0 where it has none). */
  execute(sql: string, values?: readonly unknown[]): Promise<number>;
  /** Streams `COPY … TO STDOUT`. */
  copyOut(sql: string, options: { readonly batchBytes: number; readonly countMessages: boolean }): CopyOutQuery;
  /** Feeds `COPY … FROM STDIN` with these bytes and gives the number of rows the server stored; `release` takes what is sent. */
  copyIn(sql: string, bytes: AsyncIterable<Uint8Array>, release?: (chunk: Uint8Array) => void): Promise<number>;
  /** Notices and warnings of the server since the last call. */
  takeNotices(): string[];
  /** Disposal that nobody waits for, not even the end of the process: the server takes a while to end a session. */
  leave(): void;
  /** Cancels what runs and closes the socket at once; nothing that is not committed survives. */
  destroy(): void;
}

const CANCEL_REQUEST_CODE = 80877102;

const RAW = { getTypeParser: () => (value: unknown) => value } as unknown as pg.CustomTypesConfig;

/** Session settings that make text in and out exact and independent of roles and databases (`pg_dump` pins the same). */
export const PINNED_SETTINGS: Readonly<Record<string, string>> = {
  client_encoding: "UTF8",
  datestyle: "ISO, YMD",
  intervalstyle: "postgres",
  timezone: "UTC",
  extra_float_digits: "3",
  bytea_output: "hex",
  lc_monetary: "C",
  xmloption: "content",
  standard_conforming_strings: "on",
  row_security: "off",
  // Off, it would read a NULL in an array as the text "NULL".
  array_nulls: "on",
};

/** An idle or slow moment of ours must not end the snapshot that everything is read from. */
const TIMEOUTS = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"];

/** Connects and pins the session. Fails with kind `database`. */
export async function openPostgresClient(connection: Connection, options: OpenClientOptions): Promise<PostgresClient> {
  options.signal.throwIfAborted();
  const client = new Client(connection, options);
  try {
    await client.connect();
    return client;
  } catch (error) {
    client.destroy();
    options.signal.throwIfAborted();
    throw databaseError("connect to", error, connection);
  }
}

class Client implements PostgresClient {
  readonly connection: Connection;
  serverVersion = 0;
  isPooled = false;
  clientEncoding: "UTF8" | "SQL_ASCII" = "UTF8";
  #pins: Readonly<Record<string, string>> = {};
  readonly #config: pg.ClientConfig;
  readonly #client: pg.Client;
  readonly #options: OpenClientOptions;
  readonly #onAbort = () => this.destroy();
  readonly #notices: string[] = [];
  /** New ones for each of thousands of small tables would be gigabytes before the collector sees a reason to come. */
  readonly #copyBuffers: Buffer[] = [];
  #running = 0;
  /** Settled when the last statement has ended, however it did. */
  #turn: Promise<unknown> = Promise.resolve();
  #copy: CopyOutQuery | undefined;
  /** The first error that arrived as an event: the reason why the next statement finds the connection closed. */
  #broken: unknown;

  constructor(connection: Connection, options: OpenClientOptions) {
    this.connection = connection;
    this.#options = options;
    this.#config = clientConfig(connection, options.applicationName);
    this.#client = new pg.Client(this.#config);
    this.#client.on("error", (error) => {
      this.#broken ??= error;
    });
    this.#client.on("notice", (notice) => {
      if (notice.message && this.#notices.length < 1000) this.#notices.push(notice.message);
    });
  }

  async connect(): Promise<void> {
    this.#options.signal.addEventListener("abort", this.#onAbort, { once: true });
    await this.#client.connect();
    const [row] = await this.query(
      `select pg_catalog.pg_backend_pid(), pg_catalog.current_setting('server_version_num'),
              pg_catalog.current_setting('restrict_nonsystem_relation_kind', true) is not null,
              pg_catalog.current_setting('server_encoding')`,
    );
    const { processID } = this.#client as unknown as { processID?: number | null };
    this.isPooled = row?.[0] !== String(processID);
    this.serverVersion = Number(row?.[1]);
    // The bytes of such a database need not be text of any one encoding: they are passed on as they are.
    if (row?.[3] === "SQL_ASCII") this.clientEncoding = "SQL_ASCII";
    const settings: Record<string, string> = { ...PINNED_SETTINGS, client_encoding: this.clientEncoding };
    for (const name of TIMEOUTS) settings[name] = "0";
    // Each of some forty statements about a large schema looks costly enough to be compiled first: a second for each, for nothing.
    settings["jit"] = "off";
    // It would write definitions in another way.
    settings["quote_all_identifiers"] = "off";
    // A restore's first connection waits outside a transaction while others load.
    if (this.serverVersion >= 140000) settings["idle_session_timeout"] = "0";
    if (this.serverVersion >= 170000) settings["transaction_timeout"] = "0";
    const refused = this.#options.refusesViews ? "view, foreign-table" : "";
    if (row?.[2] === "t") settings["restrict_nonsystem_relation_kind"] = refused;
    this.#pins = settings;
    if (!this.isPooled) await this.query(renderSettings("set", settings));
  }

  async begin(mode: string, settings: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.query(`begin ${mode}; ${renderSettings("set local", { ...this.#pins, ...settings })}`);
  }

  async query(sql: string, values?: readonly unknown[]): Promise<RawRow[]> {
    const rows = await this.queryLossy(sql, values);
    this.#refuseLoss(rows);
    return rows;
  }

  async queryLossy(sql: string, values?: readonly unknown[]): Promise<RawRow[]> {
    return (await this.#last(sql, values)).rows as RawRow[];
  }

  #refuseLoss(rows: readonly RawRow[]): void {
    if (this.clientEncoding === "UTF8" || !rows.some((row) => row.some(isLossy))) return;
    throw new OperationalError(`cannot read the catalogs of ${this.connection.database}: a name in them is not UTF-8`, {
      kind: "database",
      code: "not-utf8",
      hint: "Rename it: a database of encoding SQL_ASCII needs names in UTF-8.",
    });
  }

  async queryAll(statements: readonly string[]): Promise<readonly (readonly RawRow[])[]> {
    const results = (await this.#send(statements.join("; "))).map(({ rows }) => rows as RawRow[]);
    for (const rows of results) this.#refuseLoss(rows);
    return results;
  }

  async execute(sql: string, values?: readonly unknown[]): Promise<number> {
    return (await this.#last(sql, values)).rowCount ?? 0;
  }

  async #last(sql: string, values: readonly unknown[] | undefined): Promise<pg.QueryArrayResult> {
    return (await this.#send(sql, values)).at(-1) as pg.QueryArrayResult;
  }

  async #send(sql: string, values?: readonly unknown[]): Promise<readonly pg.QueryArrayResult[]> {
    return this.#guard(async () => {
      const config = { text: sql, rowMode: "array" as const, types: RAW };
      const result = await this.#inTurn(async () => {
        using _watch = this.#watchSilence();
        return await this.#client.query(values?.length ? { ...config, values: [...values] } : config);
      });
      return Array.isArray(result) ? (result as readonly pg.QueryArrayResult[]) : [result];
    });
  }

  #watchSilence(): Disposable {
    const onSilence = (silentMs: number) => {
      const seconds = Math.round(silentMs / 1000);
      const message = `no answer came for ${seconds} s, and none to a new connection either`;
      this.#broken ??= Object.assign(new Error(message), { code: "stalled" });
      this.destroy();
    };
    return watchSilence(this.#config, { afterMs: this.#options.stallTimeoutMs, onSilence });
  }

  /** Statements that are asked for at once run one after the other; the library would do that too, with a warning on stderr. */
  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined);
    return result;
  }

  copyOut(sql: string, options: { readonly batchBytes: number; readonly countMessages: boolean }): CopyOutQuery {
    const query = new CopyOutQuery(sql, {
      ...options,
      buffers: this.#copyBuffers,
      stallTimeoutMs: this.#options.stallTimeoutMs,
      translate: (error) => this.#translate(error),
      destroy: () => this.destroy(),
    });
    this.#client.query(query as unknown as pg.Submittable);
    this.#copy = query;
    return query;
  }

  async copyIn(sql: string, bytes: AsyncIterable<Uint8Array>, release?: (chunk: Uint8Array) => void): Promise<number> {
    return this.#guard(async () => {
      const { CopyInQuery } = await import("./copy-in.ts");
      const query = new CopyInQuery(sql, this.#options.stallTimeoutMs);
      this.#client.query(query as unknown as pg.Submittable);
      return query.feed(bytes, release);
    });
  }

  async #guard<T>(work: () => Promise<T>): Promise<T> {
    this.#options.signal.throwIfAborted();
    this.#running += 1;
    try {
      return await work();
    } catch (error) {
      throw this.#translate(error);
    } finally {
      this.#running -= 1;
    }
  }

  get isOpen(): boolean {
    return this.#broken === undefined && !socketOf(this.#client).destroyed;
  }

  get #busy(): boolean {
    return this.#running > 0 || (this.#copy !== undefined && !this.#copy.ended);
  }

  /** The reason of an abort before the broken socket that it caused; the server's last words before "not queryable". */
  #translate(error: unknown): unknown {
    if (this.#options.signal.aborted) return this.#options.signal.reason;
    const cause = this.#broken ?? error;
    return isPostgresFailure(error) ? databaseError("use", cause, this.connection) : error;
  }

  takeNotices(): string[] {
    return this.#notices.splice(0);
  }

  destroy(): void {
    this.#options.signal.removeEventListener("abort", this.#onAbort);
    if (socketOf(this.#client).destroyed) return;
    this.#cancel();
    socketOf(this.#client).destroy();
  }

  /**
   * A closed socket ends a statement only when the server next writes to it; a cancel request ends it now. It goes over
   * a connection of its own and is never encrypted (protocol, "Canceling Requests in Progress"): it holds no data.
   */
  #cancel(): void {
    const { processID, secretKey } = this.#client as unknown as {
      processID?: number | null;
      secretKey?: number | null;
    };
    if (!this.#busy || !processID || typeof secretKey !== "number" || this.isPooled) return;
    const request = Buffer.alloc(16);
    request.writeInt32BE(16, 0);
    request.writeInt32BE(CANCEL_REQUEST_CODE, 4);
    request.writeInt32BE(processID, 8);
    request.writeInt32BE(secretKey, 12);
    const { host, port } = this.connection;
    const messenger = host.startsWith("/") ? connect(`${host}/.s.PGSQL.${port}`) : connect(port, host);
    messenger.on("error", () => undefined);
    messenger.setTimeout(5000, () => messenger.destroy());
    messenger.end(request);
  }

  leave(): void {
    this[Symbol.asyncDispose]().then(undefined, () => undefined);
    socketOf(this.#client).unref();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#options.signal.removeEventListener("abort", this.#onAbort);
    const socket = socketOf(this.#client);
    if (socket.destroyed) return;
    if (this.#busy) {
      this.destroy();
      return;
    }
    const closed = once(socket, "close").catch(() => undefined);
    const timer = setTimeout(() => socket.destroy(), 2000).unref();
    this.#client.end().catch(() => undefined);
    await closed;
    clearTimeout(timer);
  }
}

/** Whether a text was read from bytes that are not UTF-8 (or held this character before). */
export function isLossy(text: string | null): boolean {
  return text?.includes("\ufffd") === true;
}

/** Errors of the server or the socket; anything else (a reader of an archive that failed) passes through untouched. */
function isPostgresFailure(error: unknown): boolean {
  if (error instanceof pg.DatabaseError) return true;
  const { code, syscall, message } = error as { code?: unknown; syscall?: unknown; message?: string };
  if (code === "stalled" || (typeof code === "string" && typeof syscall === "string")) return true;
  return /^(Connection terminated|Client (was closed|has encountered)|timeout expired)/.test(message ?? "");
}

function renderSettings(verb: string, settings: Readonly<Record<string, string>>): string {
  return Object.entries(settings)
    .map(([name, value]) => `${verb} ${name} = ${quoteLiteral(value)}`)
    .join("; ");
}

function socketOf(client: pg.Client): Socket {
  return (client as unknown as { connection: { stream: Socket } }).connection.stream;
}

function clientConfig(connection: Connection, applicationName: string): pg.ClientConfig {
  return {
    host: connection.host,
    port: connection.port,
    user: connection.user,
    // A function is asked only by a server that wants a password, and keeps `pg` from looking into PGPASSWORD and
    // .pgpass: whoever made the connection did that, and keeps what it found there out of every output.
    // Of an empty one it would say something about SASL.
    password: () => connection.password || missingPassword(connection),
    database: connection.database,
    application_name: applicationName,
    keepAlive: true,
    keepAliveInitialDelayMillis: 15_000,
    connectionTimeoutMillis: 20_000,
    ssl: sslOf(connection),
    ...(connection.tls === "off" ? { stream: (() => new CopySocket()) as NonNullable<pg.ClientConfig["stream"]> } : {}),
  };
}

function missingPassword({ database, host, port, user }: Connection): never {
  throw new OperationalError(
    `cannot connect to ${database} at ${host}:${port}: the server asks for the password of ${user}, and none was given, or an empty one`,
    { kind: "database", code: "wrong-password", hint: "Give it in the job's source, PGPASSWORD or a password file." },
  );
}

function sslOf(connection: Connection): false | Record<string, unknown> {
  if (connection.tls === "off") return false;
  if (connection.tls === "insecure") return { rejectUnauthorized: false };
  const ca = connection.ca === undefined ? {} : { ca: connection.ca };
  if (connection.tls === "verify-full") return { rejectUnauthorized: true, ...ca };
  return { rejectUnauthorized: true, checkServerIdentity: () => undefined, ...ca };
}
