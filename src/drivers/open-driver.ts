import type { Creator, OpenCreatorOptions } from "./creator.ts";
import type { Connection, ConnectOptions, EarlyConnections, OpenSourceOptions, Probe, Source } from "./driver.ts";
import type { InspectOptions, Inspection } from "./inspection.ts";
import type { OpenReplacerOptions, Outcome, PastReplacement, Replacer } from "./replacer.ts";
import type { OpenScratchOptions, Scratch } from "./scratch.ts";

/** Begins to connect for a source that is opened later. Loads the engine's client only now. */
export async function openEarlyConnections(connection: Connection, options: ConnectOptions): Promise<EarlyConnections> {
  const { PostgresEarly } = await import("./postgres/postgres-early.ts");
  return new PostgresEarly(connection, options);
}

/** Opens a database for reading, at one instant. Loads the engine's client only now. Fails with kind `database`. */
export async function openSource(connection: Connection, options: OpenSourceOptions): Promise<Source> {
  switch (connection.engine) {
    case "postgres": {
      const { openPostgresSource } = await import("./postgres/postgres-source.ts");
      return openPostgresSource(connection, options);
    }
  }
}

/** Opens the transaction in which rows of existing tables are replaced. Fails with kind `database`. */
export async function openReplacer(connection: Connection, options: OpenReplacerOptions): Promise<Replacer> {
  const { openPostgresReplacer } = await import("./postgres/postgres-replacer.ts");
  return openPostgresReplacer(connection, options);
}

/** Asks what became of a replacement of rows; waits a while for one that is still going on. Fails with kind `database`. */
export async function findOutcome(
  connection: Connection,
  past: PastReplacement,
  options: OpenReplacerOptions,
): Promise<Outcome> {
  const { findPostgresOutcome } = await import("./postgres/postgres-commit.ts");
  return findPostgresOutcome(connection, past, options);
}

/** Opens an empty database that is to be filled. Fails with kind `database`. */
export async function openCreator(connection: Connection, options: OpenCreatorOptions): Promise<Creator> {
  const { openPostgresCreator } = await import("./postgres/postgres-creator.ts");
  return openPostgresCreator(connection, options);
}

/** Makes a scratch database on the server that this connection leads to. Fails with kind `database`. */
export async function openScratch(server: Connection, options: OpenScratchOptions): Promise<Scratch> {
  const { openPostgresScratch } = await import("./postgres/postgres-scratch.ts");
  return openPostgresScratch(server, options);
}

/** Looks at a server: who it is, its databases, the tables of the connected one. Fails with kind `database`. */
export async function probeDatabase(connection: Connection, options: { readonly signal: AbortSignal }): Promise<Probe> {
  const { probePostgres } = await import("./postgres/postgres-probe.ts");
  return probePostgres(connection, options);
}

/** Looks at what a login may do in one database. Fails with kind `database`. */
export async function inspectDatabase(connection: Connection, options: InspectOptions): Promise<Inspection> {
  const { inspectPostgres } = await import("./postgres/postgres-inspect.ts");
  return inspectPostgres(connection, options);
}
