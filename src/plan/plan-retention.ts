import { OperationalError } from "../base/errors.ts";
import { type Period, periodsIn } from "./calendar-periods.ts";

/** Which snapshots stay. Counts are of snapshots or of calendar periods that have one; see docs/job-file.md. */
export interface RetentionPolicy {
  readonly keepLast?: number | undefined;
  /** `30d`, `12h`: counted back from the newest snapshot, so that nothing goes only because time passes. */
  readonly keepWithin?: string | undefined;
  readonly keepHourly?: number | undefined;
  readonly keepDaily?: number | undefined;
  readonly keepWeekly?: number | undefined;
  readonly keepMonthly?: number | undefined;
  readonly keepYearly?: number | undefined;
}

/** What retention must know of one snapshot of one database. */
export interface RetainableSnapshot {
  readonly id: string;
  /** ISO 8601, by the server's clock. */
  readonly createdAt: string;
  /** Names the server that it was taken from. */
  readonly server: string;
  readonly pinned?: boolean | undefined;
  readonly verifiedAt?: string | undefined;
  readonly drilledAt?: string | undefined;
  /** Taken by a restore of what it was about to replace. */
  readonly isSafety?: boolean | undefined;
  /** When a safety snapshot was put back. */
  readonly undoneAt?: string | undefined;
  /** Its manifest cannot be read, or volumes of it are missing. */
  readonly isDamaged?: boolean | undefined;
  /** Another destination has it damaged: this copy alone tells what that one needs, and can repair it. */
  readonly isDamagedElsewhere?: boolean | undefined;
  /** It is encrypted, and too little is known of it without its key: it stays and counts for nothing. */
  readonly isClosed?: boolean | undefined;
  /** What is known of it, anybody could have written: it may go, and is never the reason why another one goes. */
  readonly isHearsay?: boolean | undefined;
  /** Snapshots that hold chunks of this one. */
  readonly references: readonly string[];
}

export interface RetentionOptions {
  /** All snapshots of one database at one destination, in any order. */
  readonly snapshots: readonly RetainableSnapshot[];
  readonly policy: RetentionPolicy;
  readonly now: Date;
  /** IANA name; left out: the machine's. */
  readonly timeZone?: string | undefined;
  /** The server whose snapshots the policy is for; left out: that of the newest one. Those of others stay. */
  readonly server?: string | undefined;
  /** False: the last verified and the last drilled snapshot have to earn their place like all others. */
  readonly keepProven?: boolean | undefined;
}

/** Both lists have the oldest first; each snapshot is in exactly one of them. */
export interface RetentionPlan {
  readonly kept: readonly { readonly id: string; readonly reasons: readonly string[] }[];
  readonly removed: readonly { readonly id: string; readonly reason: string }[];
  /** Snapshots dated later than now: they stay, and a clock was wrong. */
  readonly future: readonly string[];
  /** Kept ones that nothing keeps but snapshots which refer to them. */
  readonly onlyForOthers: ReadonlySet<string>;
}

/** Clocks of servers and of this machine may differ by this much. */
export const MAX_CLOCK_SKEW_MS = 5 * 60_000;

/** A safety snapshot that no `undo` would use any more stays for a week, for second thoughts. */
const SAFETY_MS = 7 * 86_400_000;

/**
 * Decides which snapshots stay, and why, from nothing but its arguments. The rules look at complete snapshots of one
 * server only, the newest first; whatever they say, the newest one stays, the last one verified, the last one drilled,
 * pinned ones, and all that a snapshot which stays refers to. What is only hearsay lets all stay that would stay without it.
 * Fails with kind `refused`, `empty-policy`, when the policy keeps nothing; kind `job`, `time-zone`.
 */
