import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  planRetention,
  type RetainableSnapshot,
  type RetentionOptions,
  type RetentionPolicy,
} from "../../src/plan/plan-retention.ts";
import { renderSnapshotId } from "../../src/snapshot/snapshot-id.ts";

const NOW = new Date("2026-11-21T12:00:00Z");
const HOUR = 3_600_000;
const DAY = 24 * HOUR;

function snapshot(at: string | Date, more: Partial<RetainableSnapshot> = {}): RetainableSnapshot {
  const takenAt = new Date(at);
  const id = renderSnapshotId(takenAt, "full");
  return { id, createdAt: takenAt.toISOString(), server: "a", references: [], ...more };
}

function plan(snapshots: readonly RetainableSnapshot[], policy: RetentionPolicy, more: Partial<RetentionOptions> = {}) {
  return planRetention({ snapshots, policy, now: NOW, timeZone: "UTC", ...more });
}

/** The instants that stay, in the form in which the table below writes them. */
function keptTimes(
  times: readonly string[],
  policy: RetentionPolicy,
  more: Partial<RetentionOptions> = {},
): readonly string[] {
  const byId = new Map(times.map((time) => [snapshot(time).id, time]));
  return plan(
    times.map((time) => snapshot(time)),
    policy,
    more,
  ).kept.map(({ id }) => byId.get(id) ?? id);
}

function every(stepMs: number, count: number, last: string): string[] {
  const end = Date.parse(last);
  return Array.from({ length: count }, (_, index) => new Date(end - (count - 1 - index) * stepMs).toISOString());
}

const SUNDAYS = every(7 * DAY, 12, "2019-11-17T11:00:00Z");
const DAILY_10 = every(DAY, 10, "2019-11-17T11:00:00Z");

// The outcomes that restic's documentation of `forget` describes, with inputs written down anew.
const EXAMPLES: readonly (readonly [string, readonly string[], RetentionPolicy, readonly string[]])[] = [
  ["a day without a snapshot is no day: four Sundays", SUNDAYS, { keepDaily: 4 }, SUNDAYS.slice(-4)],
  ["the same four Sundays as weeks", SUNDAYS, { keepWeekly: 4 }, SUNDAYS.slice(-4)],
  ["and as the last four", SUNDAYS, { keepLast: 4 }, SUNDAYS.slice(-4)],
  ["an hour without a snapshot is no hour", SUNDAYS, { keepHourly: 2 }, SUNDAYS.slice(-2)],
  [
    "of a month, the last Sunday of each; and the oldest while months are missing",
    SUNDAYS,
    { keepMonthly: 4 },
    [SUNDAYS[0] ?? "", SUNDAYS[4] ?? "", SUNDAYS[8] ?? "", SUNDAYS[11] ?? ""],
  ],
  [
    "two rules do not add up: the newest seven days hold the newest Sunday already",
    every(DAY, 30, "2019-11-17T11:00:00Z"),
    { keepDaily: 7, keepWeekly: 2 },
    ["2019-11-10T11:00:00.000Z", ...every(DAY, 7, "2019-11-17T11:00:00Z")],
  ],
  ["within a span before the newest, not before now", DAILY_10, { keepWithin: "3d" }, DAILY_10.slice(-4)],
  [
    "of several snapshots of one day the last one",
    [
      "2019-05-01T08:00:00Z",
      "2019-05-02T08:00:00Z",
      "2019-05-02T11:00:00Z",
      "2019-05-04T09:00:00Z",
      "2019-05-05T10:00:00Z",
    ],
    { keepDaily: 4 },
    ["2019-05-01T08:00:00Z", "2019-05-02T11:00:00Z", "2019-05-04T09:00:00Z", "2019-05-05T10:00:00Z"],
  ],
  [
    "fewer days than asked for: the oldest snapshot too",
    ["2019-05-01T08:00:00Z", "2019-05-01T11:00:00Z", "2019-05-02T11:00:00Z"],
    { keepDaily: 4 },
    ["2019-05-01T08:00:00Z", "2019-05-01T11:00:00Z", "2019-05-02T11:00:00Z"],
  ],
];

