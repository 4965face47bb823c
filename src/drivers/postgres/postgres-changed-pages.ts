import type { ChangedPage, ChangesQuestion, PageRows } from "../change-tracker.ts";
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
 * Finds the pages whose rows are not those of then. The pages with a new row are asked for their rows. The other pages have no row
 * but of those of then: while all of them together have as many, none of them lost one. Where they have fewer, or where nothing was
 * seen of the range, one scan counts the rows of groups of pages and names those that may be new.
 */
export async function findChangedPages(ask: Ask, question: TableQuestion): Promise<FoundPages> {
  const { name, lo, hi, xid, seen } = question;
  const scanGroups = () => ask(groupScan(name), [lo, hi - 1, xid]);
  let groups = seen ? undefined : await scanGroups();
  const added = seen?.added ?? placesByPage(groups?.map(([, , places]) => places ?? "").join(""));
  const changed = await lookAt(ask, name, added);
  const before = await question.counts();
  /** Rows that each page has if none of the others lost one. */
  const expected = before.slice();
  for (const one of changed) expected[one.page - lo] = "rows" in one ? one.rows : one.offsets.length;
  if (seen && sumOf(expected) !== seen.rows) groups = await scanGroups();
  const suspected: number[] = [];
  for (const [first, rows] of groups ?? []) {
    const start = Number(first);
    const end = Math.min(hi, start + GROUP_PAGES);
    if (sumOf(expected.subarray(start - lo, end - lo)) === Number(rows)) continue;
    for (let page = start; page < end; page++) if (!added.has(page)) suspected.push(page);
  }
  for (const sum of await sumPages(ask, name, suspected)) {
    if (sum.rows !== before[sum.page - lo]) changed.push({ ...sum, added: [] });
  }
  return { changed: changed.sort((left, right) => left.page - right.page), hasLost: suspected.length > 0 };
}

function sumOf(numbers: Int32Array): number {
  let sum = 0;
  for (let index = 0; index < numbers.length; index++) sum += numbers[index] ?? 0;
  return sum;
}

/** A page with one new row mostly lost one at most, which its sum tells; the others are listed at once. */
async function lookAt(ask: Ask, name: string, added: ReadonlyMap<number, readonly number[]>): Promise<ChangedPage[]> {
  const single: number[] = [];
  const others: number[] = [];
  for (const [page, offsets] of added) (offsets.length === 1 ? single : others).push(page);
  const sums = await sumPages(ask, name, single);
  const lists = await listPages(ask, name, others);
  return [
    ...sums.map((sum) => ({ ...sum, added: added.get(sum.page) ?? [] })),
    ...lists.map((list) => ({
      ...list,
      added: (added.get(list.page) ?? []).toSorted((left, right) => left - right),
    })),
  ];
}

/** Costs less than half of a list. */
async function sumPages(ask: Ask, name: string, pages: readonly number[]) {
  if (pages.length === 0) return [];
  const sums = await ask(sumScan(name), [`{${pages.join(",")}}`]);
  return sums.map(([page, rows, hash]) => ({ page: Number(page), rows: Number(rows), hash: Number(hash) }));
}

/** Gives the line pointers of the visible rows of each of these pages. */
export async function listPages(ask: Ask, name: string, pages: readonly number[]): Promise<readonly PageRows[]> {
  if (pages.length === 0) return [];
  const rows = await ask(listScan(name), [`{${pages.join(",")}}`]);
  return rows.map(([page, offsets]) => ({ page: Number(page), offsets: offsetsOf(offsets) }));
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

function sumScan(name: string): string {
  return `
      select g.page, c.n, c.hash
        from unnest($1::bigint[]) g(page)
       cross join lateral (
               select count(*) as n, bit_xor(hashtid(y.ctid)) as hash from only ${name} y where ${onPage("y")}) c`;
}

function listScan(name: string): string {
  return `
      select g.page, c.offsets
        from unnest($1::bigint[]) g(page)
       cross join lateral (select ${offsetList("y")} as offsets from only ${name} y where ${onPage("y")}) c`;
}