export function planRetention(options: RetentionOptions): RetentionPlan {
  const rules = rulesOf(options);
  const newestFirst = options.snapshots.toSorted(compareSnapshots).reverse();
  const latest = options.now.getTime() + MAX_CLOCK_SKEW_MS;
  const future = newestFirst.filter(({ createdAt }) => timeOf(createdAt) > latest);
  const reasons = new Reasons();
  const usable: RetainableSnapshot[] = [];
  for (const snapshot of newestFirst) {
    const { id, isDamaged, isDamagedElsewhere, isClosed, pinned } = snapshot;
    const isFuture = timeOf(snapshot.createdAt) > latest;
    if (isDamaged) reasons.add(id, "damaged: counts for nothing");
    if (isDamagedElsewhere) reasons.add(id, "damaged at another destination");
    if (isClosed) reasons.add(id, "encrypted, and not known without its key: counts for nothing");
    if (isFuture) reasons.add(id, "dated in the future: counts for nothing");
    if (pinned) reasons.add(id, "pinned");
    if (!isDamaged && !isClosed && !isFuture) usable.push(snapshot);
  }
  const ordinary = usable.filter(({ isSafety }) => !isSafety);
  const server = options.server ?? (ordinary.find(({ isHearsay }) => !isHearsay) ?? ordinary[0])?.server;
  for (const snapshot of ordinary) if (snapshot.server !== server) reasons.add(snapshot.id, "of another server or job");
  const counted = ordinary.filter((snapshot) => snapshot.server === server);
  const proven = counted.filter(({ isHearsay }) => !isHearsay);
  const looks = proven.length < counted.length ? [counted, proven] : [counted];
  for (const some of looks) keepByRules(some, rules, options, reasons);
  keepSafety(
    usable.filter(({ isSafety }) => isSafety),
    proven[0],
    reasons,
  );
  const onlyForOthers = keepReferences(newestFirst, reasons);
  return { ...renderPlan(newestFirst.reverse(), reasons, future), onlyForOthers };
}

/** Keeps the last good, verified and drilled one of `counted`, the newest first, and what the rules keep of it. */
function keepByRules(
  counted: readonly RetainableSnapshot[],
  rules: readonly Rule[],
  { keepProven }: RetentionOptions,
  reasons: Reasons,
): void {
  reasons.add(counted[0]?.id, "last good");
  if (keepProven !== false) {
    reasons.add(counted.find(({ verifiedAt }) => verifiedAt)?.id, "last verified");
    reasons.add(counted.find(({ drilledAt }) => drilledAt)?.id, "last drilled");
  }
  for (const rule of rules) applyRule(rule, counted, reasons);
}

class Reasons {
  readonly #byId = new Map<string, string[]>();

  add(id: string | undefined, reason: string): void {
    if (id === undefined) return;
    const known = this.#byId.get(id);
    if (!known) this.#byId.set(id, [reason]);
    else if (!known.includes(reason)) known.push(reason);
  }

  of(id: string): readonly string[] | undefined {
    return this.#byId.get(id);
  }
}

/** `group` names the periods of which the newest snapshot stays; without it every snapshot counts for itself. */
interface Rule {
  readonly name: string;
  readonly count: number;
  readonly group?: (at: Date) => string;
  /** Milliseconds before the newest snapshot, instead of a count. */
  readonly withinMs?: number;
}

function rulesOf({ policy, timeZone }: RetentionOptions): readonly Rule[] {
  const nameOf = periodsIn(timeZone);
  const calendar = (name: string, count: number | undefined, period: Period): Rule => ({
    name,
    count: count ?? 0,
    group: (at) => nameOf(at, period),
  });
  const { keepLast = 0, keepWithin } = policy;
  const rules: readonly Rule[] = [
    { name: "last", count: keepLast },
    ...(keepWithin ? [{ name: `within ${keepWithin}`, count: Infinity, withinMs: millisecondsOf(keepWithin) }] : []),
    calendar("hourly", policy.keepHourly, "hour"),
    calendar("daily", policy.keepDaily, "day"),
    calendar("weekly", policy.keepWeekly, "week"),
    calendar("monthly", policy.keepMonthly, "month"),
    calendar("yearly", policy.keepYearly, "year"),
  ];
  const keeping = rules.filter(({ count, withinMs }) => count > 0 && withinMs !== 0);
  if (keeping.length > 0) return keeping;
  throw new OperationalError("cannot apply the retention: it keeps nothing", {
    kind: "refused",
    code: "empty-policy",
    hint: "Name at least one rule with a number above 0, such as keepLast: 7.",
  });
}

/** Keeps what one rule keeps of `counted`, the newest first. */
function applyRule({ name, count, group, withinMs }: Rule, counted: readonly RetainableSnapshot[], reasons: Reasons) {
  const from = withinMs === undefined ? undefined : timeOf(counted[0]?.createdAt ?? "") - withinMs;
  let left = count;
  let previous: string | undefined;
  for (const [index, { id, createdAt }] of counted.entries()) {
    if (left === 0 || (from !== undefined && timeOf(createdAt) < from)) return;
    const period = group?.(new Date(createdAt));
    const isNext = period === undefined || period !== previous;
    // While there are fewer periods than were asked for, the oldest snapshot is the longest history there is.
    const isOldest = index === counted.length - 1;
    if (!isNext && !isOldest) continue;
    reasons.add(id, isNext ? name : `oldest ${name}`);
    previous = period;
    left -= 1;
  }
}