describe("the worked examples", () => {
  test.each(EXAMPLES)("%s", (_what, times, policy, expected) => {
    expect(keptTimes(times, policy)).toEqual(expected);
  });

  test("a snapshot a day for a hundred years leaves seven days, five weeks, twelve months and 75 years", () => {
    const times = every(DAY, 36_525, "2019-11-17T11:00:00Z");

    const { kept } = plan(
      times.map((time) => snapshot(time)),
      { keepDaily: 7, keepWeekly: 5, keepMonthly: 12, keepYearly: 75 },
    );

    const count = (reason: string) => kept.filter(({ reasons }) => reasons.includes(reason)).length;
    expect([count("daily"), count("weekly"), count("monthly"), count("yearly")]).toEqual([7, 5, 12, 75]);
    // One of the weeks, months and years is the newest day; one more of the years is a month.
    expect(kept).toHaveLength(7 + 4 + 11 + 73);
  });
});

describe("the calendar", () => {
  test("ends a day at midnight of the job's time zone", () => {
    const times = ["2026-07-01T21:30:00Z", "2026-07-01T22:30:00Z", "2026-07-02T21:30:00Z"];

    expect(keptTimes(times, { keepDaily: 1 }, { timeZone: "Europe/Paris" })).toEqual([times[2]]);
    expect(keptTimes(times, { keepDaily: 2 }, { timeZone: "Europe/Paris" })).toEqual([times[0], times[2]]);
    expect(keptTimes(times, { keepDaily: 2 }, { timeZone: "UTC" })).toEqual([times[1], times[2]]);
  });

  test("counts the hour that comes twice when clocks go back as two, and no hour that is skipped", () => {
    const back = ["2026-10-25T00:10:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"];
    const forward = ["2026-03-28T23:30:00Z", "2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"];

    expect(keptTimes(back, { keepHourly: 3 }, { timeZone: "Europe/Berlin" })).toEqual(back.slice(1));
    expect(keptTimes(forward, { keepHourly: 2 }, { timeZone: "Europe/Berlin" })).toEqual(forward.slice(1));
  });

  test("takes a day of 23 or 25 hours for one day", () => {
    const long = every(HOUR, 25, "2026-10-25T22:30:00Z");
    const short = every(HOUR, 23, "2026-03-29T21:30:00Z");

    for (const times of [long, short]) {
      const before = new Date(Date.parse(times[0] ?? "") - HOUR).toISOString();
      const kept = keptTimes([before, ...times], { keepDaily: 2 }, { timeZone: "Europe/Berlin" });
      expect(kept).toEqual([before, times.at(-1)]);
    }
  });

  test("knows a zone whose clocks move by half an hour, and one beside the date line", () => {
    const lordHowe = ["2026-10-03T14:45:00Z", "2026-10-03T15:15:00Z", "2026-10-03T15:45:00Z"];

    expect(keptTimes(lordHowe, { keepHourly: 3 }, { timeZone: "Australia/Lord_Howe" })).toEqual(lordHowe);
    expect(
      keptTimes(["2026-07-01T09:30:00Z", "2026-07-01T10:30:00Z"], { keepDaily: 1 }, { timeZone: "Pacific/Kiritimati" }),
    ).toEqual(["2026-07-01T10:30:00Z"]);
  });

  test("keeps a week that belongs to two years whole, as ISO 8601 does", () => {
    const week53 = ["2026-12-28T12:00:00Z", "2026-12-31T12:00:00Z", "2027-01-01T12:00:00Z", "2027-01-03T12:00:00Z"];
    const now = new Date("2027-01-05T00:00:00Z");

    expect(keptTimes(["2026-12-27T12:00:00Z", ...week53, "2027-01-04T12:00:00Z"], { keepWeekly: 2 }, { now })).toEqual([
      "2027-01-03T12:00:00Z",
      "2027-01-04T12:00:00Z",
    ]);
  });

  test("refuses a time zone that nobody knows", () => {
    expect(() => plan([snapshot(NOW)], { keepDaily: 1 }, { timeZone: "Europe/Nowhere" })).toThrow(/Europe\/Nowhere/);
  });
});

