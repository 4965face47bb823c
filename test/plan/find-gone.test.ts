import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { ChangedPage, PageRows } from "../../src/drivers/change-tracker.ts";
import { hashTid } from "../../src/drivers/postgres/postgres-tid-hash.ts";
import { findGone, type KnownSegment } from "../../src/plan/find-gone.ts";
import { parsePageMap, renderPageMap } from "../../src/snapshot/page-map.ts";

function segmentOf(span: { readonly lo: number; readonly hi: number }, pages: readonly PageRows[], removed = [0]) {
  const map = parsePageMap(Buffer.from(renderPageMap(pages)));
  return { pages: span, map, removed: removed.filter((number) => number > 0) };
}

function hashOf(page: number, offsets: readonly number[], hashPlace = hashTid): number {
  return offsets.reduce((sum, offset) => sum ^ hashPlace(page, offset), 0);
}

describe("a page with a sum", () => {
  /** The places 19 and 33 of it have one hash. */
  const page = 97_678;
  const span = { lo: page - 10, hi: page + 10 };

  function find(then: readonly number[], now: readonly number[], { hash = hashOf(page, now), added = [50] } = {}) {
    const before = segmentOf(span, [{ page: page - 3, offsets: [1, 2] }]);
    const segment = segmentOf(span, [
      { page: page - 1, offsets: [7] },
      ...(then.length > 0 ? [{ page, offsets: then }] : []),
    ]);
    const changed = [{ page, added, rows: now.length, hash }];
    return findGone(span, [before, segment], { changed, hashPlace: hashTid });
  }

  test.each([
    ["lost one", [1, 2, 3], [1, 3, 50], [3]],
    ["lost none", [1, 2, 3], [1, 2, 3, 50], []],
    ["lost the only one", [2], [50], [2]],
    ["had none", [], [50], []],
    ["lost the one whose place was taken", [1, 2, 50], [1, 2, 50], [4]],
  ])("that %s tells which rows are gone", (_, then, now, gone) => {
    expect(find(then, now)).toEqual({ gone: [[], gone] });
  });

  test("and without a new row tells which row is gone", () => {
    expect(find([1, 2, 3], [2, 3], { added: [] })).toEqual({ gone: [[], [2]] });
  });

  test.each([
    ["lost two", [1, 2, 3], [3, 50]],
    ["lost many", [1, 2, 3, 4, 5, 6, 7, 8, 9], [50]],
    ["lost one of two with one hash", [1, 19, 33], [1, 33, 50]],
    ["lost one, and has another that nobody knows", [1, 2, 3], [1, 3, 4, 50]],
    ["lost two, and has another that nobody knows", [1, 2, 3], [1, 4, 50]],
    ["has one that nobody knows", [1, 2], [1, 2, 3, 50]],
  ])("that %s must be listed", (_, then, now) => {
    expect(find(then, now)).toEqual({ unclear: [page] });
  });

  test("must be listed where the server hashes otherwise", () => {
    expect(find([1, 2, 3], [1, 3, 50], { hash: 77 })).toEqual({ unclear: [page] });
    expect(find([1, 2, 3], [1, 2, 3, 50], { hash: 77 })).toEqual({ unclear: [page] });
  });

  test("that is not of the span must be listed", () => {
    const changed = [{ page: page + 10, added: [], rows: 1, hash: 1 }];

    expect(findGone(span, [], { changed, hashPlace: hashTid })).toEqual({ unclear: [page + 10] });
  });
});

test("a sum tells what a list tells, or that the page must be listed, however bad the hash is", () => {
  const span = { lo: 0, hi: 12 };
  const offsets = fc.uniqueArray(fc.integer({ min: 1, max: 9 }), { maxLength: 9 });
  const pages = fc.array(fc.record({ old: offsets, now: offsets, fresh: offsets, delta: offsets }), { maxLength: 12 });
  const sorted = (numbers: readonly number[]) => numbers.toSorted((left, right) => left - right);
  fc.assert(
    fc.property(
      pages,
      fc.integer({ min: 1, max: 64 }),
      fc.array(fc.integer({ min: 1, max: 50 })),
      (layout, hashes, removed) => {
        const hashPlace = (page: number, offset: number) => hashTid(page, offset) % hashes;
        // Rows of then lie in two segments, some of those of the first are gone already and may be in the second again.
        const cell = segmentOf(
          span,
          layout.map(({ old }, page) => ({ page, offsets: sorted(old) })).filter((one) => one.offsets.length > 0),
          sorted([...new Set(removed)]),
        );
        const live = new Map<number, Set<number>>();
        let number = 0;
        for (const { page, offsets: places } of cell.map) {
          for (const offset of places) {
            number += 1;
            if (!cell.removed.includes(number)) live.set(page, (live.get(page) ?? new Set()).add(offset));
          }
        }
        const deltas = layout
          .map(({ delta }, page) => ({ page, offsets: sorted(delta.filter((offset) => !live.get(page)?.has(offset))) }))
          .filter((one) => one.offsets.length > 0);
        for (const { page, offsets: places } of deltas) {
          for (const offset of places) live.set(page, (live.get(page) ?? new Set()).add(offset));
        }
        const segments: KnownSegment[] = [cell, segmentOf(span, deltas)];
        const listed = layout.map(({ now, fresh }, page) => {
          const isOld = (offset: number) => live.get(page)?.has(offset) === true && !fresh.includes(offset);
          return { page, offsets: sorted(now), added: sorted(now).filter((offset) => !isOld(offset)) };
        });
        const summed = listed.map(({ page, offsets: now, added }) => {
          return { page, added, rows: now.length, hash: hashOf(page, now, hashPlace) };
        });
        const ask = (changed: readonly ChangedPage[]) => {
          const found = findGone(span, segments, { changed, hashPlace });
          return "gone" in found ? { gone: found.gone.map(sorted) } : found;
        };

        const truth = ask(listed);
        const first = ask(summed);
        const unclear = "unclear" in first ? first.unclear : [];
        const second = ask(summed.map((one) => (unclear.includes(one.page) ? (listed[one.page] ?? one) : one)));

        expect(truth).toHaveProperty("gone");
        expect(second).toEqual(truth);
      },
    ),
    { numRuns: 500 },
  );
});
