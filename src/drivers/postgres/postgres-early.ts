import type { Connection, ConnectOptions, EarlyConnections } from "../driver.ts";
import { openPostgresClient, type PostgresClient } from "./postgres-client.ts";

/** Opens a connection as backups read with. */
export function openBackupClient(connection: Connection, options: ConnectOptions): Promise<PostgresClient> {
  return openPostgresClient(connection, { ...options, applicationName: "rowkeep backup", refusesViews: true });
}

/**
 * Connections that are opened while something else is looked at: each takes the server some twenty milliseconds. The others come
 * behind the leader, so that a wrong password is tried once.
 */
export class PostgresEarly implements EarlyConnections {
  readonly #connection: Connection;
  readonly #options: ConnectOptions;
  #leader: Promise<PostgresClient> | undefined;
  readonly #others: Promise<PostgresClient | undefined>[];

  constructor(connection: Connection, options: ConnectOptions) {
    this.#connection = connection;
    this.#options = options;
    const leader = this.#open();
    this.#leader = leader;
    // One that fails is opened again when it is needed, and tells why then.
    this.#others = Array.from({ length: options.parallel }, () =>
      leader.then(() => this.#open()).catch(() => undefined),
    );
  }

  /** A source has them, or had: the next one opens its own. */
  get isTaken(): boolean {
    return this.#leader === undefined;
  }

  /** Gives the first one, as it could be opened. */
  async lead(): Promise<PostgresClient> {
    const opening = this.#leader;
    this.#leader = undefined;
    const leader = await opening;
    return leader?.isOpen ? leader : await this.#open();
  }

  /** Gives one of the others, or undefined when there is none left. */
  async take(): Promise<PostgresClient | undefined> {
    const one = await this.#others.pop();
    // What waited long may be gone.
    return one?.isOpen ? one : undefined;
  }

  #open(): Promise<PostgresClient> {
    return openBackupClient(this.#connection, this.#options);
  }

  /** Disposal that nobody waits for, not even the end of the process. */
  leave(): void {
    for (const opening of [this.#leader, ...this.#others.splice(0)]) {
      opening?.then(
        (client) => client?.leave(),
        () => undefined,
      );
    }
    this.#leader = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const leader = this.#leader?.catch(() => undefined);
    this.#leader = undefined;
    for (const opening of [leader, ...this.#others.splice(0)]) await (await opening)?.[Symbol.asyncDispose]();
  }
}