describe("what stays whatever the rules say", () => {
  const [oldest, old, middle, newest] = ["2026-11-01", "2026-11-05", "2026-11-10", "2026-11-20"] as const;

  test("the newest good one, though a damaged one and a safety snapshot are younger", () => {
    const result = plan(
      [snapshot(oldest), snapshot(old), snapshot(middle, { isDamaged: true }), snapshot(newest, { isSafety: true })],
      { keepLast: 1 },
    );

    expect(result.kept).toEqual([
      { id: snapshot(old).id, reasons: ["last good", "last"] },
      { id: snapshot(middle).id, reasons: ["damaged: counts for nothing"] },
      { id: snapshot(newest).id, reasons: ["undo needs it", "safety snapshot of the last 7 days"] },
    ]);
    expect(result.removed).toEqual([{ id: snapshot(oldest).id, reason: "no rule keeps it" }]);
  });

  test("the tenth of one instant rather than the ninth", () => {
    const at = new Date("2026-11-01T00:00:00Z");
    const snapshots = [10, 9, 2].map((ordinal) => snapshot(at, { id: renderSnapshotId(at, "full", ordinal) }));

    const { kept } = plan(snapshots, { keepLast: 1 });

    expect(kept.map(({ id }) => id)).toEqual([renderSnapshotId(at, "full", 10)]);
  });

  test("pinned ones, the last one verified and the last one drilled", () => {
    const result = plan(
      [
        snapshot("2026-10-01", { verifiedAt: "2026-11-02T00:00:00Z", drilledAt: "2026-11-20T00:00:00Z" }),
        snapshot(oldest, { drilledAt: "2026-11-02T00:00:00Z" }),
        snapshot(old, { verifiedAt: "2026-11-06T00:00:00Z" }),
        snapshot(middle, { pinned: true }),
        snapshot(newest),
      ],
      { keepLast: 1 },
    );

    expect(result.kept.map(({ reasons }) => reasons[0])).toEqual([
      "last drilled",
      "last verified",
      "pinned",
      "last good",
    ]);
    expect(result.removed).toHaveLength(1);
  });

  test("what a kept one refers to, and what that one refers to", () => {
    const [a, b, c] = [snapshot(oldest), snapshot(old), snapshot(middle)].map(({ id }) => id) as [
      string,
      string,
      string,
    ];
    const result = plan(
      [snapshot(oldest), snapshot(old, { references: [a] }), snapshot(middle), snapshot(newest, { references: [b] })],
      { keepLast: 1 },
    );

    expect(result.kept.slice(0, 2)).toEqual([
      { id: a, reasons: [`${b} needs it`] },
      { id: b, reasons: [`${snapshot(newest).id} needs it`] },
    ]);
    expect(result.removed.map(({ id }) => id)).toEqual([c]);
  });

  test("one from the future, which takes nobody's place and is told", () => {
    const later = snapshot("2031-01-01");
    const result = plan([snapshot(old), snapshot(newest), later], { keepLast: 1 });

    expect(result.future).toEqual([later.id]);
    expect(result.kept.map(({ id }) => id)).toEqual([snapshot(newest).id, later.id]);
  });

  test("those of another server, which neither count nor go", () => {
    const other = snapshot(middle, { server: "b" });
    const result = plan([snapshot(oldest), snapshot(old), other, snapshot(newest)], { keepLast: 2 });

    expect(result.kept).toContainEqual({ id: other.id, reasons: ["of another server or job"] });
    expect(result.removed.map(({ id }) => id)).toEqual([snapshot(oldest).id]);
  });

  test("the safety snapshot that undo would use, while others go a week after their restore", () => {
    const result = plan(
      [snapshot("2026-10-01", { isSafety: true }), snapshot("2026-10-02", { isSafety: true }), snapshot(newest)],
      { keepLast: 1 },
    );
    const undone = plan(
      [snapshot("2026-10-02", { isSafety: true, undoneAt: "2026-10-02T01:00:00Z" }), snapshot(newest)],
      { keepLast: 1 },
    );

    expect(result.removed.map(({ id }) => id)).toEqual([snapshot("2026-10-01").id]);
    expect(undone.removed.map(({ id }) => id)).toEqual([snapshot("2026-10-02").id]);
  });

  test("what would stay if nobody had ever heard of those that are only hearsay, and not all of these", () => {
    const own = [oldest, old, middle].map((at) => snapshot(at));
    const heard = [newest, "2026-11-21T08:00:00Z", "2026-11-21T10:00:00Z"].map((at) =>
      snapshot(at, { isHearsay: true }),
    );
    const result = plan([...own, ...heard], { keepLast: 2 });

    expect(result.removed.map(({ id }) => id)).toEqual([own[0]?.id, heard[0]?.id]);
    expect(result.kept[1]).toEqual({ id: own[2]?.id, reasons: ["last good", "last"] });
  });

  test("a closed one, and one that is a safety snapshot by hearsay", () => {
    const closed = snapshot(oldest, { isClosed: true });
    const safety = snapshot(old, { isSafety: true, isHearsay: true });
    const result = plan([closed, safety, snapshot(middle), snapshot("2026-11-21T10:00:00Z")], { keepLast: 1 });

    expect(result.kept.slice(0, 2).map(({ id }) => id)).toEqual([closed.id, safety.id]);
    expect(result.removed.map(({ id }) => id)).toEqual([snapshot(middle).id]);
  });

  test("a proven safety snapshot, however young one is that is only hearsay", () => {
    const safety = snapshot(oldest, { isSafety: true, undoneAt: old });
    const result = plan([safety, snapshot(newest, { isHearsay: true })], { keepLast: 1 });

    expect(result.removed).toEqual([]);
  });

  test.each([{}, { keepLast: 0 }, { keepWithin: "0d", keepDaily: 0 }])("refuses the empty policy %j", (policy) => {
    expect(() => plan([snapshot(NOW)], policy)).toThrow(/keeps nothing/);
  });
});

