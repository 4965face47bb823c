import { archiveError } from "../archive/archive-error.ts";
import type { PageRange, PageRows } from "../drivers/change-tracker.ts";

// A page map is text, a line for each of several segments. It says where the rows of a segment's chunks were in the table, in the
// order of the rows: `0-99:1-61;100:1,3,5-7` is pages 0 to 99 with the line pointers 1 to 61 each, then page 100 with five.
// Segments that share a chunk of page maps are told apart by the number of the line.

/** Renders the line of one segment, without its newline. Pages and line pointers must ascend. */
export function renderPageMap(pages: Iterable<PageRows>): string {
  const parts: string[] = [];
  let run: { from: number; to: number; offsets: string } | undefined;
  const flush = () => {
    if (run) parts.push(`${run.from === run.to ? run.from : `${run.from}-${run.to}`}:${run.offsets}`);
  };
  for (const { page, offsets } of pages) {
    const text = renderRanges(offsets);
    if (run && run.to + 1 === page && run.offsets === text) {
      run.to = page;
      continue;
    }
    flush();
    run = { from: page, to: page, offsets: text };
  }
  flush();
  return parts.join(";");
}

function renderRanges(offsets: ArrayLike<number>): string {
  const parts: string[] = [];
  for (let at = 0; at < offsets.length; ) {
    const from = offsets[at] ?? 0;
    let to = from;
    while (offsets[at + 1] === to + 1) {
      to += 1;
      at += 1;
    }
    parts.push(from === to ? `${from}` : `${from}-${to}`);
    at += 1;
  }
  return parts.join(",");
}

const MAX_PAGE = 2 ** 32 - 1;
/** More line pointers than any page of PostgreSQL has. */
const MAX_OFFSET = 2048;
/** Pages of one line: a line comes from an archive, which may claim anything. */
const MAX_PAGES = 1 << 20;
const MAX_DIGITS = 10;
const [COMMA, HYPHEN, ZERO, COLON, SEMICOLON] = [44, 45, 48, 58, 59];

/**
 * Reads the bytes of a line. Line pointers are only counted until somebody asks for them: a map has millions, of which an incremental needs few.
 * Fails with kind `archive`.
 */
export function parsePageMap(line: Uint8Array): PageMap {
  // Numbers behind each other: objects would be most of what the garbage collector has to do.
  const runs = new Uint32Array(RUN_FIELDS * Math.ceil((line.length + 1) / LEAST_RUN_LENGTH));
  let end = 0;
  let rows = 0;
  let pages = 0;
  let next = 0;
  let count = -1;
  let least = 0;
  let from: number | undefined;
  let value = 0;
  let digits = 0;
  // In one loop, by hand: a line has some hundred thousand numbers, and what takes ten times as long would be the half of all.
  const { length } = line;
  for (let at = 0; at <= length && length > 0; at++) {
    const code = at < length ? (line[at] ?? 0) : SEMICOLON;
    if (code >= ZERO && code <= ZERO + 9) {
      value = value * 10 + code - ZERO;
      digits += 1;
      continue;
    }
    if (digits === 0 || digits > MAX_DIGITS || value < least) throw invalid();
    if (code === HYPHEN && from === undefined) {
      from = value;
      least = value;
    } else if (code === COLON && count < 0) {
      from ??= value;
      pages += value - from + 1;
      if (value > MAX_PAGE || pages > MAX_PAGES) throw invalid();
      runs[end] = from;
      runs[end + 1] = value;
      runs[end + 2] = at + 1;
      next = value + 1;
      from = undefined;
      least = 1;
      count = 0;
    } else if ((code === COMMA || code === SEMICOLON) && count >= 0) {
      if (value > MAX_OFFSET) throw invalid();
      count += value - (from ?? value) + 1;
      from = undefined;
      least = value + 1;
      if (code === SEMICOLON) {
        runs[end + 3] = at;
        runs[end + 4] = count;
        rows += count * (next - (runs[end] ?? 0));
        end += RUN_FIELDS;
        count = -1;
        least = next;
      }
    } else {
      throw invalid();
    }
    value = 0;
    digits = 0;
  }
  return new PageMap(line, runs.subarray(0, end), rows);
}

/**
 * Numbers of a run, neighbouring pages with the same line pointers: its first and its last page, where its line pointers start and end
 * in the line, and how many each page has.
 */
const RUN_FIELDS = 5;
/** As in `0:1;`. */
const LEAST_RUN_LENGTH = 4;

/** What a line says, page by page. One object stands for each of the pages in turn: it is good until the next one is asked for. */
export class PageMap implements Iterable<MappedPage> {
  /** Rows of all pages. */
  readonly rows: number;
  readonly #line: Uint8Array;
  readonly #runs: Uint32Array;

  constructor(line: Uint8Array, runs: Uint32Array, rows: number) {
    this.#line = line;
    this.#runs = runs;
    this.rows = rows;
  }

  /** From the first page with rows to behind the last one; both 0 without one. */
  get pages(): PageRange {
    return { lo: this.#runs[0] ?? 0, hi: (this.#runs.at(1 - RUN_FIELDS) ?? -1) + 1 };
  }

  *[Symbol.iterator](): Iterator<MappedPage> {
    const runs = this.#runs;
    const page = new Page(this.#line, runs);
    for (let at = 0; at < runs.length; at += RUN_FIELDS) {
      const last = runs[at + 1] ?? 0;
      page.enter(at);
      for (; page.page <= last; page.page += 1) yield page;
    }
  }
}

/** A page of a map. */
export interface MappedPage extends PageRows {
  readonly offsets: Uint16Array;
  /** How many line pointers there are, without reading them. */
  readonly count: number;
}

class Page implements MappedPage {
  page = 0;
  count = 0;
  readonly #line: Uint8Array;
  readonly #runs: Uint32Array;
  #at = 0;
  #offsets: Uint16Array | undefined;

  constructor(line: Uint8Array, runs: Uint32Array) {
    this.#line = line;
    this.#runs = runs;
  }

  /** Goes to the first page of the run that starts there. */
  enter(at: number) {
    this.#at = at;
    this.page = this.#runs[at] ?? 0;
    this.count = this.#runs[at + 4] ?? 0;
    this.#offsets = undefined;
  }

  get offsets(): Uint16Array {
    this.#offsets ??= readOffsets(this.#line.subarray(this.#runs[this.#at + 2], this.#runs[this.#at + 3]), this.count);
    return this.#offsets;
  }
}

/** Of text that was found to be of its form. */
function readOffsets(text: Uint8Array, count: number): Uint16Array {
  const offsets = new Uint16Array(count);
  let next = 0;
  let from: number | undefined;
  let value = 0;
  const { length } = text;
  for (let at = 0; at <= length; at++) {
    const code = at < length ? (text[at] ?? 0) : COMMA;
    if (code === HYPHEN) {
      from = value;
      value = 0;
    } else if (code === COMMA) {
      for (let offset = from ?? value; offset <= value; offset++) offsets[next++] = offset;
      from = undefined;
      value = 0;
    } else {
      value = value * 10 + code - ZERO;
    }
  }
  return offsets;
}

function invalid(): Error {
  return archiveError("cannot read a page map: it is not of its form", "invalid-manifest");
}
