import fc from "fast-check";
import { expect, test } from "vitest";
import type { PageRange, PageRows } from "../../src/drivers/change-tracker.ts";
import type { KnownSegment } from "../../src/plan/find-gone.ts";
import { CELL_PAGES, countRows, planSpan, SPAN_PAGES } from "../../src/plan/plan-delta.ts";
import { type PageMap, parsePageMap, renderPageMap } from "../../src/snapshot/page-map.ts";

const SPAN = { lo: 0, hi: SPAN_PAGES };
const CELL = { lo: 0, hi: CELL_PAGES };

function mapOf(pages: readonly PageRows[]): PageMap {
  return parsePageMap(Buffer.from(renderPageMap(pages)));
}

/** Plans with pages whose rows are listed. */
function planListed(
  span: PageRange,
  segments: readonly KnownSegment[],
  changed: readonly { readonly page: number; readonly kept: readonly number[]; readonly added: readonly number[] }[],
) {
  const listed = changed.map(({ page, kept, added }) => ({
    page,
    offsets: [...kept, ...added].sort((left, right) => left - right),
    added,
  }));
  return planSpan(span, segments, { changed: listed, hashPlace: () => 0 });
}

/** A cell of `pages` pages with the line pointers 1 to `rows`. */
function cell(pages: number, rows: number): KnownSegment {
  const offsets = Array.from({ length: rows }, (_, index) => index + 1);
  return { pages: CELL, map: mapOf(Array.from({ length: pages }, (_, page) => ({ page, offsets }))), removed: [] };
}

test("finds the rows that are gone by their numbers and the added ones by their places", () => {
  const plan = planListed(SPAN, [cell(20, 10)], [{ page: 2, kept: [1, 2, 4, 5, 6, 7, 8, 9, 10], added: [3, 11] }]);

  expect(plan).toEqual({
    kept: [[23]],
    reread: [],
    added: [
      { page: 2, offset: 3 },
      { page: 2, offset: 11 },
    ],
  });
});

test("has a cell read again when more than a quarter of it changed, and drops its rows everywhere else", () => {
  const delta = { pages: SPAN, map: mapOf([{ page: 3, offsets: [11] }]), removed: [] };

  const plan = planListed(
    SPAN,
    [cell(4, 10), delta],
    [
      { page: 0, kept: [], added: [11, 12] },
      { page: 1, kept: [1], added: [] },
    ],
  );

  expect(plan).toEqual({ kept: [undefined, undefined], reread: [CELL], added: [] });
});

test("reads nothing of a cell that lost its last row", () => {
  const plan = planListed(SPAN, [cell(1, 2)], [{ page: 0, kept: [], added: [] }]);

  expect(plan).toEqual({ kept: [undefined], reread: [], added: [] });
});

test("gathers the single rows of many segments into one", () => {
  const deltas = Array.from({ length: 8 }, (_, page) => ({
    pages: SPAN,
    map: mapOf([{ page, offsets: [50] }]),
    removed: [],
  }));

  const plan = planListed(
    SPAN,
    [cell(50, 10), ...deltas],
    [{ page: 40, kept: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], added: [11] }],
  );

  expect(plan).toMatchObject({ kept: [[], ...deltas.map(() => undefined)], reread: [] });
  expect(plan).toHaveProperty("added", [...deltas.map((_, page) => ({ page, offset: 50 })), { page: 40, offset: 11 }]);
});

test("counts the rows that a page has by all segments, without those that are gone", () => {
  const delta = { pages: SPAN, map: mapOf([{ page: 1, offsets: [11, 12] }]), removed: [2] };

  const counts = countRows(SPAN, [{ ...cell(3, 10), removed: [10, 11, 30] }, delta]);

  expect([...counts.subarray(0, 4)]).toEqual([9, 10, 9, 0]);
});

test("doubts a row that is older than the base and not in it, and one that the base has twice", () => {
  expect(planListed(SPAN, [cell(2, 3)], [{ page: 1, kept: [1, 2, 3, 4], added: [] }])).toEqual({
    doubt: "a row of page 1 is older than the base and not in it",
  });
  expect(planListed(SPAN, [cell(2, 3), cell(2, 3)], [{ page: 1, kept: [1], added: [] }])).toEqual({
    doubt: "the base has a row of page 1 twice",
  });
});