const arbitraryPolicy = fc
  .record(
    {
      keepLast: fc.integer({ min: 0, max: 5 }),
      keepWithin: fc.constantFrom("0d", "6h", "3d", "2w"),
      keepHourly: fc.integer({ min: 0, max: 5 }),
      keepDaily: fc.integer({ min: 0, max: 5 }),
      keepWeekly: fc.integer({ min: 0, max: 4 }),
      keepMonthly: fc.integer({ min: 0, max: 4 }),
      keepYearly: fc.integer({ min: 0, max: 3 }),
    },
    { requiredKeys: [] },
  )
  .filter((policy) => Object.values(policy).some((value) => value !== 0 && value !== "0d"));

const rarely = fc.integer({ min: 0, max: 7 }).map((value) => value === 0);

/** Snapshots of about a year around now, some in the future, some of one instant, in a random order. */
const arbitrarySnapshots = fc
  .array(
    fc.record({
      hours: fc.oneof(fc.integer({ min: -40, max: 200 }), fc.integer({ min: 0, max: 9000 })),
      server: rarely,
      pinned: rarely,
      verified: rarely,
      drilled: rarely,
      isSafety: rarely,
      isDamaged: rarely,
      refers: fc.option(fc.nat(30), { freq: 3 }),
    }),
    { maxLength: 30 },
  )
  .map((specs) => {
    const made = new Map<number, number>();
    const base = specs.map((spec) => {
      const takenAt = new Date(NOW.getTime() - spec.hours * HOUR);
      const ordinal = (made.get(spec.hours) ?? 0) + 1;
      made.set(spec.hours, ordinal);
      return { spec, takenAt, id: renderSnapshotId(takenAt, "full", ordinal) };
    });
    return base.map(({ spec, takenAt, id }): RetainableSnapshot => {
      const referred = spec.refers === null ? undefined : base[spec.refers];
      return {
        id,
        createdAt: takenAt.toISOString(),
        server: spec.server ? "b" : "a",
        pinned: spec.pinned,
        ...(spec.verified ? { verifiedAt: NOW.toISOString() } : {}),
        ...(spec.drilled ? { drilledAt: NOW.toISOString() } : {}),
        isSafety: spec.isSafety,
        isDamaged: spec.isDamaged,
        references: referred && referred.takenAt < takenAt ? [referred.id] : [],
      };
    });
  });

