import type { ChangedPage, ChangesQuestion } from "../change-tracker.ts";
import { offsetList, offsetsOf, onPage, onPages } from "./postgres-page-sql.ts";
import { isNew, placesByPage } from "./postgres-range-rows.ts";

export interface TableQuestion extends Omit<ChangesQuestion, "since"> {
  /** The quoted name of the table. */
  readonly name: string;
  /** Rows of this transaction, or of a later one, may be new. */
  readonly xid: string;
}

/** Runs a statement in the snapshot. */
export type Ask = (sql: string, values: readonly unknown[]) => Promise<readonly (readonly (string | null)[])[]>;

/** Pages whose rows are counted together: a lost row has the others of its group looked at, too. */
const GROUP_PAGES = 16;

export interface FoundPages {
  /** Ascending. */
  readonly changed: readonly ChangedPage[];
  /** A page without a new row lost one. */
  readonly hasLost: boolean;
}

/**
 * Finds the pages whose rows are not those of then. The pages with a new row are asked for all their rows. The other pages have no row
 * but of those of then: while all of them together have as many, none of them lost one. Where they have fewer, or where nothing was
 * seen of the range, one scan counts the rows of groups of pages and names those that may be new.
 */
export async function findChangedPages(ask: Ask, question: TableQuestion): Promise<FoundPages> {
  const { name, lo, hi, xid, seen } = question;
  const scanGroups = () => ask(groupScan(name), [lo, hi - 1, xid]);
  let groups = seen ? undefined : await scanGroups();
  const added = seen?.added ?? placesByPage(groups?.map(([, , places]) => places ?? "").join(""));
  const visible = await readPages(ask, name, [...added.keys()]);
  const before = await question.counts();
  /** Rows that each page has if none of the others lost one. */
  const expected = before.slice();
  const changed: ChangedPage[] = [];
  for (const [page, offsets] of visible) {
    const fresh = sorted(added.get(page) ?? []);
    changed.push({ page, kept: without(offsets, fresh), added: fresh });
    expected[page - lo] = offsets.length;
  }
  if (seen && sumOf(expected) !== seen.rows) groups = await scanGroups();
  const suspected: number[] = [];
  for (const [first, rows] of groups ?? []) {
    const start = Number(first);
    const end = Math.min(hi, start + GROUP_PAGES);
    if (sumOf(expected.subarray(start - lo, end - lo)) === Number(rows)) continue;
    for (let page = start; page < end; page++) if (!visible.has(page)) suspected.push(page);
  }
  for (const [page, offsets] of await readPages(ask, name, suspected)) {
    if (offsets.length !== before[page - lo]) changed.push({ page, kept: offsets, added: [] });
  }
  return { changed: changed.sort((left, right) => left.page - right.page), hasLost: suspected.length > 0 };
}

/** A page mostly has one of them. */
function sorted(offsets: readonly number[]): readonly number[] {
  return offsets.length > 1 ? offsets.toSorted((left, right) => left - right) : offsets;
}

function sumOf(numbers: Int32Array): number {
  let sum = 0;
  for (let index = 0; index < numbers.length; index++) sum += numbers[index] ?? 0;
  return sum;
}

/** Gives the line pointers of the visible rows of each of these pages. */
async function readPages(ask: Ask, name: string, pages: readonly number[]): Promise<ReadonlyMap<number, Uint16Array>> {
  if (pages.length === 0) return new Map();
  const rows = await ask(pageScan(name), [`{${pages.join(",")}}`]);
  return new Map(rows.map(([page, offsets]) => [Number(page), offsetsOf(offsets)]));
}

/** Both ascend. By a loop, as for all that is done for each row: a set would be most of the work. */
function without(offsets: Uint16Array, others: readonly number[]): Uint16Array {
  const left = new Uint16Array(offsets.length);
  let count = 0;
  let at = 0;
  for (let index = 0; index < offsets.length; index++) {
    const offset = offsets[index] ?? 0;
    while (at < others.length && (others[at] ?? 0) < offset) at += 1;
    if (others[at] !== offset) left[count++] = offset;
  }
  return left.subarray(0, count);
}

function groupScan(name: string): string {
  const range = onPages("z", "s.page", `least(s.page + ${GROUP_PAGES}, $2::bigint + 1)`);
  return `
      select s.page, b.n, b.added
        from generate_series($1::bigint, $2::bigint, ${GROUP_PAGES}) s(page)
       cross join lateral (
               select count(*) as n, encode(string_agg(tidsend(z.ctid), '') filter (where ${isNew("z")}), 'hex') as added
                 from only ${name} z where ${range}) b`;
}

function pageScan(name: string): string {
  return `
      select g.page, c.offsets
        from unnest($1::bigint[]) g(page)
       cross join lateral (select ${offsetList("y")} as offsets from only ${name} y where ${onPage("y")}) c`;
}
