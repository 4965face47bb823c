import type { ChosenTable, Connection, ServerIdentity, TableChoice } from "./driver.ts";

/** What a login can do with one database, as far as a backup needs it. Names are `schema.name`. */
export interface Inspection {
  readonly identity: ServerIdentity;
  /** As the server sees this connection: `TLSv1.3`; undefined when it is not encrypted. */
  readonly tlsProtocol: string | undefined;
  readonly tls: Connection["tls"];
  readonly isPooled: boolean;
  readonly isSuperuser: boolean;
  /** Whether `verify --drill` can make its scratch database here. */
  readonly canCreateDatabases: boolean;
  readonly isSupported: boolean;
  /** Newer than every version that this program was tried with. */
  readonly isUntried: boolean;
  /** The server's clock minus this machine's. */
  readonly clockSkewMs: number;
  /** Tables whose rows the job wants. */
  readonly tables: number;
  readonly bytes: number;
  /** Wanted tables without SELECT, or in a schema without USAGE. */
  readonly deniedTables: readonly string[];
  /** Wanted tables of which row security hides rows. */
  readonly filteredTables: readonly string[];
  readonly deniedSequences: readonly string[];
  readonly largeObjects: "none" | "readable" | "denied";
  /** Where the database's files lie on its machine, when this login may know. */
  readonly dataFolder: string | undefined;
  /** SQL that gives a login no more than a backup needs. */
  readonly grants: string;
}

export interface InspectOptions {
  readonly choose: (table: ChosenTable) => TableChoice;
  readonly signal: AbortSignal;
}