const zone = fc.constantFrom("UTC", "Europe/Paris", "America/Los_Angeles", "Pacific/Kiritimati", "Australia/Lord_Howe");

const property = (check: (options: RetentionOptions) => void) =>
  fc.assert(
    fc.property(arbitrarySnapshots, arbitraryPolicy, zone, (snapshots, policy, timeZone) =>
      check({ snapshots, policy, now: NOW, timeZone, server: "a" }),
    ),
    { numRuns: 300 },
  );

/** A second way to say what a rule keeps: by looking at all snapshots of each period at once. */
function expectedByRule(rule: string, counted: readonly RetainableSnapshot[], options: RetentionOptions): string[] {
  const { policy, timeZone } = options;
  const newestFirst = counted.toReversed();
  const date = (at: string, fields: Intl.DateTimeFormatOptions) =>
    new Intl.DateTimeFormat("sv-SE", { timeZone, ...fields }).format(new Date(at));
  const day = (at: string) => date(at, { year: "numeric", month: "2-digit", day: "2-digit" });
  const names: Record<string, [number | undefined, (at: string) => string]> = {
    hourly: [
      policy.keepHourly,
      (at) => `${day(at)} ${date(at, { hour: "2-digit", timeZoneName: "longOffset", hourCycle: "h23" })}`,
    ],
    daily: [policy.keepDaily, day],
    // Days since a Monday, by sevens.
    weekly: [policy.keepWeekly, (at) => String(Math.floor((Date.parse(day(at)) / DAY - 4) / 7))],
    monthly: [policy.keepMonthly, (at) => day(at).slice(0, 7)],
    yearly: [policy.keepYearly, (at) => day(at).slice(0, 4)],
  };
  const [count = 0, nameOf] = names[rule] ?? [0, () => ""];
  const periods = Map.groupBy(newestFirst, ({ createdAt }) => nameOf(createdAt));
  const kept = [...periods.values()].slice(0, count).map(([first]) => first?.id ?? "");
  const oldest = newestFirst.at(-1)?.id;
  return count > periods.size && oldest && !kept.includes(oldest) ? [...kept, oldest] : kept;
}