test("doubts a page that is not of the span, and one that is given twice", () => {
  const known = {
    ...cell(2, 3),
    pages: { lo: CELL_PAGES, hi: 2 * CELL_PAGES },
    map: mapOf([{ page: CELL_PAGES, offsets: [1] }]),
  };
  const span = { lo: CELL_PAGES, hi: 2 * CELL_PAGES };

  const outside = planListed(span, [known], [{ page: 5, kept: [1], added: [] }]);
  const behind = planListed(span, [known], [{ page: 3 * CELL_PAGES, kept: [1], added: [] }]);
  const twice = planListed(
    span,
    [known],
    [2, 1].map((offset) => ({ page: CELL_PAGES, kept: [offset], added: [] })),
  );

  expect([outside, behind, twice]).toEqual([
    { doubt: expect.stringContaining("page 5 is older") },
    { doubt: expect.stringContaining(`page ${3 * CELL_PAGES} is older`) },
    { doubt: expect.stringContaining(`page ${CELL_PAGES} is older`) },
  ]);
});

test("what is kept, read again and added is what is there, whatever changed", () => {
  const layout = fc.array(fc.uniqueArray(fc.integer({ min: 1, max: 12 }), { maxLength: 12 }), { maxLength: 30 });
  fc.assert(
    fc.property(layout, layout, fc.array(fc.boolean(), { minLength: 400, maxLength: 400 }), (before, after, fresh) => {
      const sorted = (rows: readonly number[]) => rows.toSorted((left, right) => left - right);
      const map = before
        .map((rows, page): PageRows => ({ page, offsets: sorted(rows) }))
        .filter(({ offsets }) => offsets.length > 0);
      const changed = Array.from({ length: Math.max(before.length, after.length) }, (_, page) => {
        const isOld = (offset: number) => (before[page] ?? []).includes(offset) && !fresh[page * 13 + offset];
        const now = sorted(after[page] ?? []);
        return { page, kept: now.filter(isOld), added: now.filter((offset) => !isOld(offset)) };
      });
      const segment: KnownSegment = { pages: CELL, map: mapOf(map), removed: [] };

      const plan = planListed(SPAN, [segment], changed);

      if (!("kept" in plan)) throw new Error("no plan");
      const gone = new Set(plan.kept[0] ?? []);
      let number = 0;
      const survivors = map.flatMap(({ page, offsets }) =>
        Array.from(offsets).flatMap((offset) => (plan.kept[0] && !gone.has(++number) ? [`${page}/${offset}`] : [])),
      );
      const added = plan.added.map(({ page, offset }) => `${page}/${offset}`);
      const reread = plan.reread.length > 0 ? after.flatMap((rows, page) => rows.map((row) => `${page}/${row}`)) : [];
      const there = after.flatMap((rows, page) => rows.map((row) => `${page}/${row}`));
      expect([...survivors, ...added, ...reread].sort()).toEqual(there.sort());
      const left = [{ pages: CELL, map: mapOf(map), removed: plan.kept[0] ?? [] }];
      if (plan.kept[0]) expect(countRows(SPAN, left).reduce((sum, rows) => sum + rows, 0)).toBe(survivors.length);
    }),
  );
});

test("a page map reads back as it was written, and a damaged one is refused", () => {
  const map = fc
    .array(fc.tuple(fc.integer({ min: 1, max: 3 }), fc.uniqueArray(fc.integer({ min: 1, max: 291 }), { minLength: 1 })))
    .map((parts) => {
      let page = -1;
      return parts.map(([step, offsets]) => {
        page += step;
        return { page, offsets: offsets.toSorted((left, right) => left - right) };
      });
    });
  fc.assert(
    fc.property(map, (pages) => {
      const read = parsePageMap(Buffer.from(renderPageMap(pages)));
      expect(Array.from(read, ({ page, offsets }) => ({ page, offsets: Array.from(offsets) }))).toEqual(pages);
      expect(Array.from(read, ({ count }) => count)).toEqual(pages.map(({ offsets }) => offsets.length));
      expect(read.rows).toBe(pages.reduce((sum, { offsets }) => sum + offsets.length, 0));
      expect(read.pages).toEqual({ lo: pages[0]?.page ?? 0, hi: (pages.at(-1)?.page ?? -1) + 1 });
    }),
  );
  for (const line of [
    "1",
    "1:",
    "1:2;1:2",
    "2-1:1",
    "1:3-2",
    "1:0",
    "1:2,2",
    "1:1;",
    "x:1",
    "1:1,",
    "0-99999999:1",
    "1:1-9999",
  ]) {
    expect(() => parsePageMap(Buffer.from(line)), line).toThrow(/not of its form/);
  }
});
