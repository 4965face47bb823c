import type { ChangedPage, ListedPage, PageRange, SummedPage } from "../drivers/change-tracker.ts";
import type { PageMap } from "../snapshot/page-map.ts";

/** What an earlier snapshot stored of a span. */
export interface KnownSegment {
  /** A whole cell, or a whole span for single rows. */
  readonly pages: PageRange;
  /** Where its rows were, in their order. */
  readonly map: PageMap;
  /** Numbers, from 1, of its rows that are gone; ascending. */
  readonly removed: ArrayLike<number>;
}

/** What is asked of the rows that were stored of a span, on the pages whose rows may be others now. */
export interface GoneQuestion {
  readonly changed: readonly ChangedPage[];
  /** As in the sums of the pages. */
  readonly hashPlace: (page: number, offset: number) => number;
}

/**
 * The numbers of the rows that are gone, for each segment in any order; or pages of which their sums do not tell: they must be listed;
 * or why what the server says cannot follow from what was stored.
 */
export type GoneRows =
  | { readonly gone: readonly number[][] }
  | { readonly unclear: readonly number[] }
  | { readonly doubt: string };

export function findGone(span: PageRange, segments: readonly KnownSegment[], question: GoneQuestion): GoneRows {
  const listed: ListedPage[] = [];
  const summed: SummedPage[] = [];
  for (const one of question.changed) {
    if ("rows" in one) summed.push(one);
    else listed.push(one);
  }
  const lists = new Lists(span, listed);
  const sums = new Sums(span, summed, question.hashPlace);
  const gone = segments.map((): number[] => []);
  for (const [index, segment] of segments.entries()) {
    const twice = lookAt({ segment, index }, { lists, sums }, gone[index] ?? []);
    if (twice !== undefined) return { doubt: `the base has a row of page ${twice} twice` };
  }
  const unclear = sums.resolve(gone);
  if (unclear.length > 0) return { unclear };
  const unknown = lists.pageWithUnseen();
  if (unknown !== undefined) return { doubt: `a row of page ${unknown} is older than the base and not in it` };
  return { gone };
}

interface NumberedSegment {
  readonly segment: KnownSegment;
  readonly index: number;
}

/** Adds the rows of a segment that are on listed pages no more to `gone`; gives a page that has a row twice. */
function lookAt(
  { segment: { map, removed }, index }: NumberedSegment,
  { lists, sums }: { readonly lists: Lists; readonly sums: Sums },
  gone: number[],
): number | undefined {
  let number = 0;
  let at = 0;
  for (const rows of map) {
    const known = lists.of(rows.page);
    const place = known ? -1 : sums.placeOf(rows.page);
    if (!known && place < 0) {
      number += rows.count;
      while (at < removed.length && (removed[at] ?? 0) <= number) at += 1;
      continue;
    }
    const { page, offsets } = rows;
    for (let next = 0; next < offsets.length; next++) {
      number += 1;
      if (removed[at] === number) {
        at += 1;
        continue;
      }
      const offset = offsets[next] ?? 0;
      if (!known) {
        sums.add(place, offset, index, number);
        continue;
      }
      const what = known[offset];
      if (what === SEEN) return page;
      // Nothing older than the base is at this place any more.
      if (what !== KEPT) gone.push(number);
      known[offset] = SEEN;
    }
  }
  return undefined;
}

const KEPT = 1;
const SEEN = 2;
/** A page of 8 KiB has at most 291 line pointers. */
const MOST_ROWS = 291;

/** What is known of each line pointer of the listed pages: there may be a million, so all of them are in one array of bytes. */
class Lists {
  readonly #pages: readonly ListedPage[];
  readonly #first: number;
  readonly #width: number;
  /** Where the line pointers of a page begin; -1 where none are listed. */
  readonly #starts: Int32Array;
  readonly #rows: Uint8Array;

  constructor({ lo, hi }: PageRange, pages: readonly ListedPage[]) {
    this.#pages = pages;
    this.#first = lo;
    this.#width = pages.reduce((most, { offsets }) => Math.max(most, offsets[offsets.length - 1] ?? 0), MOST_ROWS) + 1;
    this.#starts = new Int32Array(hi - lo).fill(-1);
    this.#rows = new Uint8Array(pages.length * this.#width);
    for (const [index, { page, offsets, added }] of pages.entries()) {
      const start = index * this.#width;
      this.#starts[page - lo] = start;
      for (let at = 0; at < offsets.length; at++) this.#rows[start + (offsets[at] ?? 0)] = KEPT;
      for (const offset of added) this.#rows[start + offset] = 0;
    }
  }

