import { archiveError } from "../archive/archive-error.ts";
import type { PageRows } from "../drivers/change-tracker.ts";

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

function renderRanges(offsets: readonly number[]): string {
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

const MAX_PAGE = 2 ** 32;
/** More line pointers than any page of PostgreSQL has. */
const MAX_OFFSET = 2048;
/** Pages of one line: a line comes from an archive, which may claim anything. */
const MAX_PAGES = 1 << 20;

/** Reads a line; line pointers are only counted until somebody asks for them. Fails with kind `archive`. */
export function parsePageMap(line: string): readonly PageRows[] {
  const pages: PageRows[] = [];
  const reader = new LineReader(line);
  let next = 0;
  while (!reader.isAtEnd) {
    if (next > 0) reader.take(SEMICOLON);
    reader.range(next, MAX_PAGE);
    const { from, to } = reader;
    if (to - from >= MAX_PAGES || pages.length + to - from >= MAX_PAGES) throw invalid();
    reader.take(COLON);
    const start = reader.at;
    const count = reader.ranges();
    const offsets = new LazyOffsets({ line, start, end: reader.at, isShared: to > from });
    for (let page = from; page <= to; page++) pages.push(new MappedPage(page, count, offsets));
    next = to + 1;
  }
  return pages;
}

interface OffsetsPlace {
  readonly line: string;
  readonly start: number;
  readonly end: number;
  /** By several pages. */
  readonly isShared: boolean;
}

/** Line pointers of one page, or of several that have the same ones. A map has millions of them, of which an incremental needs few. */
class LazyOffsets {
  readonly #line: string;
  readonly #start: number;
  readonly #end: number;
  readonly #isShared: boolean;
  #list: readonly number[] | undefined;

  constructor({ line, start, end, isShared }: OffsetsPlace) {
    this.#line = line;
    this.#start = start;
    this.#end = end;
    this.#isShared = isShared;
  }

  get list(): readonly number[] {
    if (!this.#isShared) return this.#read();
    this.#list ??= this.#read();
    return this.#list;
  }

  #read(): readonly number[] {
    const offsets: number[] = [];
    new LineReader(this.#line.slice(this.#start, this.#end)).ranges((first, last) => {
      for (let offset = first; offset <= last; offset++) offsets.push(offset);
    });
    return offsets;
  }
}

class MappedPage implements PageRows {
  readonly page: number;
  readonly count: number;
  readonly #offsets: LazyOffsets;

  constructor(page: number, count: number, offsets: LazyOffsets) {
    this.page = page;
    this.count = count;
    this.#offsets = offsets;
  }

  get offsets(): readonly number[] {
    return this.#offsets.list;
  }
}

const [COMMA, HYPHEN, ZERO, COLON, SEMICOLON] = [44, 45, 48, 58, 59];

/** By hand: a line has some hundred thousand numbers, and a pattern for each takes ten times as long. */
class LineReader {
  readonly #line: string;
  #at = 0;
  /** The range that was read last. */
  from = 0;
  to = 0;

  constructor(line: string) {
    this.#line = line;
  }

  get at(): number {
    return this.#at;
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#line.length;
  }

  take(code: number): void {
    if (!this.#isAt(code)) throw invalid();
    this.#at += 1;
  }

  /** Reads the line pointers of a page and gives their number. */
  ranges(visit?: (from: number, to: number) => void): number {
    let count = 0;
    let least = 1;
    for (;;) {
      this.range(least, MAX_OFFSET);
      count += this.to - this.from + 1;
      visit?.(this.from, this.to);
      if (!this.#isAt(COMMA)) return count;
      this.#at += 1;
      least = this.to + 1;
    }
  }

  range(least: number, most: number): void {
    this.from = this.#number();
    this.to = this.from;
    if (this.#isAt(HYPHEN)) {
      this.#at += 1;
      this.to = this.#number();
    }
    if (this.from < least || this.to < this.from || this.to > most) throw invalid();
  }

  #isAt(code: number): boolean {
    return this.#line.charCodeAt(this.#at) === code;
  }

  #number(): number {
    const start = this.#at;
    let value = 0;
    for (;;) {
      const digit = this.#line.charCodeAt(this.#at) - ZERO;
      if (!(digit >= 0 && digit <= 9)) break;
      value = value * 10 + digit;
      this.#at += 1;
    }
    if (this.#at === start || this.#at - start > 10) throw invalid();
    return value;
  }
}

function invalid(): Error {
  return archiveError("cannot read a page map: it is not of its form", "invalid-manifest");
}