describe("for any snapshots, policy and clock", () => {
  test("every snapshot is kept or removed, once, in the order of time, whatever the order they came in", () => {
    property((options) => {
      const result = planRetention(options);

      const ids = [...result.kept, ...result.removed].map(({ id }) => id).sort();
      expect(ids).toEqual(options.snapshots.map(({ id }) => id).sort());
      expect(planRetention({ ...options, snapshots: options.snapshots.toReversed() })).toEqual(result);
    });
  });

  test("nothing that is needed is removed", () => {
    property((options) => {
      const { kept, removed } = planRetention(options);
      const gone = new Set(removed.map(({ id }) => id));
      const byId = new Map(options.snapshots.map((one) => [one.id, one]));

      for (const { id } of removed) {
        const one = byId.get(id);
        expect([one?.pinned, one?.isDamaged, one?.server === "b" && !one.isSafety]).toEqual([false, false, false]);
        expect(Date.parse(one?.createdAt ?? "")).toBeLessThanOrEqual(NOW.getTime() + 5 * 60_000);
      }
      for (const { id } of kept) expect(byId.get(id)?.references.filter((other) => gone.has(other))).toEqual([]);
      const good = countedOf(options);
      expect(gone.has(good.at(-1)?.id ?? "")).toBe(false);
      expect(gone.has(good.findLast(({ drilledAt }) => drilledAt)?.id ?? "")).toBe(false);
      expect(gone.has(good.findLast(({ verifiedAt }) => verifiedAt)?.id ?? "")).toBe(false);
    });
  });

  test("the reasons are true, and complete for every rule", () => {
    property((options) => {
      const { kept } = planRetention(options);
      const counted = countedOf(options);

      for (const rule of ["hourly", "daily", "weekly", "monthly", "yearly"]) {
        const told = kept.filter(({ reasons }) => reasons.includes(rule) || reasons.includes(`oldest ${rule}`));
        expect(told.map(({ id }) => id).sort(), rule).toEqual(expectedByRule(rule, counted, options).sort());
      }
      const last = kept.filter(({ reasons }) => reasons.includes("last")).map(({ id }) => id);
      expect(last).toEqual(options.policy.keepLast ? counted.slice(-options.policy.keepLast).map(({ id }) => id) : []);
    });
  });

  test("what is left after removing is kept the next time too, and as time goes on", () => {
    property((options) => {
      const first = planRetention(options);
      const left = options.snapshots.filter(({ id }) => first.kept.some((one) => one.id === id));

      expect(planRetention({ ...options, snapshots: left }).removed).toEqual([]);
      const future = new Set(first.future);
      const settled = left.filter(({ id }) => !future.has(id));
      const later = new Date(NOW.getTime() + 5 * 365 * DAY);
      expect(planRetention({ ...options, now: later, snapshots: settled }).removed.filter(notReferredByFuture)).toEqual(
        [],
      );

      function notReferredByFuture({ id }: { readonly id: string }): boolean {
        return !left.some((one) => future.has(one.id)) || !isReachedFrom(left, future, id);
      }
    });
  });

  test("hearsay never makes one go that would stay without it", () => {
    const servers = fc.constantFrom("a", undefined);
    fc.assert(
      fc.property(
        arbitrarySnapshots,
        fc.array(fc.boolean(), { minLength: 30, maxLength: 30 }),
        arbitraryPolicy,
        servers,
        (all, isHeard, policy, server) => {
          const snapshots = all.map((one, index) => ({ ...one, isHearsay: isHeard[index] === true }));
          const options = { policy, now: NOW, timeZone: "UTC", server };
          const without = planRetention({ ...options, snapshots: snapshots.filter(({ isHearsay }) => !isHearsay) });
          const removed = new Set(planRetention({ ...options, snapshots }).removed.map(({ id }) => id));

          expect(without.kept.filter(({ id }) => removed.has(id))).toEqual([]);
        },
      ),
      { numRuns: 300 },
    );
  });

  test("adding a snapshot never brings one back that would be removed", () => {
    fc.assert(
      fc.property(arbitrarySnapshots, arbitraryPolicy, zone, fc.nat(29), (all, policy, timeZone, at) => {
        // What the added one refers to does come back: it is needed.
        const added = all[at % Math.max(all.length, 1)];
        const snapshots = all.filter((one) => one !== added);
        const options = { policy, now: NOW, timeZone, server: "a" };
        const before = planRetention({ ...options, snapshots });
        const more = added ? [...snapshots, { ...added, references: [] }] : snapshots;
        const after = planRetention({ ...options, snapshots: more });

        const removed = new Set(before.removed.map(({ id }) => id));
        const isNeeded = (reasons: readonly string[]) => reasons.every((reason) => reason === `${added?.id} needs it`);
        expect(after.kept.filter(({ id, reasons }) => removed.has(id) && !isNeeded(reasons))).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });
});

function countedOf({ snapshots }: RetentionOptions): RetainableSnapshot[] {
  return snapshots
    .filter(({ isDamaged, isSafety, server, createdAt }) => {
      return !isDamaged && !isSafety && server === "a" && Date.parse(createdAt) <= NOW.getTime() + 5 * 60_000;
    })
    .toSorted((left, right) => (left.createdAt + pad(left.id) < right.createdAt + pad(right.id) ? -1 : 1));
}

/** `…-full-10` behind `…-full-9`. */
function pad(id: string): string {
  return id.replace(/full(?:-(\d+))?$/, (_, ordinal: string | undefined) => (ordinal ?? "1").padStart(4, "0"));
}

function isReachedFrom(snapshots: readonly RetainableSnapshot[], from: ReadonlySet<string>, id: string): boolean {
  const reached = new Set(from);
  for (let size = 0; size !== reached.size; ) {
    size = reached.size;
    for (const one of snapshots) if (reached.has(one.id)) for (const other of one.references) reached.add(other);
  }
  return reached.has(id);
}