/** They hold some tables only, so no rule counts them: the one that `undo` would use stays, others for a week. */
function keepSafety(
  safety: readonly RetainableSnapshot[],
  newest: RetainableSnapshot | undefined,
  reasons: Reasons,
): void {
  for (const some of [safety, safety.filter(({ isHearsay }) => !isHearsay)]) {
    const [last] = some;
    if (last && !last.undoneAt) reasons.add(last.id, "undo needs it");
  }
  for (const { id, createdAt, isHearsay } of safety) {
    // It may be an ordinary one that somebody only calls so.
    if (isHearsay) reasons.add(id, "safety snapshot, as far as one knows without its key");
    const isYoung = newest === undefined || timeOf(createdAt) >= timeOf(newest.createdAt) - SAFETY_MS;
    if (isYoung) reasons.add(id, "safety snapshot of the last 7 days");
  }
}

/**
 * Keeps what kept snapshots refer to, and what those refer to. Gives those that stay for no other reason. Names the newest one
 * that needs it: a full may be needed by hundreds.
 */
function keepReferences(newestFirst: readonly RetainableSnapshot[], reasons: Reasons): ReadonlySet<string> {
  const byId = new Map(newestFirst.map((snapshot) => [snapshot.id, snapshot]));
  const queue = newestFirst.filter(({ id }) => reasons.of(id));
  const seen = new Set(queue);
  for (let next = queue.pop(); next; next = queue.pop()) {
    for (const id of next.references) {
      const referred = byId.get(id);
      if (!referred || seen.has(referred)) continue;
      seen.add(referred);
      queue.push(referred);
    }
  }
  const needed = new Map<string, { readonly by: string; readonly count: number }>();
  for (const { id, references } of newestFirst.filter((snapshot) => seen.has(snapshot))) {
    for (const one of new Set(references)) {
      const known = needed.get(one);
      if (one !== id) needed.set(one, { by: known?.by ?? id, count: (known?.count ?? 0) + 1 });
    }
  }
  const others = new Set<string>();
  for (const [id, { by, count }] of needed) {
    if (!reasons.of(id)) others.add(id);
    reasons.add(id, count === 1 ? `${by} needs it` : `${by} and ${count - 1} more need it`);
  }
  return others;
}

/**
 * Orders snapshots for their removal: each one before those that it refers to, so that a removal which ends half-way
 * leaves no snapshot behind that lacks what it needs.
 */
export function referrersFirst(
  ids: readonly string[],
  snapshots: readonly Pick<RetainableSnapshot, "id" | "references">[],
): readonly string[] {
  const byId = new Map(snapshots.map(({ id, references }) => [id, references]));
  const wanted = new Set(ids);
  const seen = new Set<string>();
  const referredFirst: string[] = [];
  const open = ids.map((id) => ({ id, isExplored: false }));
  for (let next = open.pop(); next; next = open.pop()) {
    if (next.isExplored) referredFirst.push(next.id);
    if (next.isExplored || seen.has(next.id)) continue;
    seen.add(next.id);
    open.push({ id: next.id, isExplored: true });
    for (const id of byId.get(next.id) ?? []) if (wanted.has(id)) open.push({ id, isExplored: false });
  }
  return referredFirst.reverse();
}

function renderPlan(
  oldestFirst: readonly RetainableSnapshot[],
  reasons: Reasons,
  future: readonly RetainableSnapshot[],
): Omit<RetentionPlan, "onlyForOthers"> {
  const kept: RetentionPlan["kept"][number][] = [];
  const removed: RetentionPlan["removed"][number][] = [];
  for (const { id, isSafety } of oldestFirst) {
    const why = reasons.of(id);
    if (why) kept.push({ id, reasons: why });
    else
      removed.push({
        id,
        reason: isSafety ? "safety snapshot, more than 7 days older than the newest" : "no rule keeps it",
      });
  }
  return { kept, removed, future: future.map(({ id }) => id).reverse() };
}

const UNITS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};

function millisecondsOf(duration: string): number {
  const match = /^(\d+)(ms|s|m|h|d|w)$/.exec(duration);
  const unit = UNITS[match?.[2] ?? ""];
  if (!match || unit === undefined) throw new RangeError(`not a duration: ${duration}`);
  return Number(match[1]) * unit;
}

function timeOf(instant: string): number {
  return Date.parse(instant);
}

/** Orders by time; snapshots of one instant by their ids, where `-10` comes behind `-9`. */
function compareSnapshots(left: RetainableSnapshot, right: RetainableSnapshot): number {
  const byTime = timeOf(left.createdAt) - timeOf(right.createdAt);
  if (byTime !== 0 || left.id === right.id) return byTime;
  return left.id.length - right.id.length || (left.id < right.id ? -1 : 1);
}
