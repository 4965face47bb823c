import type { Client, RawListParser } from "basic-ftp";
import { isAbort, OperationalError } from "../base/errors.ts";
import { orAborted } from "../base/or-aborted.ts";
import { destinationError } from "./destination.ts";
import type { FtpSettings } from "./destination-settings.ts";
import { ftpConnectMeaning, lostConnection, replyCodeOf, saysTooMany } from "./ftp-errors.ts";
import { hearReason } from "./ftp-reason.ts";
import { remoteError } from "./network-errors.ts";

/** Many servers allow one user no more. */
const MAX_CONNECTIONS = 4;
const CONNECT_MS = 20_000;
const ANSWER_MS = 60_000;
const KEEPALIVE_MS = 30_000;
/** Idle for longer, a connection is asked for a sign of life before it is used. */
const FRESH_MS = 5_000;
const PROBE_MS = 5_000;
/** Bounds the memory of one listing: about a million objects in one folder. */
const MAX_LISTING_BYTES = 64 * 1024 * 1024;

/** One control connection, logged in, and what its server can do. */
export interface FtpSession {
  readonly client: Client;
  /** Parses lines of a listing. */
  readonly parseList: RawListParser;
  /** The server tells facts by MLST and MLSD (RFC 3659). */
  readonly hasFacts: boolean;
}

interface IdleSession {
  readonly session: FtpSession;
  readonly since: number;
}

/**
 * The control connections to one server. FTP does one thing at a time on each, so calls side by side get one each, up to
 * a bound, and wait for one beyond it. A server that allows fewer gets fewer.
 */
export class FtpConnections implements Disposable {
  readonly #settings: FtpSettings;
  readonly #name: string;
  readonly #idle: IdleSession[] = [];
  readonly #sessions = new Set<FtpSession>();
  #count = 0;
  #limit = MAX_CONNECTIONS;
  #wakers: (() => void)[] = [];
  #isDisposed = false;

  constructor(settings: FtpSettings, name: string) {
    this.#settings = settings;
    this.#name = name;
  }

  /** Runs one request on a connection of its own. */
  async use<T>(signal: AbortSignal, request: (session: FtpSession) => Promise<T>): Promise<T> {
    using lease = await this.take(signal);
    return await lease.run(signal, request);
  }

