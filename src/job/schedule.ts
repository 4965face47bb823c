import { Cron } from "croner";
import type { JobFile } from "./job-schema.ts";

type Schedule = NonNullable<JobFile["schedule"]>;

export interface Firing {
  readonly at: Date;
  readonly kind: "full" | "incremental";
}

/** Whether an expression ever fires does not depend on when one asks. */
const ANY_TIME = new Date("2020-01-01T00:00:00Z");

/** Tells what is wrong with a cron expression; undefined: nothing. */
export function problemOfCron(pattern: string): string | undefined {
  try {
    if (new Cron(pattern, { mode: "5-part", utcOffset: 0 }).nextRun(ANY_TIME)) return undefined;
  } catch {
    return `${pattern} is not a cron expression of five fields ("0 2 * * sun")`;
  }
  return `${pattern} never fires`;
}

/** Tells what is wrong with a time zone; undefined: nothing. */
export function problemOfTimezone(timezone: string): string | undefined {
  try {
    new Intl.DateTimeFormat("en", { timeZone: timezone });
    return undefined;
  } catch {
    return `${timezone} is no time zone that this machine knows (Europe/Paris)`;
  }
}

/** Tells what is wrong with the fields of a schedule, by the field. */
export function problemsOfSchedule(schedule: Schedule): readonly { readonly field: keyof Schedule; words: string }[] {
  const { full, incremental, timezone, until } = schedule;
  const problems = [
    { field: "full" as const, words: full && problemOfCron(full) },
    { field: "incremental" as const, words: incremental && problemOfCron(incremental) },
    { field: "timezone" as const, words: timezone && problemOfTimezone(timezone) },
    { field: "until" as const, words: until && !isDate(until) ? `${until} is not in the calendar` : undefined },
  ];
  return problems.flatMap(({ field, words }) => (words ? { field, words } : []));
}

/** Gives the next firings of a schedule that has no problems; none once it is over. */
export function nextFirings(schedule: Schedule | undefined, now: Date, count: number): readonly Firing[] {
  const firings = (["full", "incremental"] as const).flatMap((kind) => {
    const pattern = schedule?.[kind];
    if (pattern === undefined) return [];
    const { timezone, until } = schedule ?? {};
    const cron = new Cron(pattern, {
      mode: "5-part",
      ...(timezone ? { timezone } : {}),
      ...(until ? { stopAt: `${until}T23:59:59` } : {}),
    });
    return cron.nextRuns(count, now).map((at) => ({ at, kind }));
  });
  return firings.sort((left, right) => left.at.getTime() - right.at.getTime()).slice(0, count);
}

/** Months have an end: JavaScript takes 2027-02-30 for a day in March. */
function isDate(text: string): boolean {
  const date = new Date(`${text}T00:00:00Z`);
  return !Number.isNaN(date.getTime()) && date.toISOString().startsWith(text);
}
