import { destinationNameOf } from "../job/destination-name.ts";
import type { Job } from "../job/read-job.ts";
import type { StateStore } from "../job/state-store.ts";
import type { RetentionPolicy } from "../plan/plan-retention.ts";

/** Tells whether a job ever removes snapshots, at any of its destinations. */
export function hasRetention(job: Job): boolean {
  return job.naming === "overwrite" || [job, ...job.destinations].some(({ retention }) => retention !== undefined);
}

/** Gives the retention of a job at one of its destinations; undefined when everything stays there. */
export function policyAt(job: Job, destination: string): RetentionPolicy | undefined {
  if (job.naming === "overwrite") return { keepLast: 1 };
  return job.destinations.find((one) => destinationNameOf(one) === destination)?.retention ?? job.retention;
}

/** Gives the ids of the snapshots of one destination, by its name, that only snapshots which refer to them keep there. */
export type FindOnlyForOthers = (destination: string) => ReadonlySet<string>;

/** Finds them by what the last prune of this machine saw. Where there is no retention any more they stay for themselves. */
export function lastOnlyForOthers(job: Job, prefix: string, state: StateStore): FindOnlyForOthers {
  return (destination) => new Set(policyAt(job, destination) ? state.onlyForOthersAt(prefix, destination) : []);
}