  /** What is known of each line pointer of a page; undefined where none are listed. */
  of(page: number): Uint8Array | undefined {
    const start = this.#starts[page - this.#first] ?? -1;
    return start < 0 ? undefined : this.#rows.subarray(start, start + this.#width);
  }

  /** A page with a row that is kept and was not seen. */
  pageWithUnseen(): number | undefined {
    const at = this.#rows.indexOf(KEPT);
    return at < 0 ? undefined : this.#pages[Math.floor(at / this.#width)]?.page;
  }
}

/** The rows that were stored of pages with a sum: the hash that the sum lacks tells which of them is gone. */
class Sums {
  readonly #pages: readonly SummedPage[];
  readonly #first: number;
  readonly #hashPlace: GoneQuestion["hashPlace"];
  /** Which of the pages it is; -1 for none. */
  readonly #places: Int32Array;
  /** Of each page: where its rows begin in the arrays below, how many there are, and the hashes that they and the sum do not share. */
  readonly #starts: Int32Array;
  readonly #counts: Int32Array;
  readonly #missing: Int32Array;
  /** Of each row. */
  readonly #hashes: Int32Array;
  readonly #segments: Int32Array;
  readonly #numbers: Int32Array;

  constructor({ lo, hi }: PageRange, pages: readonly SummedPage[], hashPlace: GoneQuestion["hashPlace"]) {
    this.#pages = pages;
    this.#first = lo;
    this.#hashPlace = hashPlace;
    this.#places = new Int32Array(hi - lo).fill(-1);
    this.#starts = new Int32Array(pages.length);
    this.#counts = new Int32Array(pages.length);
    this.#missing = new Int32Array(pages.length);
    let end = 0;
    for (const [place, { page, rows, hash, added }] of pages.entries()) {
      this.#places[page - lo] = place;
      this.#starts[place] = end;
      this.#missing[place] = added.reduce((sum, offset) => sum ^ hashPlace(page, offset), hash);
      end += rows + 1;
    }
    this.#hashes = new Int32Array(end);
    this.#segments = new Int32Array(end);
    this.#numbers = new Int32Array(end);
  }

  /** Which of the pages with a sum this is; -1 for none. */
  placeOf(page: number): number {
    return this.#places[page - this.#first] ?? -1;
  }

  /** Notes a row that was stored of the page at this place, `number` in the segment. */
  add(place: number, offset: number, segment: number, number: number): void {
    const page = this.#pages[place];
    const count = this.#counts[place] ?? 0;
    this.#counts[place] = count + 1;
    // Of a page that lost more than one the sum says nothing.
    if (!page || count > page.rows) return;
    const hash = this.#hashPlace(page.page, offset);
    const at = (this.#starts[place] ?? 0) + count;
    this.#hashes[at] = hash;
    this.#segments[at] = segment;
    this.#numbers[at] = number;
    this.#missing[place] = (this.#missing[place] ?? 0) ^ hash;
  }

  /** Adds the rows that are gone to those of their segments; gives the pages of which the sum does not tell. */
  resolve(gone: readonly number[][]): readonly number[] {
    const unclear: number[] = [];
    for (const [place, { page, rows, added }] of this.#pages.entries()) {
      const lost = (this.#counts[place] ?? 0) + added.length - rows;
      const isWhole = lost === 0 && this.#missing[place] === 0;
      const at = lost === 1 ? this.#find(place) : undefined;
      if (at !== undefined) gone[this.#segments[at] ?? 0]?.push(this.#numbers[at] ?? 0);
      else if (!isWhole) unclear.push(page);
    }
    return unclear;
  }

  /** Gives the only row of a page whose hash is missing. */
  #find(place: number): number | undefined {
    const missing = this.#missing[place] ?? 0;
    const start = this.#starts[place] ?? 0;
    const end = start + (this.#counts[place] ?? 0);
    let found: number | undefined;
    for (let at = start; at < end; at++) {
      if (this.#hashes[at] !== missing) continue;
      if (found !== undefined) return undefined;
      found = at;
    }
    return found;
  }
}
