import { OperationalError } from "../base/errors.ts";
import type { Destination } from "../destinations/destination.ts";
import { type OpenResilientOptions, openResilientDestination } from "../destinations/open-resilient-destination.ts";
import { destinationNameOf } from "../job/destination-name.ts";
import { destinationSettingsOf } from "../job/destination-settings-of.ts";
import type { Job } from "../job/read-job.ts";
import type { SecretSurroundings } from "../job/secrets.ts";
import { MANIFEST_NAMES } from "../snapshot/manifest-text.ts";
import { jobFolder } from "../snapshot/snapshot-prefix.ts";
import { atEach } from "./at-each.ts";

/** The destinations of a job that could be opened, and those that could not. */
export interface OpenedDestinations extends AsyncDisposable {
  /** Both in the order of the job file. */
  readonly destinations: readonly Destination[];
  readonly failed: readonly { readonly name: string; readonly error: OperationalError }[];
}

/** How patient a command is with destinations; left out: see open-resilient-destination.ts. */
export type Patience = Pick<OpenResilientOptions, "retry" | "openRetry" | "watchdog">;

/**
 * Opens the destinations of a job side by side, each with its own fate. `only` is the name of the one that is wanted; for who only
 * reads (`asItIs`) one whose folder is missing is a failed one.
 */
export async function openDestinations(
  job: Job,
  surroundings: SecretSurroundings & { readonly patience?: Patience | undefined },
  { only, asItIs }: { readonly only?: string | undefined; readonly asItIs?: boolean } = {},
): Promise<OpenedDestinations> {
  await using stack = new AsyncDisposableStack();
  const tried = await Promise.all(
    job.destinations.map(async (written, index) => {
      const name = destinationNameOf(written);
      if (only !== undefined && name !== only && written.type !== only) return {};
      try {
        const settings = await destinationSettingsOf(written, index, surroundings);
        const options = { ...surroundings.patience, asItIs, signal: surroundings.signal };
        return { destination: stack.use(await openResilientDestination({ ...settings, name }, options)) };
      } catch (error) {
        // A secret that is not there concerns this destination alone, too.
        if (!(error instanceof OperationalError) || !["destination", "job"].includes(error.kind)) throw error;
        return { failure: { name, error } };
      }
    }),
  );
  const destinations = tried.flatMap(({ destination }) => destination ?? []);
  const failed = tried.flatMap(({ failure }) => failure ?? []);
  if (only !== undefined && destinations.length === 0 && failed.length === 0) throw noSuchDestination(job, only);
  const kept = stack.move();
  return { destinations, failed, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

/** Whether there is nothing but missing folders, as before the first run of a job or while a drive is away. */
export function areAllMissing({ destinations, failed }: OpenedDestinations): boolean {
  return destinations.length === 0 && failed.every(({ error }) => error.code === "not-found");
}

/** Makes one error of why no destination could be opened, which names each of them. */
export function noneOpened(failed: OpenedDestinations["failed"]): OperationalError | undefined {
  const [first] = failed;
  if (!first || failed.length === 1) return first?.error;
  const reasons = failed.map(({ error }) => error.message).join("; ");
  return new OperationalError(`cannot open any of the ${failed.length} destinations: ${reasons}`, {
    kind: first.error.kind,
    code: first.error.code,
    hint: first.error.hint,
    cause: new AggregateError(
      failed.map(({ error }) => error),
      reasons,
    ),
  });
}

/** Gives the name of the destination that a person means by its name or type. Fails with kind `usage`. */
export function chooseDestination(job: Job, wanted: string): string {
  const found = job.destinations.find((written) => destinationNameOf(written) === wanted || written.type === wanted);
  if (found) return destinationNameOf(found);
  throw noSuchDestination(job, wanted);
}

function noSuchDestination(job: Job, name: string): OperationalError {
  const names = job.destinations.map(destinationNameOf).join(", ");
  return new OperationalError(`cannot read from ${name}: ${job.name} has no such destination`, {
    kind: "usage",
    code: "unknown-destination",
    hint: `Choose one of ${names}.`,
  });
}

/**
 * Finds the folders of snapshots that a job has, `<job>/<database>`, at any of these destinations.
 * Fails with kind `destination` when none is found and not every destination could be asked.
 */
export async function findPrefixes(
  job: string,
  destinations: readonly Destination[],
  { signal }: { readonly signal: AbortSignal },
): Promise<readonly string[]> {
  const prefixes = new Set<string>();
  const errors: OperationalError[] = [];
  const look = async (destination: Destination) => {
    for (const prefix of await prefixesAt(destination, jobFolder(job), signal)) prefixes.add(prefix);
  };
  await atEach(destinations, look, (error) => errors.push(error));
  // Those that answered have none: nobody knows what the others have.
  if (errors.length > 0 && prefixes.size === 0) throw errors[0];
  return [...prefixes].sort();
}

async function prefixesAt(destination: Destination, folder: string, signal: AbortSignal): Promise<ReadonlySet<string>> {
  const prefixes = new Set<string>();
  const folders = await destination.listFolders?.(folder, { signal });
  for (const start of folders?.map((name) => `${folder}/${name}/`) ?? [`${folder}/`]) {
    // A folder that no snapshot could have made, and that no list would take for a key.
    if (!/^[0-9A-Za-z._/-]+$/.test(start)) continue;
    for await (const { key } of destination.list(start, { signal })) {
      const [job, database, , object, ...deeper] = key.split("/");
      if (!MANIFEST_NAMES.includes(object ?? "") || deeper.length > 0) continue;
      prefixes.add(`${job}/${database}`);
      // One snapshot is enough to know that the database has some.
      if (folders) break;
    }
  }
  return prefixes;
}