  /** Gives a connection until the lease is disposed; waits while all are taken. */
  async take(signal: AbortSignal): Promise<FtpLease> {
    while (true) {
      signal.throwIfAborted();
      if (this.#isDisposed) throw destinationError(`cannot use ${this.#name}: it was closed`, "failed");
      const session = (await this.#takeIdle(signal)) ?? (await this.#connect(signal));
      if (session) return new FtpLease(session, (usable) => this.#giveBack(session, usable));
    }
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true;
    for (const session of this.#sessions) this.#drop(session);
    this.#idle.length = 0;
  }

  async #takeIdle(signal: AbortSignal): Promise<FtpSession | undefined> {
    for (let idle = this.#idle.pop(); idle !== undefined; idle = this.#idle.pop()) {
      if (await this.#isAlive(idle, signal)) return idle.session;
      this.#drop(idle.session);
      signal.throwIfAborted();
    }
    return undefined;
  }

  async #isAlive({ session: { client }, since }: IdleSession, signal: AbortSignal): Promise<boolean> {
    if (client.closed) return false;
    if (Date.now() - since < FRESH_MS) return true;
    const limit = AbortSignal.any([signal, AbortSignal.timeout(PROBE_MS)]);
    return orAborted(client.send("NOOP"), limit).then(
      () => !client.closed,
      () => false,
    );
  }

  /** Opens one more connection; undefined, after waiting, when there are enough. */
  async #connect(signal: AbortSignal): Promise<FtpSession | undefined> {
    if (this.#count >= this.#limit) {
      await orAborted(new Promise<void>((resolve) => this.#wakers.push(resolve)), signal);
      return undefined;
    }
    this.#count++;
    try {
      const session = await openSession(this.#settings, signal);
      this.#sessions.add(session);
      if (this.#isDisposed) this.#drop(session);
      return session;
    } catch (error) {
      this.#forget();
      if (saysTooMany(error) && this.#count > 0) {
        this.#limit = this.#count;
        return undefined;
      }
      throw remoteError(error, `connect to ${this.#name}`, connectMeaning);
    }
  }

  #giveBack(session: FtpSession, usable: boolean): void {
    if (!this.#sessions.has(session)) return;
    if (usable && !session.client.closed) {
      this.#idle.push({ session, since: Date.now() });
      this.#wake();
    } else {
      this.#drop(session);
    }
  }

  #drop(session: FtpSession): void {
    session.client.close();
    if (this.#sessions.delete(session)) this.#forget();
  }

  #forget(): void {
    this.#count--;
    this.#wake();
  }

  #wake(): void {
    const wakers = this.#wakers;
    this.#wakers = [];
    for (const wake of wakers) wake();
  }
}

/** One connection in one caller's hands. */
export class FtpLease implements Disposable {
  readonly session: FtpSession;
  readonly #giveBack: (usable: boolean) => void;

  constructor(session: FtpSession, giveBack: (usable: boolean) => void) {
    this.session = session;
    this.#giveBack = giveBack;
  }

  /** Runs a request; on abort the connection is closed at once, since an answer is still on its way. */
  async run<T>(signal: AbortSignal, request: (session: FtpSession) => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    try {
      return await orAborted(
        hearReason(this.session.client, () => request(this.session)),
        signal,
      );
    } catch (error) {
      const isClosed = this.session.client.closed;
      const isAnswer = replyCodeOf(error) !== undefined && replyCodeOf(error) !== 421;
      if (!isAnswer && !(error instanceof OperationalError)) this.discard();
      signal.throwIfAborted();
      throw isAbort(error) ? error : lostConnection(error, isClosed);
    }
  }

  /** Closes the connection, with whatever it is doing. */
  discard(): void {
    this.session.client.close();
  }

  [Symbol.dispose](): void {
    this.#giveBack(!this.session.client.closed);
  }
}

async function openSession(settings: FtpSettings, signal: AbortSignal): Promise<FtpSession> {
  const { host, tls = "explicit", user, password = "", ca } = settings;
  const { Client } = await import("basic-ftp");
  const client = new Client(ANSWER_MS, { allowSeparateTransferHost: false, maxListingBytes: MAX_LISTING_BYTES });
  const parseList = client.parseList;
  const limit = AbortSignal.any([signal, AbortSignal.timeout(CONNECT_MS)]);
  try {
    await orAborted(
      client.access({
        host,
        port: settings.port ?? (tls === "implicit" ? 990 : 21),
        user,
        password,
        secure: tls === "off" ? false : tls === "implicit" ? "implicit" : true,
        secureOptions: ca === undefined ? {} : { ca },
      }),
      limit,
    );
    const hasFacts = client.availableListCommands.includes("MLSD");
    // The library would ask LIST when MLSD is refused, and a LIST of nothing looks like an empty folder.
    if (hasFacts) client.availableListCommands = ["MLSD"];
    if (hasFacts) await orAborted(client.sendIgnoringError("OPTS MLST type;size;modify;"), limit);
    // A long transfer leaves this connection silent, and routers forget silent ones.
    client.ftp.socket.setKeepAlive(true, KEEPALIVE_MS);
    return { client, parseList, hasFacts };
  } catch (error) {
    const isClosed = client.closed;
    client.close();
    signal.throwIfAborted();
    throw lostConnection(
      limit.aborted ? new Error("timed out while connecting", { cause: error }) : error,
      isClosed || limit.aborted,
    );
  }
}

function connectMeaning(error: unknown) {
  if (/WRONG_VERSION_NUMBER|EPROTO/.test(`${String((error as { code?: unknown }).code)}`)) {
    const hint = "Set tls to explicit (usually port 21) or implicit (usually port 990), as the server does it.";
    return { code: "failed", words: "the server begins TLS otherwise", hint } as const;
  }
  return ftpConnectMeaning(error);
}
