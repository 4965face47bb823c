import type { Connection, OpenSourceOptions } from "../driver.ts";
import { openPostgresClient, type PostgresClient } from "./postgres-client.ts";

/** Opens a connection that reads for a backup. */
export function openBackupClient(connection: Connection, options: OpenSourceOptions): Promise<PostgresClient> {
  return openPostgresClient(connection, { ...options, applicationName: "rowkeep backup", refusesViews: true });
}

/** Connections that are opened while the leader looks around: each takes the server some twenty milliseconds. */
export class EarlyClients implements AsyncDisposable {
  readonly #opening: Promise<PostgresClient | undefined>[];

  constructor(connection: Connection, options: OpenSourceOptions) {
    // One that fails is opened again when it is needed, and tells why then.
    this.#opening = Array.from({ length: options.parallel }, () =>
      openBackupClient(connection, options).catch(() => undefined),
    );
  }

  /** Gives one, or undefined when there is none left. */
  async take(): Promise<PostgresClient | undefined> {
    return await this.#opening.pop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const opening of this.#opening.splice(0)) await (await opening)?.[Symbol.asyncDispose]();
  }
}
