import { OperationalError } from "../base/errors.ts";
import type { ThawTier } from "../destinations/destination.ts";
import { parseTime } from "../snapshot/find-snapshot.ts";
import type { ThawWish } from "../usecases/thaw-volumes.ts";

/** Reads an option that takes a whole number of at least 1; undefined when it was not given. */
export function readCount(value: unknown, flag: string): number | undefined {
  if (value === undefined) return undefined;
  if (typeof value === "string" && /^[1-9]\d{0,5}$/.test(value)) return Number(value);
  throw wrongValue(flag, value, "it is not a whole number from 1 to 999999");
}

/** Reads a comma-separated list; undefined when it was not given. Commas inside double quotes belong to a name. */
export function readList(value: unknown, flag: string): readonly string[] | undefined {
  if (value === undefined) return undefined;
  const parts = (textOf(value).match(/(?:"(?:[^"]|"")*"|[^,])+/g) ?? []).map((part) => part.trim());
  if (parts.length === 0 || parts.includes("")) throw wrongValue(flag, value, "a name in it is empty");
  return parts;
}

/** Reads an instant; without a zone it is the machine's local time, as people mean it. */
export function readTime(value: unknown, flag: string): Date | undefined {
  if (value === undefined) return undefined;
  const time = parseTime(textOf(value));
  if (time === undefined) throw wrongValue(flag, value, "it is not a time like 2026-11-20T09:03");
  return time;
}

/** Reads a length of time in milliseconds: `90s`, `15m`, `26h`, `2d`. */
export function readDuration(value: unknown, flag: string): number | undefined {
  if (value === undefined) return undefined;
  const match = /^(\d{1,6})(s|m|h|d)$/.exec(textOf(value));
  const units: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
  const unit = units[match?.[2] ?? ""];
  if (!match || unit === undefined) throw wrongValue(flag, value, "it is not a duration like 90s, 15m, 26h or 2d");
  return Number(match[1]) * unit;
}

/** Reads a share above 0 and up to 1: `5%`, `0.05`. */
export function readShare(value: unknown, flag: string): number | undefined {
  if (value === undefined) return undefined;
  const match = /^(\d{1,3}(?:\.\d{1,6})?)(%?)$/.exec(textOf(value));
  const share = match ? Number(match[1]) / (match[2] ? 100 : 1) : 0;
  if (share > 0 && share <= 1) return share;
  throw wrongValue(flag, value, "it is not a share like 5%");
}

/** Reads an option that takes any text; undefined when it was not given. */
export function readText(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

/** Fails for an option that help shows but that does nothing yet. */
export function refuseUnavailable(options: Readonly<Record<string, unknown>>, flags: Readonly<Record<string, string>>) {
  for (const [name, flag] of Object.entries(flags)) {
    if (options[name] === undefined || options[name] === false) continue;
    throw new OperationalError(`cannot use ${flag}: not available yet`, {
      kind: "usage",
      code: "not-available",
      hint: `Leave out ${flag}.`,
    });
  }
}

/** Commander gives `true` for a flag without a value. */
function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function wrongValue(flag: string, value: unknown, reason: string): OperationalError {
  return new OperationalError(`cannot read ${flag} ${JSON.stringify(textOf(value))}: ${reason}`, {
    kind: "usage",
    code: "wrong-value",
    hint: "See the command with --help.",
  });
}

/** Refuses options that mean nothing without `--create`, instead of leaving them out in silence. */
export function refuseWithoutCreate(options: Readonly<Record<string, unknown>>, names: readonly string[]): void {
  if (options["create"] === true) return;
  for (const name of names) {
    if (options[name] !== true) continue;
    throw new OperationalError(`cannot use --${name} without --create: existing objects keep what they have`, {
      kind: "usage",
      code: "needs-create",
      hint: `Leave --${name} out, or restore into an empty database with --create.`,
    });
  }
}

/** Reads `--thaw[=days]`, `--thaw-tier` and `--wait`; undefined when none was given. */
export function readThaw(options: Readonly<Record<string, unknown>>): ThawWish | undefined {
  const { thaw, wait } = options;
  const tier = readText(options["thawTier"]);
  if (tier !== undefined && !isTier(tier)) {
    throw wrongValue("--thaw-tier", tier, "it is none of expedited, standard and bulk");
  }
  if (thaw === undefined) {
    if (tier !== undefined) throw wrongValue("--thaw-tier", tier, "it means nothing without --thaw");
    return wait === true ? { wait: true } : undefined;
  }
  const days = thaw === true ? THAW_DAYS : readCount(thaw, "--thaw");
  return days === undefined ? undefined : { request: { days, ...(tier ? { tier } : {}) }, wait: wait === true };
}

const THAW_DAYS = 7;

function isTier(text: string): text is ThawTier {
  return text === "expedited" || text === "standard" || text === "bulk";
}
