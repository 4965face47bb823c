import { OperationalError } from "../base/errors.ts";

/** The calendar periods of which a retention rule keeps the last snapshot. */
export type Period = "hour" | "day" | "week" | "month" | "year";

/** Names the period that an instant lies in: two instants of one period have the same name, others never. */
export type PeriodNamer = (at: Date, period: Period) => string;

/**
 * Makes the names of periods in a time zone (an IANA name; left out: the machine's). Weeks are those of ISO 8601 and
 * begin on Monday; the hour that a clock shows twice when it is set back is two hours.
 * Fails with kind `job`, `time-zone`, for a zone that is not known.
 */
export function periodsIn(timeZone: string | undefined): PeriodNamer {
  const clock = openClock(timeZone);
  return (at, period) => {
    const part = readClock(clock, at);
    switch (period) {
      case "hour":
        return `${part.year}-${part.month}-${part.day}T${part.hour}${part.timeZoneName}`;
      case "day":
        return `${part.year}-${part.month}-${part.day}`;
      case "week":
        return mondayOf(Number(part.year), Number(part.month), Number(part.day));
      case "month":
        return `${part.year}-${part.month}`;
      case "year":
        return String(part.year);
    }
  };
}

function openClock(timeZone: string | undefined): Intl.DateTimeFormat {
  try {
    return new Intl.DateTimeFormat("en-US", {
      timeZone,
      calendar: "gregory",
      numberingSystem: "latn",
      hourCycle: "h23",
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
      hour: "2-digit",
      timeZoneName: "longOffset",
    });
  } catch (cause) {
    throw new OperationalError(`cannot use the time zone ${timeZone}: it is not known`, {
      kind: "job",
      code: "time-zone",
      hint: "Name one of the IANA time zones, like Europe/Paris.",
      cause,
    });
  }
}

function readClock(clock: Intl.DateTimeFormat, at: Date): Readonly<Partial<Record<string, string>>> {
  return Object.fromEntries(clock.formatToParts(at).map(({ type, value }) => [type, value]));
}

/** The Monday of the ISO week is the week's name: it needs no week numbers, which begin anew in the middle of a week. */
function mondayOf(year: number, month: number, day: number): string {
  const midday = new Date(Date.UTC(year, month - 1, day, 12));
  midday.setUTCDate(midday.getUTCDate() - ((midday.getUTCDay() + 6) % 7));
  return midday.toISOString().slice(0, 10);
}
