import { OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import { noSnapshot, parseTime } from "../snapshot/find-snapshot.ts";
import type { UnopenedDestination } from "../snapshot/locate-snapshot.ts";
import { openRepository } from "../snapshot/repository.ts";
import { snapshotPrefix } from "../snapshot/snapshot-prefix.ts";
import { atEach } from "./at-each.ts";

/** The snapshots of one database of a job. */
export interface JobDatabase {
  /** As the job file writes it, where it does. */
  readonly name: string;
  /** Folder of its snapshots at every destination. */
  readonly prefix: string;
}

export interface ChooseDatabaseOptions {
  readonly job: string;
  /** Those that have snapshots. */
  readonly databases: readonly JobDatabase[];
  readonly destinations: readonly Destination[];
  /** Further ones that could not even be opened: what nobody found may be there. */
  readonly unopened?: readonly UnopenedDestination[] | undefined;
  /** Name of the one that is wanted. */
  readonly wanted?: string | undefined;
  /** How the snapshots were named that it must have: ids, beginnings of ids; `latest` and times, which every one has. */
  readonly snapshots: readonly string[];
  readonly signal: AbortSignal;
}

/**
 * Gives the database that is meant: the one that is wanted, the only one, or the only one that has these snapshots. Reads
 * listings only, and those only where a job has several databases. Fails with kind `usage` (`not-found`,
 * `several-databases`), or with a destination's failure where that may have the snapshot.
 */
export async function chooseDatabase(options: ChooseDatabaseOptions): Promise<JobDatabase> {
  const { job, databases, wanted, snapshots, unopened: [hidden] = [] } = options;
  const isWanted = ({ name, prefix }: JobDatabase) =>
    wanted === undefined || name === wanted || prefix === snapshotPrefix(job, wanted);
  const [database, ...more] = databases.filter(isWanted);
  if (database && more.length === 0) return database;
  if (!database && hidden) throw hidden.error;
  if (databases.length === 0) {
    throw noSnapshot(`cannot find a snapshot of ${job}: there is none yet`, `rowkeep run ${job} makes one.`);
  }
  if (wanted !== undefined && database === undefined) {
    throw severalDatabases(job, `no snapshot is of ${wanted}; it has the databases`, databases);
  }
  const names = snapshots.filter((name) => name !== "latest" && parseTime(name) === undefined);
  if (wanted !== undefined || names.length === 0) throw severalDatabases(job, "it has the databases", databases);
  return chooseByIds(names, options);
}

async function chooseByIds(
  names: readonly string[],
  { job, databases, destinations, unopened = [], signal }: ChooseDatabaseOptions,
): Promise<JobDatabase> {
  const errors = unopened.map(({ error }) => error);
  const idsOf = new Map(databases.map(({ prefix }) => [prefix, new Set<string>()]));
  const look = async (destination: Destination) => {
    for (const [prefix, ids] of idsOf) {
      for (const id of await openRepository(destination, prefix).ids({ signal })) ids.add(id);
    }
  };
  await atEach(destinations, look, (error) => errors.push(error));
  let candidates = databases;
  for (const name of names) {
    const having = (isMeant: (id: string) => boolean) =>
      databases.filter(({ prefix }) => [...(idsOf.get(prefix) ?? [])].some(isMeant));
    const exact = having((id) => id === name);
    const holders = exact.length > 0 || name === "" ? exact : having((id) => id.startsWith(name));
    if (holders.length === 0 && errors[0]) throw errors[0];
    if (holders.length === 0) {
      throw noSnapshot(`cannot find the snapshot ${JSON.stringify(name)}: no database of ${job} has one with this id`);
    }
    candidates = candidates.filter((one) => holders.includes(one));
  }
  const [database, ...more] = candidates;
  if (database && more.length === 0) return database;
  const what = names.map((name) => JSON.stringify(name)).join(" and ");
  throw database
    ? severalDatabases(job, `${what} could be of the databases`, candidates)
    : severalDatabases(job, `none has both ${what} of the databases`, databases);
}

function severalDatabases(job: string, reason: string, databases: readonly JobDatabase[]): OperationalError {
  const names = databases.map(({ name }) => name).join(", ");
  return new OperationalError(`cannot choose a snapshot of ${job}: ${reason} ${names}`, {
    kind: "usage",
    code: "several-databases",
    hint: "Name one with --database.",
  });
}
